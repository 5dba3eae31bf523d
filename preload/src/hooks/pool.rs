//! Hooks of the pool functions.

use super::hooks;

hooks! {
    area pool;
}
