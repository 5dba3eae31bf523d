//! Peer access: between contexts of one device it can only fail, and the local driver says how; between devices it is refused, since the
//! memory is the executor's and its context has no peer.
//!
//! So a program is told beforehand that the session's device has no peers, as natively with devices that do not reach each other. One that may
//! still turn to local dispatch hears the truth: to use a second device it will.

use super::memory::slabs::DEVICE;
use crate::dispatch;
use crate::edge::Out;
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;

/// `CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED`, `_NATIVE_ATOMIC_SUPPORTED` and `_CUDA_ARRAY_ACCESS_SUPPORTED`.
const SUPPORTED: std::ops::RangeInclusive<u32> = 2..=4;

/// The device of a context; `None` where the local driver knows no such context.
fn device_of(context: u64) -> Option<i32> {
    let (mut device, mut popped) = (-1, 0);
    // SAFETY: the program names the context in this call, and the driver refuses what is none; the thread pops what it pushed. Valid
    // out-parameters.
    unsafe {
        real::cuCtxPushCurrent_v2(context).ok().ok()?;
        let found = real::cuCtxGetDevice(&mut device).ok();
        real::cuCtxPopCurrent_v2(&mut popped).ok().ok()?;
        found.ok().map(|()| device)
    }
}

/// cuCtxEnablePeerAccess, from the current context to memory of another.
pub fn enable(peer: u64, flags: u32) -> Outcome {
    let mut own = -1;
    // SAFETY: a valid out-parameter.
    let current = unsafe { real::cuCtxGetDevice(&mut own) }.ok();
    let other = if peer == 0 { None } else { device_of(peer) };
    match other {
        Some(other) if current.is_ok() && flags == 0 && other != own => Outcome::Refuse(Reason::Peer),
        _ => Outcome::PassThrough(Reason::InvalidArgument),
    }
}

/// cuDeviceCanAccessPeer: the local driver judges the arguments.
pub fn can_access(out: Out<i32>, device: i32, peer: i32) -> Result<Outcome, CuResult> {
    if dispatch::is_open() || ![device, peer].contains(&DEVICE) {
        return Ok(Outcome::PassThrough(Reason::LocalQuery));
    }
    let out = out.required()?;
    let mut can = 0;
    // SAFETY: a valid out-parameter.
    unsafe { real::cuDeviceCanAccessPeer(&mut can, device, peer) }.ok()?;
    out.put(0);
    Ok(Outcome::Done)
}

/// cuDeviceGetP2PAttribute.
pub fn attribute(out: Out<i32>, attribute: u32, from: i32, to: i32) -> Result<Outcome, CuResult> {
    if dispatch::is_open() || ![from, to].contains(&DEVICE) || !SUPPORTED.contains(&attribute) {
        return Ok(Outcome::PassThrough(Reason::LocalQuery));
    }
    let out = out.required()?;
    let mut value = 0;
    // SAFETY: a valid out-parameter.
    unsafe { real::cuDeviceGetP2PAttribute(&mut value, attribute, from, to) }.ok()?;
    out.put(0);
    Ok(Outcome::Done)
}
