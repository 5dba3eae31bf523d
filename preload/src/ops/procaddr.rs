//! `cuGetProcAddress`: the driver resolves first, then the pointer that it returned is exchanged for the hook of exactly that
//! entry point. Names and versions are never interpreted here, so that the ABI version, the `_ptsz` variant and the 4- or
//! 5-argument form of `cuGetProcAddress` itself are right by construction.

use crate::{hooks, hooks::Hook, life, outcome::Outcome, result::CuResult};
use std::{ffi::c_void, sync::OnceLock};

/// Real entry points and their hooks, sorted by address. Two names of one function share the hook of either.
static TABLE: OnceLock<Vec<(usize, &'static Hook)>> = OnceLock::new();

/// Finishes a look-up whose real `result` was written to `function`.
///
/// # Safety
/// `function` is null or the out-parameter of the program's call.
pub unsafe fn answer(result: CuResult, function: *mut *mut c_void) -> Outcome {
    if result == CuResult::SUCCESS && !function.is_null() && !life::is_off() {
        // SAFETY: the driver has just written to it.
        let found = unsafe { *function };
        if let Some(hook) = hook_at(found as usize) {
            // SAFETY: as above.
            unsafe { *function = hook.entry().cast_mut() };
        }
    }
    result.into()
}

fn hook_at(address: usize) -> Option<&'static Hook> {
    let table = TABLE.get_or_init(|| {
        let mut table: Vec<_> =
            hooks::all().filter_map(|hook| Some((hook.slot.address()?.get(), hook))).collect();
        table.sort_unstable_by_key(|(address, _)| *address);
        table
    });
    let at = table.binary_search_by_key(&address, |(address, _)| *address).ok()?;
    Some(table[at].1)
}
