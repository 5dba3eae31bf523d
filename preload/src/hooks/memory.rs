//! Hooks of the memory functions.

use super::hooks;

hooks! {
    area memory;
}
