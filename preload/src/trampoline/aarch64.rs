//! Trampolines for the AAPCS64 ABI.
//!
//! The link register holds the caller's return address: it is saved around the call of the filter and restored before the
//! jump. x16 (ip0) is free for the jump target, as for any veneer.

use crate::{
    hooks::{cupti::notice_verdict, refuse::refusal_verdict},
    resolver,
};
use std::{
    arch::naked_asm,
    ffi::{c_char, c_void},
};

/// `dlsym`, interposed.
///
/// # Safety
/// As `dlsym(3)`.
#[unsafe(naked)]
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    naked_asm!(
        "stp x29, x30, [sp, #-32]!",
        "mov x29, sp",
        "stp x0, x1, [sp, #16]",
        "mov x2, x30",
        "bl {filter}",
        "mov x16, x1",
        "mov x9, x0",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "cbz x16, 2f",
        "br x16",
        "2:",
        "mov x0, x9",
        "ret",
        filter = sym resolver::dlsym_verdict,
    )
}

/// `dlvsym`, interposed.
///
/// # Safety
/// As `dlvsym(3)`.
#[unsafe(naked)]
#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
pub unsafe extern "C" fn dlvsym(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
) -> *mut c_void {
    naked_asm!(
        "stp x29, x30, [sp, #-48]!",
        "mov x29, sp",
        "stp x0, x1, [sp, #16]",
        "str x2, [sp, #32]",
        "mov x3, x30",
        "bl {filter}",
        "mov x16, x1",
        "mov x9, x0",
        "ldp x0, x1, [sp, #16]",
        "ldr x2, [sp, #32]",
        "ldp x29, x30, [sp], #48",
        "cbz x16, 2f",
        "br x16",
        "2:",
        "mov x0, x9",
        "ret",
        filter = sym resolver::dlvsym_verdict,
    )
}

/// Common part of all refused functions: w17 holds the row. Asks whether the call is refused or runs natively, whatever
/// its signature: integer and floating-point argument registers are kept, stack arguments are not touched.
///
/// # Safety
/// Entered by a jump from an [`entry`] or a [`stub`] only.
#[unsafe(naked)]
pub unsafe extern "C" fn refuse_or_jump() {
    naked_asm!(
        "stp x29, x30, [sp, #-144]!",
        "mov x29, sp",
        "stp x0, x1, [sp, #16]",
        "stp x2, x3, [sp, #32]",
        "stp x4, x5, [sp, #48]",
        "stp x6, x7, [sp, #64]",
        "stp d0, d1, [sp, #80]",
        "stp d2, d3, [sp, #96]",
        "stp d4, d5, [sp, #112]",
        "stp d6, d7, [sp, #128]",
        "mov w0, w17",
        "bl {decide}",
        "mov x16, x1",
        "mov x9, x0",
        "ldp x0, x1, [sp, #16]",
        "ldp x2, x3, [sp, #32]",
        "ldp x4, x5, [sp, #48]",
        "ldp x6, x7, [sp, #64]",
        "ldp d0, d1, [sp, #80]",
        "ldp d2, d3, [sp, #96]",
        "ldp d4, d5, [sp, #112]",
        "ldp d6, d7, [sp, #128]",
        "ldp x29, x30, [sp], #144",
        "cbz x16, 2f",
        "br x16",
        "2:",
        "mov x0, x9",
        "ret",
        decide = sym refusal_verdict,
    )
}

/// Entry point of an unknown function, by its row.
///
/// # Safety
/// As the function that it stands for.
#[unsafe(naked)]
pub unsafe extern "C" fn stub<const ROW: u32>() {
    naked_asm!("mov w17, {row}", "b {common}", row = const ROW, common = sym refuse_or_jump)
}

/// Common part of all noticed functions, which have at most three arguments: w17 holds the row. Tells of the call, then runs it.
///
/// # Safety
/// Entered by a jump from an [`entry`] or a [`notice`] stub only.
#[unsafe(naked)]
pub unsafe extern "C" fn notice_and_jump() {
    naked_asm!(
        "stp x29, x30, [sp, #-48]!",
        "mov x29, sp",
        "stp x0, x1, [sp, #16]",
        "str x2, [sp, #32]",
        "mov x3, x30",
        "mov x2, x1",
        "mov x1, x0",
        "mov w0, w17",
        "bl {tell}",
        "mov x16, x1",
        "mov x9, x0",
        "ldp x0, x1, [sp, #16]",
        "ldr x2, [sp, #32]",
        "ldp x29, x30, [sp], #48",
        "cbz x16, 2f",
        "br x16",
        "2:",
        "mov x0, x9",
        "ret",
        tell = sym notice_verdict,
    )
}

/// Stub of a noticed function that the program has looked up, by its row.
///
/// # Safety
/// As the function that it stands for.
#[unsafe(naked)]
pub unsafe extern "C" fn notice<const ROW: u32>() {
    naked_asm!("mov w17, {row}", "b {common}", row = const ROW, common = sym notice_and_jump)
}

/// Defines an exported entry point: its row in the table of its kind, then the kind's common part, [`refuse_or_jump`] or [`notice_and_jump`].
macro_rules! entry {
    ($name:ident, $row:expr, $common:ident) => {
        #[unsafe(naked)]
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name() {
            ::std::arch::naked_asm!(
                "mov w17, {row}",
                "b {common}",
                row = const $row,
                common = sym $crate::trampoline::$common,
            )
        }
    };
}
pub(crate) use entry;
