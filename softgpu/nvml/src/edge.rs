//! The FFI edge: return codes, checked handles, and the `entries!` table of exported functions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

use lightos_softgpu_engine::profile::Machine;

/// `nvmlReturn_t` other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub enum Error {
    #[error("Uninitialized")]
    Uninitialized = 1,
    #[error("Invalid Argument")]
    InvalidArgument = 2,
    #[error("Not Supported")]
    NotSupported = 3,
    #[error("Not Found")]
    NotFound = 6,
    #[error("Insufficient Size")]
    InsufficientSize = 7,
    #[error("Argument version mismatch")]
    VersionMismatch = 25,
    #[error("Unknown Error")]
    Unknown = 999,
}

pub type Result<T = ()> = std::result::Result<T, Error>;

/// References of `nvmlInit`.
static INITIALISED: AtomicU32 = AtomicU32::new(0);

pub fn init() -> Result {
    lightos_softgpu_engine::state::State::get().map_err(|_| Error::Unknown)?;
    INITIALISED.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

pub fn shutdown() -> Result {
    let less = |count: u32| count.checked_sub(1);
    INITIALISED
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
        .map(drop)
        .map_err(|_| Error::Uninitialized)
}

/// Runs the body of an entry point that needs `nvmlInit`.
pub fn call(body: impl FnOnce() -> Result) -> u32 {
    call_early(|| if INITIALISED.load(Ordering::Acquire) == 0 { Err(Error::Uninitialized) } else { body() })
}

/// Runs the body of an entry point that works at any time; a panic is an unknown error.
pub fn call_early(body: impl FnOnce() -> Result) -> u32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => error as u32,
        Err(_) => Error::Unknown as u32,
    }
}

/// Device handles are the ordinal above this value, so that none is null.
const HANDLE_BASE: usize = 0x5650_0000;

pub fn handle_of(ordinal: usize) -> usize {
    HANDLE_BASE + ordinal
}

/// The ordinal that a handle names.
pub fn ordinal_of(handle: usize) -> Result<usize> {
    let ordinal = handle.wrapping_sub(HANDLE_BASE);
    if ordinal < Machine::get().device_count { Ok(ordinal) } else { Err(Error::InvalidArgument) }
}

/// Writes a result through a caller's pointer.
///
/// # Safety
/// `pointer` is null or valid for writing a `T`.
pub unsafe fn put<T>(pointer: *mut T, value: T) -> Result {
    if pointer.is_null() {
        return Err(Error::InvalidArgument);
    }
    // SAFETY: not null, so valid by this function's contract.
    unsafe { pointer.write_unaligned(value) };
    Ok(())
}

/// Writes text and a NUL; `INSUFFICIENT_SIZE` where it does not fit.
///
/// # Safety
/// `to` is null or valid for `room` bytes.
pub unsafe fn put_text(to: *mut std::ffi::c_char, room: u32, text: &str) -> Result {
    if to.is_null() {
        return Err(Error::InvalidArgument);
    }
    if text.len() >= room as usize {
        return Err(Error::InsufficientSize);
    }
    // SAFETY: text and terminator fit the caller's buffer.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), to.cast(), text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

/// A caller's C string.
///
/// # Safety
/// `text` is null or a NUL-terminated string that outlives `'a`.
pub unsafe fn text<'a>(text: *const std::ffi::c_char) -> Result<&'a str> {
    if text.is_null() {
        return Err(Error::InvalidArgument);
    }
    // SAFETY: not null, so NUL-terminated by this function's contract.
    unsafe { std::ffi::CStr::from_ptr(text) }.to_str().map_err(|_| Error::InvalidArgument)
}

/// Declares exported functions; bodies are unsafe code that relies on NVML's contract for pointer arguments.
macro_rules! entries {
    ($($kind:ident $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, clippy::missing_safety_doc, unused_unsafe)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> u32 {
                // SAFETY: pointer arguments are as the NVML documentation asks of the caller; null is checked where it is
                // used.
                $crate::edge::$kind(move || unsafe { $body })
            }
        )*
    };
}

pub(crate) use entries;
