//! Functions and kernels: where they come from, how their parameters lie, what a launch of them may ask for.
//!
//! A function becomes known when the program looks it up, a kernel at its first use: its origin is looked up, its parameter layout
//! copied, and the executor told about it, which then loads it. From then on a launch finds all that with one look-up.
//!
//! A `CUkernel` may stand wherever a `CUfunction` does; [`ORIGINS`] tells which handles are kernels.

use super::launch::legacy;
use super::module::{adopt, is_known};
use crate::edge::Out;
use crate::handles::Handles;
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;
use crate::session::session;
use lightos_protocol::record::MAX_PARAM_BYTES;
use lightos_protocol::request::{ModuleRequest, Request};
use rustc_hash::FxHashMap;
use std::ffi::{CStr, c_char};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// `CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK`.
const MAX_THREADS_PER_BLOCK: u32 = 0;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MAX_DYNAMIC_SHARED_BYTES: u32 = 8;
/// The device that the session governs, by the ordinal of this process.
const DEVICE: i32 = 0;

/// Kinds of launches remembered per function; programs use few.
const ACCEPTED_KINDS: usize = 8;

/// A code image in the local driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// The `CUmodule` or `CUlibrary`.
    pub handle: u64,
    /// Which of the two.
    pub is_library: bool,
}

#[derive(Clone, Copy, Debug)]
struct Origin {
    image: Image,
    /// The `CUkernel` that the handle is, or whose function it is.
    kernel: Option<u64>,
}

/// What the program's look-ups told about handles. Everything else, the handles say themselves.
static ORIGINS: LazyLock<Mutex<FxHashMap<u64, Origin>>> = LazyLock::new(Default::default);
/// Functions that were used. Entries of unloaded images are not freed: another thread may be reading them.
static FUNCTIONS: Handles<Function> = Handles::new();

/// A parameter's place in the buffer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    pub offset: u32,
    pub bytes: u32,
}

/// A function that the executor knows.
#[derive(Debug)]
pub struct Function {
    image: Image,
    handle: u64,
    is_kernel: bool,
    /// By index.
    pub params: Box<[Param]>,
    /// Bytes of the whole buffer.
    pub param_bytes: u32,
    /// Most threads that one block of it may have.
    pub max_threads: u32,
    max_shared_bytes: AtomicU32,
    /// Kinds of launches that the executor's driver has accepted; 0 where none. A torn set only means another question.
    accepted: [AtomicU64; ACCEPTED_KINDS],
    next_accepted: AtomicUsize,
}

/// Why a function cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The local driver does not know the handle either.
    Unknown,
    /// It is valid, but the executor has no image that it comes from.
    Refused(Reason),
    Failed(CuResult),
}

impl From<CuResult> for Unusable {
    fn from(error: CuResult) -> Self {
        Self::Failed(error)
    }
}

impl From<Unusable> for Outcome {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Unknown => Self::PassThrough(Reason::InvalidArgument),
            Unusable::Refused(reason) => Self::Refuse(reason),
            Unusable::Failed(error) => Self::Fail(error),
        }
    }
}

/// The function of a handle.
#[inline]
pub fn find(handle: u64) -> Result<&'static Function, Unusable> {
    match FUNCTIONS.get(handle) {
        Some(function) => Ok(function),
        None => learn(handle),
    }
}

#[cold]
fn learn(handle: u64) -> Result<&'static Function, Unusable> {
    let session = session().ok_or(CuResult::DEINITIALIZED)?;
    if handle == 0 {
        return Err(Unusable::Unknown);
    }
    let known = origins().get(&handle).copied();
    let origin = match known {
        Some(origin) => origin,
        None => Origin { image: module_of(handle)?, kernel: None },
    };
    if !is_known(origin.image) && (origin.image.is_library || !adopt(origin.image.handle)) {
        return Err(Unusable::Refused(Reason::UnknownOrigin));
    }
    let is_kernel = origin.kernel == Some(handle);
    let name = name(handle, origin.kernel)?;
    let (params, param_bytes) = layout(handle, is_kernel)?;
    let Image { handle: module, is_library: library } = origin.image;
    session.cast(&Request::Module(ModuleRequest::Function { function: handle, module, name, library }))?;
    let function = Function {
        image: origin.image,
        handle,
        is_kernel,
        params,
        param_bytes,
        max_threads: attribute(handle, is_kernel, MAX_THREADS_PER_BLOCK)?,
        max_shared_bytes: AtomicU32::new(attribute(handle, is_kernel, MAX_DYNAMIC_SHARED_BYTES)?),
        accepted: Default::default(),
        next_accepted: AtomicUsize::new(0),
    };
    let function: &'static Function = Box::leak(Box::new(function));
    FUNCTIONS.insert(handle, function);
    Ok(function)
}

fn origins() -> MutexGuard<'static, FxHashMap<u64, Origin>> {
    ORIGINS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn module_of(function: u64) -> Result<Image, Unusable> {
    let mut handle = 0;
    // SAFETY: a valid out-parameter; the handle is the program's, and its own call would use it in the same way.
    match unsafe { real::cuFuncGetModule(&mut handle, function) } {
        CuResult::SUCCESS => Ok(Image { handle, is_library: false }),
        // Too old a driver to say.
        CuResult::NOT_SUPPORTED => Err(Unusable::Refused(Reason::UnknownOrigin)),
        _ => Err(Unusable::Unknown),
    }
}

fn name(handle: u64, kernel: Option<u64>) -> Result<String, Unusable> {
    let mut name: *const c_char = std::ptr::null();
    // SAFETY: a valid out-parameter and a handle that the local driver knows.
    let result = unsafe {
        match kernel {
            Some(kernel) => real::cuKernelGetName(&mut name, kernel),
            None => real::cuFuncGetName(&mut name, handle),
        }
    };
    if result != CuResult::SUCCESS || name.is_null() {
        return Err(Unusable::Refused(Reason::UnknownOrigin));
    }
    // SAFETY: the driver keeps the string as long as the function.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_str().map(str::to_owned).map_err(|_| Unusable::Refused(Reason::UnknownOrigin))
}

/// Asks the local driver for each parameter until it says that there is none with the index.
fn layout(handle: u64, is_kernel: bool) -> Result<(Box<[Param]>, u32), Unusable> {
    let mut params = Vec::new();
    let mut total = 0;
    loop {
        let (mut offset, mut bytes) = (0, 0);
        // SAFETY: valid out-parameters and a handle that the local driver knows.
        let result = unsafe {
            if is_kernel {
                real::cuKernelGetParamInfo(handle, params.len(), &mut offset, &mut bytes)
            } else {
                real::cuFuncGetParamInfo(handle, params.len(), &mut offset, &mut bytes)
            }
        };
        match result {
            CuResult::SUCCESS => {}
            CuResult::INVALID_VALUE => return Ok((params.into(), total as u32)),
            _ => return Err(Unusable::Refused(Reason::ParameterLayout)),
        }
        total = total.max(offset.saturating_add(bytes));
        if total > MAX_PARAM_BYTES {
            return Err(Unusable::Refused(Reason::ParameterLayout));
        }
        params.push(Param { offset: offset as u32, bytes: bytes as u32 });
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

impl Function {
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
        let Ok(limit) = attribute(self.handle, self.is_kernel, MAX_DYNAMIC_SHARED_BYTES) else {
            return false;
        };
        self.max_shared_bytes.store(limit, Relaxed);
        bytes <= limit
    }
}

/// An image goes, with everything in it.
pub fn forget(image: Image) {
    origins().retain(|_, origin| origin.image != image);
    forget_where(|function| function.image == image);
}

fn forget_where(is_gone: impl Fn(&Function) -> bool) {
    for (handle, _) in FUNCTIONS.remove_where(is_gone) {
        legacy::forget(handle);
    }
}

/// Libraries belong to no context, but the `CUfunction`s of their kernels do. With `kernels` their kernels are announced again at their next use:
/// the executor has loaded the library anew.
pub fn forget_of_libraries(kernels: bool) {
    origins().retain(|handle, origin| !origin.image.is_library || origin.kernel == Some(*handle));
    forget_where(|function| function.image.is_library && (kernels || !function.is_kernel));
}

/// Runs a look-up locally and remembers where the handle that it returns comes from.
fn look_up(
    out: Out<u64>,
    local: impl FnOnce(*mut u64) -> CuResult,
    origin: impl FnOnce(u64) -> Option<Origin>,
) -> Result<u64, CuResult> {
    let out = out.required()?;
    let mut handle = 0;
    local(&mut handle).ok()?;
    if let Some(origin) = origin(handle) {
        origins().insert(handle, origin);
    }
    out.put(handle);
    Ok(handle)
}

/// Has the executor load a function that was looked up, as the driver does natively: later the device may be busy with a kernel that waits
/// for the program, and loading waits for the device. What cannot be loaded says so at its use.
fn load(function: u64) {
    let _ = find(function);
}

/// cuModuleGetFunction.
pub fn found(out: Out<u64>, image: Image, local: impl FnOnce(*mut u64) -> CuResult) -> Outcome {
    look_up(out, local, |_| Some(Origin { image, kernel: None })).map(load).into()
}

/// cuLibraryGetKernel, which natively loads nothing.
pub fn found_kernel(out: Out<u64>, image: Image, local: impl FnOnce(*mut u64) -> CuResult) -> Outcome {
    look_up(out, local, |kernel| Some(Origin { image, kernel: Some(kernel) })).map(drop).into()
}

/// cuKernelGetFunction.
pub fn function_of(out: Out<u64>, kernel: u64, local: impl FnOnce(*mut u64) -> CuResult) -> Outcome {
    look_up(out, local, |_| origins().get(&kernel).copied()).map(load).into()
}

/// cuLibraryEnumerateKernels, which fills `kernels` with as many as there are, at most `count`.
pub fn enumerated(kernels: Out<u64>, count: u32, image: Image, local: impl FnOnce() -> CuResult) -> Outcome {
    let kernels = kernels.as_ptr();
    if kernels.is_null() {
        return Outcome::PassThrough(Reason::InvalidArgument);
    }
    // What the driver does not fill stays null.
    // SAFETY: the program's list has room for `count` handles.
    unsafe { kernels.write_bytes(0, count as usize) };
    let result = local();
    if result == CuResult::SUCCESS {
        let mut origins = origins();
        for index in 0..count as usize {
            // SAFETY: as above.
            let kernel = unsafe { kernels.add(index).read_unaligned() };
            if kernel != 0 {
                origins.insert(kernel, Origin { image, kernel: Some(kernel) });
            }
        }
    }
    result.into()
}

/// cuFuncSetAttribute and cuKernelSetAttribute: the local driver first, which also judges the arguments.
pub fn set_attribute(handle: u64, attribute: u32, value: i32, local: impl FnOnce() -> CuResult) -> Outcome {
    forward(handle, local, |function| ModuleRequest::FunctionAttribute { function, attribute, value })
}

/// cuFuncSetCacheConfig and cuKernelSetCacheConfig.
pub fn set_cache_config(handle: u64, config: u32, local: impl FnOnce() -> CuResult) -> Outcome {
    forward(handle, local, |function| ModuleRequest::FunctionCacheConfig { function, config })
}

fn forward(
    handle: u64,
    local: impl FnOnce() -> CuResult,
    request: impl FnOnce(u64) -> ModuleRequest,
) -> Outcome {
    if let Err(unusable) = find(handle) {
        return unusable.into();
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        local().ok()?;
        session.cast(&Request::Module(request(handle)))
    };
    run().into()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A function with these parameters (offset and bytes).
    pub fn function(params: &[(u32, u32)]) -> Function {
        Function {
            image: Image { handle: 1, is_library: false },
            handle: 2,
            is_kernel: false,
            params: params.iter().map(|&(offset, bytes)| Param { offset, bytes }).collect(),
            param_bytes: params.iter().map(|(offset, bytes)| offset + bytes).max().unwrap_or(0),
            max_threads: 1024,
            max_shared_bytes: AtomicU32::new(48 << 10),
            accepted: Default::default(),
            next_accepted: AtomicUsize::new(0),
        }
    }

    #[test]
    fn accepted_kinds_are_remembered_until_newer_ones_take_their_place() {
        let function = function(&[]);
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
        assert!(function(&[]).allows_shared(48 << 10));
    }
}
