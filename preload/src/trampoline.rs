//! The only assembly: entry points that must leave the caller's return address where it is.
//!
//! glibc decides by the return address who calls `dlsym` (for `RTLD_NEXT`, `RTLD_DEFAULT` and the search path of the caller's
//! library). A trampoline therefore asks the Rust filter, and then either returns its answer or jumps to the real function
//! as if the program had called that one. See docs/adr/0001-naked-trampolines.md.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::{entry, notice, notice_and_jump, refuse_or_jump, stub};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{entry, notice, notice_and_jump, refuse_or_jump, stub};

/// What a trampoline shall do. Two registers by both ABIs (rax:rdx, x0:x1).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Returned to the caller where `target` is zero.
    pub answer: usize,
    /// The function to jump to with the caller's arguments, or zero.
    pub target: usize,
}
