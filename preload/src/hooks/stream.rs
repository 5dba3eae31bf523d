//! Hooks of the stream functions.

use super::hooks;

hooks! {
    area stream;
}
