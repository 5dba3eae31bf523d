//! Launches.

use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

use crate::abi::{AttributeValue, LaunchAttribute, LaunchConfig};
use crate::edge::{array, exports, get};
use crate::error::{Error, Result};
use crate::launch::{COOPERATIVE, Request, prepare};
use crate::work::Work;
use crate::{capture, context, event, stream};

/// # Safety
/// As [`prepare`].
pub(super) unsafe fn launch(request: &Request, handle: u64) -> Result {
    context::healthy()?;
    let stream = stream::find(handle)?;
    // SAFETY: this function's contract.
    let call = Arc::new(unsafe { prepare(request) }?);
    let events = call.events().map(event::find).collect::<Result<Vec<_>>>()?;
    if !events.is_empty() && capture::is_capturing(&stream)? {
        // An edge with data, which graphs here do not carry.
        return Err(Error::NOT_SUPPORTED);
    }
    stream.submit(Work::Kernel(call))?;
    // The latest moment at which they may be passed: early ones are a matter of speed.
    events.into_iter().try_for_each(|event| stream.submit(Work::RecordEvent(event)))?;
    if is_blocking() && !capture::is_capturing(&stream)? { stream.synchronize() } else { Ok(()) }
}

/// Whether launches return when the kernel has ended (`CUDA_LAUNCH_BLOCKING=1`).
fn is_blocking() -> bool {
    static BLOCKING: OnceLock<bool> = OnceLock::new();
    *BLOCKING.get_or_init(|| std::env::var("CUDA_LAUNCH_BLOCKING").is_ok_and(|value| value == "1"))
}

const COOPERATIVE_ONLY: LaunchAttribute =
    LaunchAttribute { id: COOPERATIVE, pad: [0; 4], value: AttributeValue([1, 0, 0, 0, 0, 0, 0, 0]) };

exports! { TABLE:
    entry cuLaunchKernel / cuLaunchKernel_ptsz: (
        function: u64, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, stream: u64, params: *mut *mut c_void, extra: *mut *mut c_void
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        launch(&Request { function, grid, block, shared_bytes, params, extra, attributes: &[] }, stream)
    }
    entry cuLaunchKernelEx / cuLaunchKernelEx_ptsz: (
        config: *const LaunchConfig, function: u64, params: *mut *mut c_void, extra: *mut *mut c_void
    ) {
        let LaunchConfig { grid, block, shared_bytes, stream, attributes, attribute_count } = get(config)?;
        let attributes = array(attributes, attribute_count as usize)?;
        launch(&Request { function, grid, block, shared_bytes, params, extra, attributes: &attributes }, stream)
    }
    entry cuLaunchCooperativeKernel / cuLaunchCooperativeKernel_ptsz: (
        function: u64, grid_x: u32, grid_y: u32, grid_z: u32, block_x: u32, block_y: u32, block_z: u32,
        shared_bytes: u32, stream: u64, params: *mut *mut c_void
    ) {
        let (grid, block, extra) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z], std::ptr::null_mut());
        let attributes = &[COOPERATIVE_ONLY];
        launch(&Request { function, grid, block, shared_bytes, params, extra, attributes }, stream)
    }
}
