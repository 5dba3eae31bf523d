//! Launches as they were before CUDA 4: block shape, shared memory and parameters are state of the function.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, PoisonError};

use crate::edge::{array, exports};
use crate::error::{Error, Result};
use crate::launch::{MAX_PARAM_BYTES, Request};
use crate::{capture, function, stream};

/// What the next launch of a function has.
#[derive(Clone, Debug, Default)]
struct State {
    block: [u32; 3],
    shared_bytes: u32,
    params: Vec<u8>,
}

/// By function.
static STATES: Mutex<BTreeMap<u64, State>> = Mutex::new(BTreeMap::new());

fn change<T>(function: u64, change: impl FnOnce(&mut State) -> T) -> Result<T> {
    function::find(function)?;
    let mut states = STATES.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(change(states.entry(function).or_default()))
}

fn put(function: u64, offset: c_int, bytes: &[u8]) -> Result {
    let start = usize::try_from(offset).map_err(|_| Error::INVALID_VALUE)?;
    let end =
        start.checked_add(bytes.len()).filter(|end| *end <= MAX_PARAM_BYTES).ok_or(Error::INVALID_VALUE)?;
    change(function, |state| {
        state.params.resize(state.params.len().max(end), 0);
        state.params[start..end].copy_from_slice(bytes);
    })
}

fn launch(function: u64, width: c_int, height: c_int, stream: u64) -> Result {
    let mut state = change(function, |state| state.clone())?;
    // As hardware has it: values behind the parameters are taken, and the function does not see them.
    state.params.truncate(function::find(function)?.info.param_bytes);
    // Graphs are younger than these calls and do not take them.
    capture::forbid_sync(&*stream::find(stream)?)?;
    let size = |size: c_int| u32::try_from(size).map_err(|_| Error::INVALID_VALUE);
    let mut bytes = state.params.len();
    // CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE, CU_LAUNCH_PARAM_END.
    let key = std::ptr::without_provenance_mut::<c_void>;
    let mut list = [key(1), state.params.as_mut_ptr().cast(), key(2), (&raw mut bytes).cast(), key(0)];
    let request = Request {
        function,
        grid: [size(width)?, size(height)?, 1],
        block: state.block,
        shared_bytes: state.shared_bytes,
        params: std::ptr::null_mut(),
        extra: if state.params.is_empty() { std::ptr::null_mut() } else { list.as_mut_ptr() },
        attributes: &[],
    };
    // SAFETY: a complete list, whose parts live until the launch has read them.
    unsafe { super::launch::launch(&request, stream) }
}

exports! { TABLE:
    entry cuFuncSetBlockShape: (function: u64, x: c_int, y: c_int, z: c_int) {
        let block = [x, y, z].map(|size| u32::try_from(size).unwrap_or(0));
        if block.contains(&0) { Err(Error::INVALID_VALUE) } else { change(function, |state| state.block = block) }
    }
    entry cuFuncSetSharedSize: (function: u64, bytes: u32) { change(function, |state| state.shared_bytes = bytes) }
    entry cuParamSetSize: (function: u64, bytes: u32) {
        if bytes as usize > function::find(function)?.info.param_bytes {
            return Err(Error::INVALID_VALUE);
        }
        change(function, |state| state.params.resize(bytes as usize, 0))
    }
    entry cuParamSeti: (function: u64, offset: c_int, value: u32) { put(function, offset, &value.to_ne_bytes()) }
    entry cuParamSetf: (function: u64, offset: c_int, value: f32) { put(function, offset, &value.to_ne_bytes()) }
    entry cuParamSetv: (function: u64, offset: c_int, data: *const u8, bytes: u32) {
        put(function, offset, &array(data, bytes as usize)?)
    }
    entry cuLaunch: (function: u64) { launch(function, 1, 1, 0) }
    entry cuLaunchGrid: (function: u64, width: c_int, height: c_int) { launch(function, width, height, 0) }
    entry cuLaunchGridAsync: (function: u64, width: c_int, height: c_int, stream: u64) {
        launch(function, width, height, stream)
    }
}
