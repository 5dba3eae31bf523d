//! The FFI edge: how a C entry point becomes a checked call of safe logic.
//!
//! [`exports!`] turns a list of functions into exported symbols and a table for `cuGetProcAddress`. Each edge checks that the
//! driver is initialised, catches panics (`CUDA_ERROR_UNKNOWN`), and notes whether it was entered through a
//! per-thread-default-stream variant (`_ptsz`, `_ptds`): there the NULL stream means `CU_STREAM_PER_THREAD`.

use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

/// An exported function.
#[derive(Clone, Copy, Debug)]
pub struct Export {
    pub name: &'static str,
    pub address: *const (),
}

// SAFETY: the address is that of a function, which is immutable and lives as long as the library.
unsafe impl Sync for Export {}
// SAFETY: as above.
unsafe impl Send for Export {}

thread_local! {
    static PER_THREAD_DEFAULT: Cell<bool> = const { Cell::new(false) };
}

/// True while this thread is inside a `_ptsz` or `_ptds` entry point.
pub fn per_thread_default() -> bool {
    PER_THREAD_DEFAULT.get()
}

/// Runs the body of an entry point that needs an initialised driver.
pub fn call(per_thread: bool, body: impl FnOnce() -> Result) -> u32 {
    call_early(per_thread, || {
        crate::device::ready()?;
        body()
    })
}

/// Runs the body of an entry point that works before `cuInit`.
pub fn call_early(per_thread: bool, body: impl FnOnce() -> Result) -> u32 {
    let before = PER_THREAD_DEFAULT.replace(per_thread);
    let result = catch_unwind(AssertUnwindSafe(body));
    PER_THREAD_DEFAULT.set(before);
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => error.0,
        Err(_) => Error::UNKNOWN.0,
    }
}

/// Writes a result through a caller's pointer; `CUDA_ERROR_INVALID_VALUE` where it is null.
///
/// # Safety
/// `pointer` is null or valid for writing a `T`.
pub unsafe fn put<T>(pointer: *mut T, value: T) -> Result {
    if pointer.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: not null, so valid for writes by this function's contract; C callers may pass unaligned memory.
    unsafe { pointer.write_unaligned(value) };
    Ok(())
}

/// Writes an optional result: nothing happens where the pointer is null.
///
/// # Safety
/// As [`put`].
pub unsafe fn put_some<T>(pointer: *mut T, value: T) {
    // SAFETY: this function's contract is that of `put`; a null pointer is no error here.
    let _ = unsafe { put(pointer, value) };
}

/// Reads a structure that the caller passed by pointer.
///
/// # Safety
/// `pointer` is null or valid for reading a `T`, and any bit pattern is a `T`.
pub unsafe fn get<T: Copy>(pointer: *const T) -> Result<T> {
    if pointer.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: not null, so readable by this function's contract.
    Ok(unsafe { pointer.read_unaligned() })
}

/// Copies a caller's array.
///
/// # Safety
/// `pointer` is null or valid for reading `count` values of `T`.
pub unsafe fn array<T: Copy>(pointer: *const T, count: usize) -> Result<Vec<T>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if pointer.is_null() || count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: not null and readable for `count` values by this function's contract.
    Ok((0..count).map(|i| unsafe { pointer.add(i).read_unaligned() }).collect())
}

/// Answers a list query in the CUDA manner: a null list asks for the count; otherwise up to `*count` entries are written, the
/// rest is zeroed, and `*count` becomes the number written.
///
/// # Safety
/// `list` is null or valid for writing `*count` values; `count` is null or valid.
pub unsafe fn put_list<T: Copy>(list: *mut T, count: *mut usize, values: &[T], zero: T) -> Result {
    // SAFETY: this function's contract.
    unsafe {
        let room = get(count)?;
        if list.is_null() {
            return put(count, values.len());
        }
        for i in 0..room {
            list.add(i).write_unaligned(values.get(i).copied().unwrap_or(zero));
        }
        put(count, room.min(values.len()))
    }
}

/// A caller's C string.
///
/// # Safety
/// `text` is null or a NUL-terminated string that outlives `'a`.
pub unsafe fn text<'a>(text: *const c_char) -> Result<&'a CStr> {
    if text.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: not null, so NUL-terminated by this function's contract.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// Declares entry points and their table.
///
/// `entry name: (args) { body }` exports `name`; `entry name / variant: (args)` exports the same function a second time as its
/// per-thread-default-stream variant; `early` in place of `entry` works before `cuInit`. Bodies are unsafe code that relies on the CUDA
/// documentation's contract for pointer arguments.
macro_rules! exports {
    ($table:ident: $($kind:ident $name:ident $(/ $variant:ident)? : $args:tt $body:block)*) => {
        $(
            $crate::edge::export!($kind, $name, false, $args, $body);
            $($crate::edge::export!($kind, $variant, true, $args, $body);)?
        )*
        pub(crate) static $table: &[$crate::edge::Export] = &[
            $(
                $crate::edge::Export { name: stringify!($name), address: $name as *const () },
                $($crate::edge::Export { name: stringify!($variant), address: $variant as *const () },)?
            )*
        ];
    };
}

macro_rules! export {
    (entry, $name:ident, $per_thread:literal, ($($arg:ident: $ty:ty),* $(,)?), $body:block) => {
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::missing_safety_doc, clippy::too_many_arguments, unused_unsafe)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
            // SAFETY: pointer arguments are as the CUDA documentation asks of the caller; null is checked where it is read.
            $crate::edge::call($per_thread, move || unsafe { $body })
        }
    };
    (early, $name:ident, $per_thread:literal, ($($arg:ident: $ty:ty),* $(,)?), $body:block) => {
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, clippy::missing_safety_doc, clippy::too_many_arguments, unused_unsafe)]
        pub unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
            // SAFETY: as above.
            $crate::edge::call_early($per_thread, move || unsafe { $body })
        }
    };
}

pub(crate) use {export, exports};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_and_the_variant_mark_is_restored() {
        assert_eq!(call_early(true, || panic!("expected by the test")), Error::UNKNOWN.0);
        assert!(!per_thread_default());
        assert_eq!(call_early(true, || if per_thread_default() { Ok(()) } else { Err(Error::UNKNOWN) }), 0);
    }

    #[test]
    fn list_queries_count_truncate_and_pad() {
        let mut count = 0usize;
        let mut list = [9u8; 4];
        // SAFETY: both pointers are to live locals of the stated lengths.
        unsafe {
            put_list(std::ptr::null_mut(), &mut count, &[1u8, 2], 0).unwrap();
            assert_eq!(count, 2);
            count = 4;
            put_list(list.as_mut_ptr(), &mut count, &[1, 2], 0).unwrap();
        }
        assert_eq!((list, count), ([1, 2, 0, 0], 2));
    }
}
