//! Pointers that the program passed, wrapped where they enter so that the logic behind stays safe.
//!
//! The driver's contract is the program's promise: a pointer argument is null or valid for the access that the function documents.
//! A hook turns it into one of these types in its `unsafe` expression; from there on only null needs a check.

use std::ffi::{CStr, c_char};

use crate::result::CuResult;

/// An out-parameter.
#[derive(Debug)]
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is null or valid for writing one `T` until the hooked call returns.
    pub unsafe fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// The pointer, for handing it to the real driver.
    pub fn as_ptr(&self) -> *mut T {
        self.0
    }

    /// The same pointer seen as another type, where an attribute decides what it points to.
    pub fn cast<U>(&self) -> Out<U> {
        Out(self.0.cast())
    }

    /// `INVALID_VALUE` when it is null.
    pub fn required(self) -> Result<Self, CuResult> {
        if self.0.is_null() { Err(CuResult::INVALID_VALUE) } else { Ok(self) }
    }

    /// Stores the result; does nothing when it is null.
    pub fn put(&self, value: T) {
        if !self.0.is_null() {
            // SAFETY: not null, so valid for writing by the promise made to `new`; the program need not have aligned it.
            unsafe { self.0.write_unaligned(value) };
        }
    }
}

/// An array or structure that the function only reads.
#[derive(Debug)]
pub struct In<T>(*const T);

impl<T: Copy> In<T> {
    /// # Safety
    /// `pointer` is null or valid for reading as many `T` as the function documents, any content of which is a valid `T`.
    pub unsafe fn new(pointer: *const T) -> Self {
        Self(pointer)
    }

    /// The pointer, for handing it to the real driver.
    pub fn as_ptr(&self) -> *const T {
        self.0
    }

    /// The first element.
    pub fn get(&self) -> Result<T, CuResult> {
        self.at(0)
    }

    /// One element; `INVALID_VALUE` when the pointer is null. `index` is below the count that the program passed.
    pub fn at(&self, index: usize) -> Result<T, CuResult> {
        if self.0.is_null() {
            return Err(CuResult::INVALID_VALUE);
        }
        // SAFETY: not null, so valid for reading that many elements by the promise made to `new`.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }
}

/// A name.
#[derive(Debug)]
pub struct Name(*const c_char);

impl Name {
    /// # Safety
    /// `pointer` is null or a C string until the hooked call returns.
    pub unsafe fn new(pointer: *const c_char) -> Self {
        Self(pointer)
    }

    /// Its text; `INVALID_VALUE` when it is null.
    pub fn get(&self) -> Result<&CStr, CuResult> {
        if self.0.is_null() {
            return Err(CuResult::INVALID_VALUE);
        }
        // SAFETY: not null, so a C string by the promise made to `new`.
        Ok(unsafe { CStr::from_ptr(self.0) })
    }
}
