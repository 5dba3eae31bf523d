//! How a function's parameters lie in the buffer that its kernel reads.
//!
//! Launches read a layout without a lock while other threads unload images, so layouts are never freed; equal ones are one, and
//! programs have few that differ, however many modules they load.

use super::Unusable;
use crate::outcome::Reason;
use crate::real;
use crate::result::CuResult;
use lightos_protocol::record::MAX_PARAM_BYTES;
use rustc_hash::FxHashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// A parameter's place in the buffer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Param {
    pub offset: u32,
    pub bytes: u32,
}

/// The places of all parameters.
#[derive(Debug)]
pub struct Layout {
    /// By index.
    pub params: &'static [Param],
    /// Bytes of the whole buffer.
    pub bytes: u32,
}

static LAYOUTS: LazyLock<Mutex<FxHashMap<&'static [Param], &'static Layout>>> =
    LazyLock::new(Default::default);

impl Layout {
    /// Without parameters.
    pub const NONE: Self = Self { params: &[], bytes: 0 };

    /// The one layout that has these parameters.
    pub fn of(params: &[Param]) -> &'static Self {
        let mut layouts = LAYOUTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = layouts.get(params) {
            return known;
        }
        let bytes = params.iter().map(|param| param.offset + param.bytes).max().unwrap_or(0);
        let params: &'static [Param] = params.to_vec().leak();
        let layout: &'static Self = Box::leak(Box::new(Self { params, bytes }));
        layouts.insert(params, layout);
        layout
    }

    /// Asks the local driver for each parameter until it says that there is none with the index.
    pub fn ask(handle: u64, is_kernel: bool) -> Result<&'static Self, Unusable> {
        let mut params = Vec::new();
        loop {
            let (mut offset, mut bytes) = (0, 0);
            // SAFETY: valid out-parameters and a handle that the local driver knows.
            let result = unsafe {
                if is_kernel {
                    real::cuKernelGetParamInfo(handle, params.len(), &mut offset, &mut bytes)
                } else {
                    real::cuFuncGetParamInfo(handle, params.len(), &mut offset, &mut bytes)
                }
            };
            match result {
                CuResult::SUCCESS if offset.saturating_add(bytes) <= MAX_PARAM_BYTES => {}
                CuResult::INVALID_VALUE => return Ok(Self::of(&params)),
                _ => return Err(Unusable::Refused(Reason::ParameterLayout)),
            }
            params.push(Param { offset: offset as u32, bytes: bytes as u32 });
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Of parameters with these offsets and bytes.
    pub fn layout(params: &[(u32, u32)]) -> &'static Layout {
        let params: Vec<_> = params.iter().map(|&(offset, bytes)| Param { offset, bytes }).collect();
        Layout::of(&params)
    }

    #[test]
    fn equal_layouts_are_one() {
        let with = |bytes| layout(&[(0, 4), (8, bytes)]);
        assert!(std::ptr::eq(with(8), with(8)) && !std::ptr::eq(with(8), with(16)));
        assert_eq!((with(16).bytes, layout(&[]).bytes), (24, 0));
    }
}
