//! The real driver: which library it is, and typed callers of its functions.
//!
//! The driver is the library through which the program first resolves a hooked `cu*` name. A program that is linked with libcuda
//! resolves nothing by name: for it, the first call opens `libcuda.so.1`, which is loaded already. Functions are looked up
//! under their exact exported names (`cuMemAlloc_v2`, not `cuMemAlloc`), once each, without a lock.

use crate::{resolver, result::CuResult};
use std::{
    ffi::{CStr, c_char, c_void},
    num::NonZeroUsize,
    ptr,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed},
};

pub use crate::hooks::callers::*;

/// Load address of the driver library; zero until it is known.
static BASE: AtomicUsize = AtomicUsize::new(0);
/// A `dlopen` handle of it.
static HANDLE: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// The slot of one real function.
#[derive(Debug)]
pub struct Slot {
    name: &'static CStr,
    /// 0: not looked up yet; [`MISSING`]: the driver has no such function; else its address.
    address: AtomicUsize,
}

const MISSING: usize = 1;

impl Slot {
    pub const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicUsize::new(0) }
    }

    /// The exported name.
    pub fn name(&self) -> &'static CStr {
        self.name
    }

    /// The real function, if the driver has it.
    #[inline]
    pub fn address(&self) -> Option<NonZeroUsize> {
        match self.address.load(Relaxed) {
            0 => self.look_up(),
            MISSING => None,
            address => NonZeroUsize::new(address),
        }
    }

    #[cold]
    fn look_up(&self) -> Option<NonZeroUsize> {
        // Without a driver nothing is remembered: the program may load one later.
        let handle = handle()?;
        let address = resolver::real_symbol(handle, self.name) as usize;
        self.address.store(if address == 0 { MISSING } else { address }, Relaxed);
        NonZeroUsize::new(address)
    }
}

/// Whether `address` belongs to the driver. The first hooked function that the program finds decides which library that is.
pub fn adopts(address: *const c_void) -> bool {
    let Some(library) = resolver::library_of(address) else { return false };
    match BASE.compare_exchange(0, library.base, Relaxed, Relaxed) {
        Ok(_) => true,
        Err(base) => base == library.base,
    }
}

/// Whether `address` belongs to the library that is known as the driver.
pub fn owns(address: *const c_void) -> bool {
    resolver::library_of(address).is_some_and(|library| library.base == BASE.load(Relaxed))
}

/// A handle of the driver library.
fn handle() -> Option<*mut c_void> {
    let known = HANDLE.load(Relaxed);
    if !known.is_null() {
        return Some(known);
    }
    let base = BASE.load(Relaxed);
    let name = resolver::library_of(base as *const c_void).map(|library| library.name);
    let mut handle = match name {
        // SAFETY: only finds a library that is loaded; the name is a C string that the loader keeps.
        Some(name) => unsafe { libc::dlopen(name, libc::RTLD_NOW | libc::RTLD_NOLOAD) },
        None => ptr::null_mut(),
    };
    if handle.is_null() {
        // SAFETY: loads the driver by its official name, as its users do.
        handle = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    }
    if handle.is_null() {
        return None;
    }
    adopts(resolver::real_symbol(handle, c"cuInit"));
    HANDLE.store(handle, Relaxed);
    Some(handle)
}

/// What a call answers that the real driver cannot take: there is none, or it is too old to have the function.
#[cold]
pub fn absent() -> CuResult {
    if handle().is_some() { CuResult::NOT_SUPPORTED } else { CuResult::NO_DEVICE }
}

/// `CStr` of a literal that ends in NUL, for names made by macros.
pub const fn c_name(name: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(name.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("a function name ends in its only NUL"),
    }
}

/// Calls the function in a [`Slot`] with typed arguments.
macro_rules! call {
    ($slot:expr, ($($arg:ident: $type:ty),*)) => {
        match $slot.address() {
            Some(address) => {
                // SAFETY: the driver exports a function of this name, and the argument list is the one that the CUDA driver API
                // documents for it.
                let function = unsafe {
                    ::std::mem::transmute::<usize, unsafe extern "C" fn($($type),*) -> $crate::result::CuResult>(address.get())
                };
                // SAFETY: the caller vouches for the arguments.
                unsafe { function($($arg),*) }
            }
            None => $crate::real::absent(),
        }
    };
}
pub(crate) use call;

/// Declares real functions that ops call and that no hook intercepts. A missing one answers `NOT_SUPPORTED`.
macro_rules! driver {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?);)*) => {$(
        $(#[$meta])*
        ///
        /// # Safety
        /// As the driver function of this name.
        #[allow(non_snake_case, dead_code, clippy::too_many_arguments)]
        pub unsafe fn $name($($arg: $type),*) -> $crate::result::CuResult {
            static SLOT: $crate::real::Slot = $crate::real::Slot::new($crate::real::c_name(concat!(stringify!($name), "\0")));
            $crate::real::call!(SLOT, ($($arg: $type),*))
        }
    )*};
}
pub(crate) use driver;

driver! {
    fn cuCtxGetApiVersion(context: u64, version: *mut u32);
    fn cuCtxGetCurrent(context: *mut u64);
    fn cuCtxGetDevice(device: *mut i32);
    fn cuDevicePrimaryCtxGetState(device: i32, flags: *mut u32, active: *mut i32);
    fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: i32);
    fn cuDriverGetVersion(version: *mut i32);
    fn cuStreamGetAttribute(stream: u64, attribute: u32, value: *mut u8);
    fn cuStreamGetFlags(stream: u64, flags: *mut u32);
    fn cuStreamGetPriority(stream: u64, priority: *mut i32);
    fn cuStreamIsCapturing(stream: u64, status: *mut u32);
    fn cuFuncGetAttribute(value: *mut i32, attribute: u32, function: u64);
    fn cuFuncGetModule(module: *mut u64, function: u64);
    fn cuFuncGetName(name: *mut *const c_char, function: u64);
    fn cuFuncGetParamInfo(function: u64, index: usize, offset: *mut usize, bytes: *mut usize);
    fn cuKernelGetAttribute(value: *mut i32, attribute: u32, kernel: u64, device: i32);
    fn cuKernelGetLibrary(library: *mut u64, kernel: u64);
    fn cuKernelGetName(name: *mut *const c_char, kernel: u64);
    fn cuKernelGetParamInfo(kernel: u64, index: usize, offset: *mut usize, bytes: *mut usize);
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut i32, function: u64, block: i32, shared_bytes: usize);
    fn cuGraphChildGraphNodeGetGraph(node: u64, graph: *mut u64);
    fn cuGraphEventRecordNodeGetEvent(node: u64, event: *mut u64);
    fn cuGraphEventWaitNodeGetEvent(node: u64, event: *mut u64);
    fn cuGraphGetEdges(graph: u64, from: *mut u64, to: *mut u64, count: *mut usize);
    fn cuGraphGetEdges_v2(graph: u64, from: *mut u64, to: *mut u64, data: *mut [u8; 8], count: *mut usize);
    fn cuGraphGetNodes(graph: u64, nodes: *mut u64, count: *mut usize);
    fn cuGraphHostNodeGetParams(node: u64, params: *mut c_void);
    fn cuGraphKernelNodeGetAttribute(node: u64, attribute: u32, value: *mut [u8; 64]);
    fn cuGraphKernelNodeGetParams_v2(node: u64, params: *mut c_void);
    fn cuGraphMemcpyNodeGetParams(node: u64, params: *mut c_void);
    fn cuGraphBatchMemOpNodeGetParams(node: u64, params: *mut c_void);
    fn cuGraphMemsetNodeGetParams(node: u64, params: *mut c_void);
    fn cuGraphNodeGetType(node: u64, kind: *mut u32);
}
