//! Hooks of the event functions.

use super::hooks;

hooks! {
    area event;
}
