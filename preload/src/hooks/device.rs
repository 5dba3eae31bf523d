//! Hooks of what the device promises, and of peer access.

use super::hooks;
use crate::edge::Out;
use crate::ops::{device, peer};

hooks! {
    area device;
    fn cuDeviceGetAttribute(value: *mut i32, attribute: u32, device: i32)
        => device::attribute(Out::new(value), attribute, device);
    fn cuDeviceCanAccessPeer(can: *mut i32, device: i32, other: i32) => peer::can_access(Out::new(can), device, other);
    fn cuDeviceGetP2PAttribute(value: *mut i32, attribute: u32, from: i32, to: i32)
        => peer::attribute(Out::new(value), attribute, from, to);
    fn cuCtxEnablePeerAccess(context: u64, flags: u32) => peer::enable(context, flags);
}
