//! Driver functions that this build has never heard of: a newer driver's.
//!
//! What such a function does with handles and memory is not known, so under a session it must not silently run on the wrong
//! side; natively it must work. The program gets a stub that decides at each call, as for the refused functions. There are
//! few such functions (a driver release adds a handful that programs ask for), so the stubs are a fixed pool: no
//! executable memory is made at run time, and handing one out takes no lock.

use crate::{hooks::refuse, trampoline};
use lightos_protocol::pages::UNKNOWN_FUNCTIONS;
use std::{
    ffi::{CStr, c_void},
    sync::atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
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

const _: () = assert!(STUBS.len() == UNKNOWN_FUNCTIONS, "each stub has a counter");

/// The real function behind each stub; 0: free.
static REAL: [AtomicUsize; STUBS.len()] = [const { AtomicUsize::new(0) }; STUBS.len()];

/// The name by which the program found it.
static NAMES: [Name; STUBS.len()] = [const { Name::new() }; STUBS.len()];

/// Room for a name that can be filled without allocating; the length comes last.
struct Name {
    length: AtomicUsize,
    words: [AtomicUsize; Self::BYTES / size_of::<usize>()],
}

impl Name {
    const BYTES: usize = 64;

    const fn new() -> Self {
        Self {
            length: AtomicUsize::new(0),
            words: [const { AtomicUsize::new(0) }; Self::BYTES / size_of::<usize>()],
        }
    }

    /// Keeps the first bytes of `name`.
    fn set(&self, name: &[u8]) {
        let name = &name[..name.len().min(Self::BYTES)];
        for (word, chunk) in self.words.iter().zip(name.chunks(size_of::<usize>())) {
            let mut bytes = [0; size_of::<usize>()];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(usize::from_ne_bytes(bytes), Relaxed);
        }
        self.length.store(name.len(), Release);
    }

    fn get(&self) -> ([u8; Self::BYTES], usize) {
        let length = self.length.load(Acquire);
        let mut bytes = [0; Self::BYTES];
        for (chunk, word) in bytes.chunks_mut(size_of::<usize>()).zip(&self.words) {
            chunk.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
        }
        (bytes, length)
    }
}

/// The stub that stands for a driver function which the program found under `name`; the function itself when all stubs are taken.
pub fn stub_of(function: *const c_void, name: &CStr) -> *const c_void {
    for ((real, stub), its_name) in REAL.iter().zip(STUBS).zip(&NAMES) {
        match real.compare_exchange(0, function as usize, Relaxed, Relaxed) {
            Ok(_) => {
                its_name.set(name.to_bytes());
                return *stub as *const c_void;
            }
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

/// Hands the number and the name of the function behind the stub of this row to `tell`.
pub fn named(row: u32, tell: impl FnOnce(usize, &[u8])) {
    let stub = row.checked_sub(FIRST).map(|stub| stub as usize);
    if let Some((stub, name)) = stub.and_then(|stub| Some((stub, NAMES.get(stub)?))) {
        let (bytes, length) = name.get();
        tell(stub, &bytes[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn a_function_keeps_its_stub_and_the_pool_ends_gracefully() {
        let function = |number: usize| (0x1000 + number) as *const c_void;
        let name = |number: usize| CString::new(format!("cuFunctionOfTheFuture{number}")).unwrap();
        let stubs: Vec<_> = (0..STUBS.len()).map(|number| stub_of(function(number), &name(number))).collect();
        for (number, stub) in stubs.iter().enumerate() {
            assert_eq!(stub_of(function(number), &name(number)), *stub);
            named(FIRST + number as u32, |index, found| {
                assert_eq!((index, found), (number, name(number).to_bytes()))
            });
            assert_eq!(real_of(FIRST + number as u32), Some(function(number) as usize));
            assert!(stubs.iter().filter(|other| *other == stub).count() == 1);
        }
        assert_eq!(stub_of(function(STUBS.len()), c"cuMore"), function(STUBS.len()));
        assert_eq!(real_of(FIRST + STUBS.len() as u32), None);
        assert_eq!(real_of(0), None);
        named(0, |_, _| unreachable!("a refused function is no stub"));
    }

    #[test]
    fn long_names_are_cut() {
        let name = Name::new();
        name.set(&[b'c'; 100]);
        assert_eq!(name.get(), ([b'c'; 64], 64));
    }
}
