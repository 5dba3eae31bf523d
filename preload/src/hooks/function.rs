//! Hooks of the functions that change a function or kernel. Queries stay with the local driver.

use super::hooks;
use crate::ops::function as ops;
use crate::outcome::{Outcome, Reason};

hooks! {
    area function;
    fn cuFuncSetAttribute(function: u64, attribute: u32, value: i32)
        => ops::set_attribute(function, attribute, value, || real::cuFuncSetAttribute(function, attribute, value));
    fn cuKernelSetAttribute(attribute: u32, value: i32, kernel: u64, device: i32)
        => ops::set_attribute(kernel, attribute, value, || real::cuKernelSetAttribute(attribute, value, kernel, device));
    fn cuFuncSetCacheConfig(function: u64, config: u32)
        => ops::set_cache_config(function, config, || real::cuFuncSetCacheConfig(function, config));
    fn cuKernelSetCacheConfig(kernel: u64, config: u32, device: i32)
        => ops::set_cache_config(kernel, config, || real::cuKernelSetCacheConfig(kernel, config, device));
    /// Without effect on every device since Maxwell.
    fn cuFuncSetSharedMemConfig(function: u64, config: u32) => Outcome::PassThrough(Reason::LocalQuery);
    /// The executor loads at the first launch.
    fn cuFuncLoad(function: u64) => Outcome::PassThrough(Reason::LocalQuery);
}
