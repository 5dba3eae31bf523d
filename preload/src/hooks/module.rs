//! Hooks of the module functions.

use super::hooks;

hooks! {
    area module;
}
