//! Hooks of the launch functions.

use super::hooks;

hooks! {
    area launch;
}
