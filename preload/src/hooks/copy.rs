//! Hooks of the copy functions.

use super::hooks;

hooks! {
    area copy;
}
