//! Hooks of the host functions.

use super::hooks;

hooks! {
    area host;
}
