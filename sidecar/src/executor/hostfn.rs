//! Host functions: the driver reaches one in stream order, the program runs it.
//!
//! The driver calls [`trampoline`] on its own thread. It posts the function's number to the callback queue and returns when the
//! program has run it; a program that is gone ends the whole process (see [`monitor`](super::monitor)), so nothing waits for ever.

use std::ffi::c_void;
use std::sync::Arc;

use lightos_protocol::pages::SessionPages;
use lightos_protocol::record::HostFunc;

use super::Executor;
use super::driver::{CuError, check, sys};

/// Host functions that outlive their owner. Those of streams free themselves.
#[derive(Debug, Default)]
pub(crate) struct HostFunctions {
    /// Of executable graphs that are gone: a launch under way may still reach them, and the driver does not say when it has ended.
    retired: Vec<GraphCall>,
}

impl HostFunctions {
    pub(super) fn retire(&mut self, calls: Vec<GraphCall>) {
        self.retired.extend(calls);
    }
}

/// What the driver hands to [`trampoline`].
#[derive(Debug)]
struct Call {
    pages: Arc<SessionPages>,
    callback: u64,
    /// Called once: the call frees itself.
    once: bool,
}

/// A call that the driver may make many times, for as long as the value lives: the data of a graph's host node.
#[derive(Debug)]
pub(super) struct GraphCall(Box<Call>);

impl GraphCall {
    pub(super) fn new(pages: Arc<SessionPages>, callback: u64) -> Self {
        Self(Box::new(Call { pages, callback, once: false }))
    }

    /// The node that makes the call.
    pub(super) fn node(&self) -> sys::CUDA_HOST_NODE_PARAMS {
        let data = std::ptr::from_ref(&*self.0).cast_mut();
        sys::CUDA_HOST_NODE_PARAMS { fn_: Some(trampoline), userData: data.cast() }
    }
}

/// Runs on the driver's callback thread.
unsafe extern "C" fn trampoline(data: *mut c_void) {
    let call = data.cast::<Call>();
    // SAFETY: `data` is a `Call` that its owner keeps alive: the graph that has it as a node, or this function itself.
    let Call { pages, callback, once } = unsafe { &*call };
    // The function is not reached after an error of the context, so the status is always success. Giving up is the monitor's affair.
    pages.callbacks().run(*callback, 0, || false);
    if *once {
        // SAFETY: made by `Box::into_raw` for exactly this one call.
        drop(unsafe { Box::from_raw(call) });
    }
}

impl Executor {
    /// Puts a host function into a stream.
    pub(crate) fn host_func(&mut self, function: &HostFunc) -> Result<(), CuError> {
        let stream = self.streams.raw(function.stream)?;
        let call = Call { pages: self.pages.clone(), callback: function.callback, once: true };
        let data = Box::into_raw(Box::new(call));
        // SAFETY: the stream is live; `data` stays valid until the trampoline frees it.
        let result = check(unsafe { sys::cuLaunchHostFunc(stream, Some(trampoline), data.cast()) });
        if result.is_err() {
            // SAFETY: the driver refused the call and will not make it, so the box is still ours alone.
            drop(unsafe { Box::from_raw(data) });
        }
        result
    }
}
