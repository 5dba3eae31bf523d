//! Functions and kernels: where they come from, how their parameters lie, what a launch of them may ask for.
//!
//! A function becomes known when the program looks it up, a kernel at its first use: its origin is looked up, its parameter layout
//! copied, and the executor told about it, which then loads it. From then on a launch finds all that with one look-up.
//!
//! A `CUkernel` may stand wherever a `CUfunction` does; [`ORIGINS`] tells which handles are kernels.

mod known;
mod layout;

use super::launch::legacy;
use super::module::{adopt, is_known};
use crate::edge::Out;
use crate::handles::Handles;
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;
use crate::session::session;
use lightos_protocol::request::{ModuleRequest, Request};
use rustc_hash::FxHashMap;
use std::ffi::{CStr, c_char};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

pub use known::Function;
pub use layout::{Layout, Param};

#[cfg(test)]
pub use layout::tests;

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
/// Functions that were used.
static FUNCTIONS: Handles<Function> = Handles::new();
/// Held while a function is made known, so that no two threads do it.
static LEARNING: Mutex<()> = Mutex::new(());

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
    let _learning = LEARNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(function) = FUNCTIONS.get(handle) {
        return Ok(function);
    }
    let is_kernel = origin.kernel == Some(handle);
    let name = name(handle, origin.kernel)?;
    let function = FUNCTIONS.spare();
    let fill = || {
        function.fill(origin.image, handle, is_kernel)?;
        let Image { handle: module, is_library: library } = origin.image;
        let request = ModuleRequest::Function { function: handle, module, name, library };
        session.cast(&Request::Module(request)).map_err(Unusable::from)
    };
    match fill() {
        Ok(()) => FUNCTIONS.insert(handle, function),
        Err(unusable) => {
            FUNCTIONS.recycle(function);
            return Err(unusable);
        }
    }
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

/// An image goes, with everything in it.
pub fn forget(image: Image) {
    origins().retain(|_, origin| origin.image != image);
    forget_where(|function| function.image() == image);
}

fn forget_where(is_gone: impl Fn(&Function) -> bool) {
    for (handle, function) in FUNCTIONS.remove_where(is_gone) {
        legacy::forget(handle);
        FUNCTIONS.recycle(function);
    }
}

/// Libraries belong to no context, but the `CUfunction`s of their kernels do. With `kernels` their kernels are announced again at their next use:
/// the executor has loaded the library anew.
pub fn forget_of_libraries(kernels: bool) {
    origins().retain(|handle, origin| !origin.image.is_library || origin.kernel == Some(*handle));
    forget_where(|function| function.image().is_library && (kernels || !function.is_kernel()));
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
