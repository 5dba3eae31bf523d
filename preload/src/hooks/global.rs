//! Hooks of the global functions.

use super::hooks;

hooks! {
    area global;
}
