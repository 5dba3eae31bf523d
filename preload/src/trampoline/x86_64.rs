//! Trampolines for the System V ABI of x86-64.
//!
//! The return address tells the filter who calls. At entry the stack is 8 bytes off a 16-byte boundary; every path here keeps calls aligned and leaves the return address
//! where the caller put it.

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
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "mov rdx, [rsp + 24]",
        "call {filter}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rdx, rdx",
        "jz 2f",
        "jmp rdx",
        "2:",
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
        "push rdi",
        "push rsi",
        "push rdx",
        "mov rcx, [rsp + 24]",
        "call {filter}",
        "mov r11, rdx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test r11, r11",
        "jz 2f",
        "jmp r11",
        "2:",
        "ret",
        filter = sym resolver::dlvsym_verdict,
    )
}

/// Common part of all refused functions: r11d holds the row. Asks whether the call is refused or runs natively, whatever
/// its signature: integer and floating-point argument registers are kept, stack arguments are not touched.
///
/// # Safety
/// Entered by a jump from an [`entry`] or a [`stub`] only.
#[unsafe(naked)]
pub unsafe extern "C" fn refuse_or_jump() {
    naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "sub rsp, 72",
        "movsd [rsp], xmm0",
        "movsd [rsp + 8], xmm1",
        "movsd [rsp + 16], xmm2",
        "movsd [rsp + 24], xmm3",
        "movsd [rsp + 32], xmm4",
        "movsd [rsp + 40], xmm5",
        "movsd [rsp + 48], xmm6",
        "movsd [rsp + 56], xmm7",
        "mov edi, r11d",
        "call {decide}",
        "movsd xmm0, [rsp]",
        "movsd xmm1, [rsp + 8]",
        "movsd xmm2, [rsp + 16]",
        "movsd xmm3, [rsp + 24]",
        "movsd xmm4, [rsp + 32]",
        "movsd xmm5, [rsp + 40]",
        "movsd xmm6, [rsp + 48]",
        "movsd xmm7, [rsp + 56]",
        "add rsp, 72",
        "mov r11, rdx",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test r11, r11",
        "jz 2f",
        "jmp r11",
        "2:",
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
    naked_asm!("mov r11d, {row}", "jmp {common}", row = const ROW, common = sym refuse_or_jump)
}

/// Common part of all noticed functions, which have at most three arguments: r11d holds the row. Tells of the call, then runs it.
///
/// # Safety
/// Entered by a jump from an [`entry`] or a [`notice`] stub only.
#[unsafe(naked)]
pub unsafe extern "C" fn notice_and_jump() {
    naked_asm!(
        "push rdi",
        "push rsi",
        "push rdx",
        "mov rcx, [rsp + 24]",
        "mov rdx, rsi",
        "mov rsi, rdi",
        "mov edi, r11d",
        "call {tell}",
        "mov r11, rdx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test r11, r11",
        "jz 2f",
        "jmp r11",
        "2:",
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
    naked_asm!("mov r11d, {row}", "jmp {common}", row = const ROW, common = sym notice_and_jump)
}

/// Defines an exported entry point: its row in the table of its kind, then the kind's common part, [`refuse_or_jump`] or [`notice_and_jump`].
macro_rules! entry {
    ($name:ident, $row:expr, $common:ident) => {
        #[unsafe(naked)]
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name() {
            ::std::arch::naked_asm!(
                "mov r11d, {row}",
                "jmp {common}",
                row = const $row,
                common = sym $crate::trampoline::$common,
            )
        }
    };
}
pub(crate) use entry;
