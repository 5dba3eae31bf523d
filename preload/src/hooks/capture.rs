//! Hooks of the capture functions.

use super::hooks;

hooks! {
    area capture;
}
