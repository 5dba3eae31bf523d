//! Hooks of the pointer attribute functions.

use super::hooks;
use crate::edge::{In, Out};
use crate::ops::pointer;
use std::ffi::c_void;

hooks! {
    area pointer;
    fn cuPointerGetAttribute(out: *mut c_void, attribute: u32, address: u64)
        => pointer::get(Out::new(out), attribute, address);
    fn cuPointerGetAttributes(count: u32, attributes: *const u32, data: *const *mut c_void, address: u64)
        => pointer::get_many(count, In::new(attributes), In::new(data), address);
    fn cuPointerSetAttribute(value: *const c_void, attribute: u32, address: u64)
        => pointer::set(In::new(value.cast()), attribute, address);
}
