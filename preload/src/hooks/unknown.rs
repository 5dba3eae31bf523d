//! Driver functions that this build has never heard of: a newer driver's.
//!
//! What such a function does with handles and memory is not known, so under a session it must not silently run on the wrong
//! side; natively it must work. The program gets a stub that decides at each call, as for the refused functions. There are
//! few such functions (a driver release adds a handful that programs ask for), so the stubs are a fixed pool: no
//! executable memory is made at run time, and handing one out takes no lock.

use crate::{hooks::refuse, trampoline};
use std::{
    ffi::c_void,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Row of the first stub: they follow the refused functions.
const FIRST: u32 = refuse::NAMES.len() as u32;

macro_rules! stubs {
    ($($number:literal)*) => {
        const STUBS: &[unsafe extern "C" fn()] = &[$(trampoline::stub::<{ FIRST + $number }>),*];
    };
}

stubs! {
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
}

/// The real function behind each stub; 0: free.
static REAL: [AtomicUsize; STUBS.len()] = [const { AtomicUsize::new(0) }; STUBS.len()];

/// The stub that stands for a driver function; the function itself when all stubs are taken.
pub fn stub_of(function: *const c_void) -> *const c_void {
    for (real, stub) in REAL.iter().zip(STUBS) {
        match real.compare_exchange(0, function as usize, Relaxed, Relaxed) {
            Ok(_) => return *stub as *const c_void,
            Err(taken) if taken == function as usize => return *stub as *const c_void,
            Err(_) => {}
        }
    }
    function
}

/// The real function behind the stub of this row.
pub fn real_of(row: u32) -> Option<usize> {
    let stub = row.checked_sub(FIRST)? as usize;
    REAL.get(stub).map(|real| real.load(Relaxed)).filter(|real| *real != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_keeps_its_stub_and_the_pool_ends_gracefully() {
        let function = |number: usize| (0x1000 + number) as *const c_void;
        let stubs: Vec<_> = (0..STUBS.len()).map(|number| stub_of(function(number))).collect();
        for (number, stub) in stubs.iter().enumerate() {
            assert_eq!(stub_of(function(number)), *stub);
            assert_eq!(real_of(FIRST + number as u32), Some(function(number) as usize));
            assert!(stubs.iter().filter(|other| *other == stub).count() == 1);
        }
        assert_eq!(stub_of(function(STUBS.len())), function(STUBS.len()));
        assert_eq!(real_of(FIRST + STUBS.len() as u32), None);
        assert_eq!(real_of(0), None);
    }
}
