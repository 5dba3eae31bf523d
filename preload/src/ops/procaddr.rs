//! `cuGetProcAddress`: the driver resolves first, then the pointer that it returned is exchanged for the hook of exactly that
//! entry point. Names and versions are never interpreted here, so that the ABI version, the `_ptsz` variant and the 4- or
//! 5-argument form of `cuGetProcAddress` itself are right by construction.

//!
//! A pointer that belongs to no exported name of the table is a newer function, or a newer version of one: see
//! [`crate::hooks::unknown`].

use crate::{
    hooks::{self, Class, Hook, unknown},
    life,
    outcome::Outcome,
    real,
    result::CuResult,
};
use std::{
    ffi::{CStr, c_char, c_void},
    sync::OnceLock,
};

/// Finishes a look-up of `symbol` whose real `result` was written to `function`.
///
/// # Safety
/// `symbol` and `function` are null or the arguments of the program's call.
pub unsafe fn answer(result: CuResult, symbol: *const c_char, function: *mut *mut c_void) -> Outcome {
    if result == CuResult::SUCCESS && !symbol.is_null() && !function.is_null() && !life::is_off() {
        // SAFETY: the driver has read the name and written the pointer.
        unsafe { *function = exchange(CStr::from_ptr(symbol), *function).cast_mut() };
    }
    result.into()
}

fn exchange(symbol: &CStr, found: *const c_void) -> *const c_void {
    match entry_at(found as usize) {
        Some(Some(hook)) => hook.entry(),
        Some(None) => found,
        None if matches!(hooks::classify(symbol.to_bytes()), Class::Local) || !real::owns(found) => found,
        None => unknown::stub_of(found, symbol),
    }
}

/// What the table knows about a real entry point: its hook, or that it stays local.
fn entry_at(address: usize) -> Option<Option<&'static Hook>> {
    static TABLE: OnceLock<Vec<(usize, Option<&'static Hook>)>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let hooked = hooks::all().filter_map(|hook| Some((hook.slot.address()?.get(), Some(hook))));
        let local = hooks::local::addresses().map(|address| (address, None));
        let mut table: Vec<_> = hooked.chain(local).collect();
        // Where one function has two names, the hooked one counts (the sort is stable).
        table.sort_by_key(|(address, _)| *address);
        table.dedup_by_key(|(address, _)| *address);
        table
    });
    let at = table.binary_search_by_key(&address, |(address, _)| *address).ok()?;
    Some(table[at].1)
}
