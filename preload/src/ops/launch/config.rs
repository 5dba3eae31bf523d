//! cuLaunchKernelEx: a launch with attributes.
//!
//! Attributes are copied into the record as they are. The executor puts its own events in the place of the program's, and tells when they are
//! complete; an attribute that holds a graph node is refused.

use super::{INVALID, Shape, launch};
use crate::edge::In;
use crate::ops::capture::{self, captures};
use crate::ops::event::{self, Event};
use crate::ops::launch::params::Arguments;
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;
use lightos_protocol::record::{EVENT_ATTRIBUTES, LAUNCH_EX, LaunchAttribute, MAX_LAUNCH_ATTRIBUTES};

/// Size of a `CUlaunchAttribute`.
pub const ATTRIBUTE_BYTES: usize = size_of::<LaunchAttribute>();
/// `CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE`.
const DEVICE_UPDATABLE_NODE: u32 = 13;
/// `CU_LAUNCH_ATTRIBUTE_COOPERATIVE`.
const COOPERATIVE: u32 = 2;

/// `CUlaunchConfig`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: u64,
    attributes: *const u8,
    attribute_count: u32,
}

const _: () = assert!(size_of::<Config>() == size_of::<cudarc::driver::sys::CUlaunchConfig>());

/// cuLaunchKernelEx; `default_stream` is what stream 0 means.
pub fn ex(config: &In<Config>, function: u64, arguments: Arguments, default_stream: u64) -> Outcome {
    let Ok(config) = config.get() else { return INVALID };
    let stream = if config.stream == 0 { default_stream } else { config.stream };
    if captures(stream) {
        return capture::PASS;
    }
    let count = config.attribute_count as usize;
    if count > MAX_LAUNCH_ATTRIBUTES || (count != 0 && config.attributes.is_null()) {
        return INVALID;
    }
    let attributes: &[u8] = if count == 0 {
        &[]
    } else {
        // SAFETY: not null, so the program's list of that many attributes.
        unsafe { std::slice::from_raw_parts(config.attributes, count * ATTRIBUTE_BYTES) }
    };
    let shape = Shape { grid: config.grid, block: config.block, shared_bytes: config.shared_bytes };
    let mut events = Vec::new();
    let mut flags = if count == 0 { 0 } else { LAUNCH_EX };
    for attribute in attributes.chunks_exact(ATTRIBUTE_BYTES) {
        let word = |index: usize| {
            let at = index * 4;
            u32::from_ne_bytes([attribute[at], attribute[at + 1], attribute[at + 2], attribute[at + 3]])
        };
        // Id and padding, then the value.
        match word(0) {
            DEVICE_UPDATABLE_NODE => return Outcome::Refuse(Reason::LaunchAttribute),
            id if EVENT_ATTRIBUTES.contains(&id) => {
                let handle = u64::from(word(2)) | u64::from(word(3)) << 32;
                let Some(event) = event::find(handle) else { return Outcome::Fail(CuResult::INVALID_HANDLE) };
                events.push(event);
                flags |= super::RECORDS_EVENT;
            }
            COOPERATIVE if word(2) != 0 => flags |= super::LAUNCH_COOPERATIVE,
            _ => {}
        }
    }
    let outcome = launch(function, shape, stream, arguments, flags, attributes);
    if outcome == Outcome::Done {
        events.into_iter().for_each(Event::recorded_by_executor);
    }
    outcome
}
