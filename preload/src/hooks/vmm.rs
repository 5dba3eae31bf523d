//! Hooks of the vmm functions.

use super::hooks;

hooks! {
    area vmm;
}
