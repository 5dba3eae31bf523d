//! Launches as they were before CUDA 4: block shape, shared memory and parameters are state of the function.
//!
//! The local driver is told each part, judges it, and has it for captures. The launch itself is an ordinary one.

use super::params::Arguments;
use super::{Shape, kernel};
use crate::ops::function;
use crate::outcome::Outcome;
use crate::result::CuResult;
use lightos_protocol::record::MAX_PARAM_BYTES;
use rustc_hash::FxHashMap;
use std::ffi::c_void;
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// What the next launch of a function has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    block: [u32; 3],
    shared_bytes: u32,
    params: Vec<u8>,
}

/// By function.
static STATES: LazyLock<Mutex<FxHashMap<u64, State>>> = LazyLock::new(Default::default);

fn states() -> MutexGuard<'static, FxHashMap<u64, State>> {
    STATES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The function's image goes.
pub fn forget(function: u64) {
    states().remove(&function);
}

fn set(function: u64, local: CuResult, change: impl FnOnce(&mut State)) -> Outcome {
    if local == CuResult::SUCCESS {
        change(states().entry(function).or_default());
    }
    local.into()
}

/// cuFuncSetBlockShape.
pub fn set_block(function: u64, block: [i32; 3], local: CuResult) -> Outcome {
    set(function, local, |state| state.block = block.map(|size| size.max(0) as u32))
}

/// cuFuncSetSharedSize.
pub fn set_shared(function: u64, bytes: u32, local: CuResult) -> Outcome {
    set(function, local, |state| state.shared_bytes = bytes)
}

/// cuParamSetSize.
pub fn set_size(function: u64, bytes: u32, local: CuResult) -> Outcome {
    set(function, local, |state| state.params.resize((bytes as usize).min(MAX_PARAM_BYTES), 0))
}

/// cuParamSeti and cuParamSetf.
pub fn set_params(function: u64, offset: i32, bytes: &[u8], local: CuResult) -> Outcome {
    set(function, local, |state| state.put(offset, bytes))
}

/// cuParamSetv.
///
/// # Safety
/// `data` is null or has that many bytes.
pub unsafe fn set_bytes(
    function: u64,
    offset: i32,
    data: *const c_void,
    bytes: u32,
    local: CuResult,
) -> Outcome {
    if data.is_null() || local != CuResult::SUCCESS {
        return local.into();
    }
    // SAFETY: not null, so as the caller vouches.
    let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes as usize) };
    set_params(function, offset, data, local)
}

impl State {
    /// Parameters may be given before their size, which then cuts off what lies behind it.
    fn put(&mut self, offset: i32, bytes: &[u8]) {
        let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(bytes.len()));
        let Some(end) = end.filter(|end| *end <= MAX_PARAM_BYTES) else { return };
        if self.params.len() < end {
            self.params.resize(end, 0);
        }
        self.params[end - bytes.len()..end].copy_from_slice(bytes);
    }
}

/// cuLaunch, cuLaunchGrid and cuLaunchGridAsync.
pub fn launch(function: u64, grid: [i32; 2], stream: u64) -> Outcome {
    // Nothing may go to the local driver, which has the same state and would run the kernel: the executor's judges, also a grid
    // without blocks.
    let [width, height] = grid.map(|size| size.max(0) as u32);
    let known = match function::find(function) {
        Ok(known) => known,
        Err(unusable) => return unusable.into(),
    };
    let State { block, shared_bytes, mut params } = states().get(&function).cloned().unwrap_or_default();
    // The driver takes values that lie behind the function's parameters, and the function does not see them.
    params.truncate(known.layout().bytes as usize);
    let mut bytes = params.len();
    // `CU_LAUNCH_PARAM_BUFFER_POINTER`, `_BUFFER_SIZE`, `_END`.
    let mut list: [*mut c_void; 5] = [
        without_provenance_mut(1),
        params.as_mut_ptr().cast(),
        without_provenance_mut(2),
        (&raw mut bytes).cast(),
        null_mut(),
    ];
    let extra = if params.is_empty() { null_mut() } else { list.as_mut_ptr() };
    // SAFETY: a complete list, whose parts live until the launch has read them.
    let arguments = unsafe { Arguments::new(null_mut(), extra) };
    kernel(function, Shape { grid: [width, height, 1], block, shared_bytes }, stream, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together_and_what_was_refused_leaves_no_trace() {
        const FUNCTION: u64 = 0x1e9ac1;
        let done = Outcome::Done;
        assert_eq!(set_block(FUNCTION, [8, 4, 1], CuResult::SUCCESS), done);
        assert_eq!(set_shared(FUNCTION, 64, CuResult::SUCCESS), done);
        assert_eq!(set_params(FUNCTION, 8, &7u32.to_ne_bytes(), CuResult::SUCCESS), done);
        assert_eq!(set_params(FUNCTION, 0, &9u32.to_ne_bytes(), CuResult::SUCCESS), done);
        let refused = set_params(FUNCTION, 0, &[1; 4], CuResult::INVALID_VALUE);
        assert_eq!(refused, Outcome::Fail(CuResult::INVALID_VALUE));
        assert_eq!(set_params(FUNCTION, -1, &[1; 4], CuResult::SUCCESS), done);
        assert_eq!(set_params(FUNCTION, i32::MAX, &[1; 4], CuResult::SUCCESS), done);
        let mut params = vec![0; 12];
        (params[0], params[8]) = (9, 7);
        let expected = State { block: [8, 4, 1], shared_bytes: 64, params };
        assert_eq!(states().get(&FUNCTION), Some(&expected));
        assert_eq!(set_size(FUNCTION, 4, CuResult::SUCCESS), done);
        assert_eq!(states().get(&FUNCTION).map(|state| state.params.clone()), Some(vec![9, 0, 0, 0]));
        forget(FUNCTION);
        assert_eq!(states().get(&FUNCTION), None);
    }
}
