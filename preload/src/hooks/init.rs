//! Hooks of initialisation.

use super::hooks;
use crate::ops;

hooks! {
    area init;
    [always] fn cuInit(flags: u32) => ops::init::init(flags);
}
