//! CUPTI functions by which a program asks for records of what the device does.
//!
//! Under `sidecar` dispatch kernels run in the executor's process, where the program's CUPTI sees nothing of them: a profile without a kernel, and
//! nobody would say why. What asks for such records is noticed ([`dispatch::meets_profiler`]) and goes on to the real function. Subscribing and
//! registering buffers are no such wish: libraries do both to see whether CUPTI works.
//!
//! No signature is needed: an entry point is a trampoline that jumps to the real function with all arguments in place. A program that is linked
//! with CUPTI reaches the exported ones, which go on to the CUPTI that the caller would have reached. One that opens CUPTI and looks names
//! up gets a stub for each function that it finds, because a process may hold several CUPTIs (PyTorch's, XLA's, Triton's).

use crate::{
    dispatch, life, resolver,
    trampoline::{self, Verdict},
};
use std::{
    ffi::{CStr, c_void},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Which calls of a function ask for records of the device.
#[derive(Clone, Copy, Debug)]
enum Asks {
    /// Those with such a `CUpti_ActivityKind` as the first argument.
    First,
    /// As second argument.
    Second,
    /// All.
    Always,
}

/// The functions, the exported ones first: what each CUPTI has. Newer ones are found by name only, so that a weak reference to one stays null
/// where the program's CUPTI lacks it.
const FUNCTIONS: [(&CStr, Asks); 8] = [
    (c"cuptiActivityEnable", Asks::First),
    (c"cuptiActivityEnableContext", Asks::Second),
    (c"cuptiProfilerBeginSession", Asks::Always),
    (c"cuptiActivityEnableAndDump", Asks::First),
    (c"cuptiActivityEnableAndDump_v2", Asks::Second),
    (c"cuptiActivityEnable_v2", Asks::Second),
    (c"cuptiPCSamplingEnable", Asks::Always),
    (c"cuptiRangeProfilerEnable", Asks::Always),
];

#[allow(non_snake_case, clippy::missing_safety_doc)]
mod exported {
    use crate::trampoline::entry;

    entry!(cuptiActivityEnable, 0, notice_and_jump);
    entry!(cuptiActivityEnableContext, 1, notice_and_jump);
    entry!(cuptiProfilerBeginSession, 2, notice_and_jump);
}

const EXPORTED: [unsafe extern "C" fn(); 3] = [
    exported::cuptiActivityEnable,
    exported::cuptiActivityEnableContext,
    exported::cuptiProfilerBeginSession,
];

/// `CUPTI_ACTIVITY_KIND_`: MEMCPY, MEMSET, KERNEL, CONCURRENT_KERNEL, CDP_KERNEL, MEMCPY2, PC_SAMPLING, GRAPH_TRACE, DEVICE_GRAPH_TRACE. The others
/// are of the processor (calls, markers, overhead) or of things that the local driver has as well (devices, contexts).
const DEVICE_KINDS: [u32; 9] = [1, 2, 3, 10, 18, 22, 30, 51, 53];

/// `CUPTI_ERROR_NOT_INITIALIZED`: what a weak reference gets where there is no CUPTI.
const NOT_INITIALIZED: usize = 15;

/// Row of the first stub: they follow the functions.
const FIRST: u32 = FUNCTIONS.len() as u32;

macro_rules! stubs {
    ($($number:literal)*) => {
        /// For each function as many as there may be CUPTIs in a process, one CUPTI after the other.
        const STUBS: &[unsafe extern "C" fn()] = &[$(trampoline::notice::<{ FIRST + $number }>),*];
    };
}

stubs! { 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 }

const _: () = assert!(STUBS.len().is_multiple_of(FUNCTIONS.len()), "each function has as many stubs");

/// The real function behind each stub; 0: free.
static REAL: [AtomicUsize; STUBS.len()] = [const { AtomicUsize::new(0) }; STUBS.len()];

/// The function of this name.
pub fn position(name: &CStr) -> Option<usize> {
    FUNCTIONS.iter().position(|(known, _)| *known == name)
}

/// What the program gets for a function that it looked up: that of what it `found`, where it is not ours, else of what lies behind us. Nothing
/// where the only one is ours: a probe must not believe that CUPTI is there.
pub fn answer(function: usize, found: Option<*const c_void>, caller: *const c_void) -> *const c_void {
    let is_ours =
        |found: &*const c_void| EXPORTED.get(function).is_some_and(|ours| *ours as *const c_void == *found);
    let found = found
        .filter(|found| !is_ours(found))
        .unwrap_or_else(|| resolver::behind(FUNCTIONS[function].0, caller));
    if found.is_null() || life::is_off() { found } else { stub_of(function, found) }
}

/// The stub of a real function; the function itself when all are taken.
fn stub_of(function: usize, real: *const c_void) -> *const c_void {
    for at in (function..STUBS.len()).step_by(FUNCTIONS.len()) {
        match REAL[at].compare_exchange(0, real as usize, Relaxed, Relaxed) {
            Ok(_) => return STUBS[at] as *const c_void,
            Err(taken) if taken == real as usize => return STUBS[at] as *const c_void,
            Err(_) => {}
        }
    }
    real
}

/// Before a call of the function in `row`, with its first two arguments: where to go on.
pub extern "C" fn notice_verdict(row: u32, first: usize, second: usize, caller: *const c_void) -> Verdict {
    let (name, asks) = FUNCTIONS[row as usize % FUNCTIONS.len()];
    let kind = match asks {
        Asks::First => Some(first as u32),
        Asks::Second => Some(second as u32),
        Asks::Always => None,
    };
    if !life::is_off() && kind.is_none_or(|kind| DEVICE_KINDS.contains(&kind)) {
        dispatch::meets_profiler();
    }
    let target = match row.checked_sub(FIRST) {
        Some(stub) => REAL.get(stub as usize).map_or(0, |real| real.load(Relaxed)),
        None => resolver::behind_or_any(name, caller) as usize,
    };
    Verdict { answer: NOT_INITIALIZED, target }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cupti_of_a_process_has_its_own_stubs() {
        let real = |number: usize| (0x1000 + number) as *const c_void;
        let function = position(c"cuptiActivityEnable_v2").expect("a known function");
        let each = STUBS.len() / FUNCTIONS.len();
        for number in 0..each {
            let stub = answer(function, Some(real(number)), real(0));
            assert!(stub != real(number) && stub == answer(function, Some(real(number)), real(0)));
            let row = FIRST
                + STUBS.iter().position(|known| *known as *const c_void == stub).expect("a stub") as u32;
            let verdict = notice_verdict(row, 0, 10, real(0));
            assert_eq!((verdict.answer, verdict.target), (NOT_INITIALIZED, real(number) as usize));
            assert_eq!(row as usize % FUNCTIONS.len(), function);
        }
        assert_eq!(answer(function, Some(real(each)), real(0)), real(each), "the pool is empty");
        assert!(answer(function, Some(std::ptr::null()), real(0)).is_null());
        assert_eq!(position(c"cuptiSubscribe"), None);
    }
}
