//! Hooks of the memset functions.

use super::hooks;

hooks! {
    area memset;
}
