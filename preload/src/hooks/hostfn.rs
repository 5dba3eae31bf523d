//! Hooks of the hostfn functions.

use super::hooks;

hooks! {
    area hostfn;
}
