//! Hooks of the library functions.

use super::hooks;

hooks! {
    area library;
}
