//! What the shim knows about one function. Launches read it without a lock, and it is another function's once its image is gone: hence the
//! atomic fields, none of which a launch has to see together with another.

use super::{Image, Layout, Unusable};
use crate::real;
use crate::result::CuResult;
use std::num::NonZeroU64;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`.
const MAX_THREADS_PER_BLOCK: u32 = 0;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MAX_DYNAMIC_SHARED_BYTES: u32 = 8;
/// The device that the session governs, by the ordinal of this process.
const DEVICE: i32 = 0;

/// Kinds of launches remembered per function; programs use few.
const ACCEPTED_KINDS: usize = 8;

/// A function that the executor knows.
#[derive(Debug, Default)]
pub struct Function {
    image: AtomicU64,
    is_library: AtomicBool,
    handle: AtomicU64,
    is_kernel: AtomicBool,
    /// Null only before it is filled for the first time.
    layout: AtomicPtr<Layout>,
    max_threads: AtomicU32,
    max_shared_bytes: AtomicU32,
    /// Kinds of launches that the executor's driver has accepted; 0 where none. A torn set only means another question.
    accepted: [AtomicU64; ACCEPTED_KINDS],
    next_accepted: AtomicUsize,
}

impl Function {
    /// Asks the local driver what it says of a function. Nobody launches it yet.
    ///
    /// # Errors
    /// What the driver cannot tell makes the function unusable.
    pub fn fill(&self, image: Image, handle: u64, is_kernel: bool) -> Result<(), Unusable> {
        let layout = Layout::ask(handle, is_kernel)?;
        let threads = attribute(handle, is_kernel, MAX_THREADS_PER_BLOCK)?;
        let shared_bytes = attribute(handle, is_kernel, MAX_DYNAMIC_SHARED_BYTES)?;
        self.image.store(image.handle, Relaxed);
        self.is_library.store(image.is_library, Relaxed);
        self.handle.store(handle, Relaxed);
        self.is_kernel.store(is_kernel, Relaxed);
        self.set_limits(layout, threads, shared_bytes);
        Ok(())
    }

    fn set_limits(&self, layout: &'static Layout, threads: u32, shared_bytes: u32) {
        self.layout.store(std::ptr::from_ref(layout).cast_mut(), Release);
        self.max_threads.store(threads, Relaxed);
        self.max_shared_bytes.store(shared_bytes, Relaxed);
        self.accepted.iter().for_each(|kind| kind.store(0, Relaxed));
    }

    /// Where it comes from.
    pub fn image(&self) -> Image {
        Image { handle: self.image.load(Relaxed), is_library: self.is_library.load(Relaxed) }
    }

    /// Whether its handle is a `CUkernel`.
    pub fn is_kernel(&self) -> bool {
        self.is_kernel.load(Relaxed)
    }

    /// How its parameters lie.
    #[inline]
    pub fn layout(&self) -> &'static Layout {
        // SAFETY: null, or a `&'static Layout`.
        unsafe { self.layout.load(Acquire).as_ref() }.unwrap_or(&Layout::NONE)
    }

    /// Most threads that one block of it may have.
    #[inline]
    pub fn max_threads(&self) -> u32 {
        self.max_threads.load(Relaxed)
    }

    /// Whether a launch of this kind was accepted before.
    #[inline]
    pub fn was_accepted(&self, kind: NonZeroU64) -> bool {
        self.accepted.iter().any(|accepted| accepted.load(Relaxed) == kind.get())
    }

    /// Remembers an accepted kind, in place of the oldest.
    #[cold]
    pub fn accept(&self, kind: NonZeroU64) {
        if !self.was_accepted(kind) {
            let next = self.next_accepted.fetch_add(1, Relaxed) % ACCEPTED_KINDS;
            self.accepted[next].store(kind.get(), Relaxed);
        }
    }

    /// Whether a launch may have this much dynamic shared memory. The limit may have been raised through another handle of the
    /// same function, so the local driver is asked before a launch is called too large.
    #[inline]
    pub fn allows_shared(&self, bytes: u32) -> bool {
        bytes <= self.max_shared_bytes.load(Relaxed) || self.allows_shared_now(bytes)
    }

    #[cold]
    fn allows_shared_now(&self, bytes: u32) -> bool {
        let Ok(limit) = attribute(self.handle.load(Relaxed), self.is_kernel(), MAX_DYNAMIC_SHARED_BYTES)
        else {
            return false;
        };
        self.max_shared_bytes.store(limit, Relaxed);
        bytes <= limit
    }
}

fn attribute(handle: u64, is_kernel: bool, attribute: u32) -> Result<u32, CuResult> {
    let mut value = 0;
    // SAFETY: a valid out-parameter and a handle that the local driver knows.
    unsafe {
        if is_kernel {
            real::cuKernelGetAttribute(&mut value, attribute, handle, DEVICE).ok()?;
        } else {
            real::cuFuncGetAttribute(&mut value, attribute, handle).ok()?;
        }
    }
    Ok(value.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function() -> Function {
        let function = Function::default();
        function.set_limits(Layout::of(&[]), 1024, 48 << 10);
        function
    }

    #[test]
    fn accepted_kinds_are_remembered_until_newer_ones_take_their_place() {
        let function = function();
        let kind = |value| NonZeroU64::new(value).unwrap();
        assert!(!function.was_accepted(kind(1)));
        for value in 1..=ACCEPTED_KINDS as u64 {
            function.accept(kind(value));
            function.accept(kind(value));
        }
        assert!((1..=ACCEPTED_KINDS as u64).all(|value| function.was_accepted(kind(value))));
        function.accept(kind(100));
        assert!(function.was_accepted(kind(100)) && !function.was_accepted(kind(1)));
    }

    #[test]
    fn shared_memory_within_the_known_limit_needs_no_question() {
        assert!(function().allows_shared(48 << 10));
    }

    #[test]
    fn another_function_starts_without_accepted_kinds() {
        let function = function();
        function.accept(NonZeroU64::MIN);
        function.set_limits(Layout::of(&[]), 64, 0);
        assert!(!function.was_accepted(NonZeroU64::MIN));
        assert_eq!((function.layout().bytes, function.max_threads()), (0, 64));
    }
}
