//! Hook of the device attributes.

use super::hooks;
use crate::edge::Out;
use crate::ops::device;

hooks! {
    area device;
    fn cuDeviceGetAttribute(value: *mut i32, attribute: u32, device: i32)
        => device::attribute(Out::new(value), attribute, device);
}
