//! Hooks of the function functions.

use super::hooks;

hooks! {
    area function;
}
