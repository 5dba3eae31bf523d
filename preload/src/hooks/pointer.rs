//! Hooks of the pointer functions.

use super::hooks;

hooks! {
    area pointer;
}
