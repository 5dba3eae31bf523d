//! Code images: loaded in the local driver first, whose errors and logs the program sees, and handed to the executor, which
//! loads them when something in them is first used.
//!
//! Modules (`CUmodule`) and libraries (`CUlibrary`) differ in their functions only; both are announced here.

use super::function::{self, Image};
use super::{capture, context, global, stream};
use crate::edge::Out;
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;
use crate::session::{self, Session, session};
use crate::{image, mapped};
use lightos_protocol::request::{ModuleRequest, Request};
use rustc_hash::FxHashMap;
use std::borrow::Cow;
use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Images that the executor knows.
static IMAGES: LazyLock<Mutex<FxHashMap<Image, Owner>>> = LazyLock::new(Default::default);

/// What an image ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    /// The `CUcontext`; 0 for libraries, which belong to none.
    context: u64,
    /// The library whose module it is; 0 for all others.
    library: u64,
}

/// JIT options whose value is a number and means the same in another process. Log buffers and the wall time are outputs, which the local
/// load has filled; symbol tables hold addresses of the program.
const NUMBER_OPTIONS: [u32; 20] = [0, 1, 7, 8, 9, 10, 11, 13, 14, 16, 20, 21, 22, 23, 24, 30, 31, 32, 33, 34];

/// JIT options as the program passed them.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    names: *const u32,
    values: *const *mut c_void,
    count: u32,
}

impl Options {
    /// No options.
    pub const NONE: Self = Self { names: std::ptr::null(), values: std::ptr::null(), count: 0 };

    /// # Safety
    /// Both lists are null or have `count` entries, until the hooked call returns.
    pub unsafe fn new(names: *const u32, values: *const *mut c_void, count: u32) -> Self {
        Self { names, values, count }
    }

    fn numbers(self) -> Vec<(u32, u64)> {
        if self.names.is_null() || self.values.is_null() {
            return Vec::new();
        }
        let option = |index| {
            // SAFETY: not null and below the count, so readable by the promise made to `new`.
            unsafe { (self.names.add(index).read_unaligned(), self.values.add(index).read_unaligned()) }
        };
        let options = (0..self.count as usize).map(option);
        options
            .filter(|(name, _)| NUMBER_OPTIONS.contains(name))
            .map(|(name, value)| (name, value.addr() as u64))
            .collect()
    }
}

/// Where the program's image is.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// In memory.
    Memory(*const c_void),
    /// In a file.
    File(*const c_char),
}

/// The loading functions. `local` loads into the local driver, writing the handle where it is told, and `unload` undoes that.
///
/// # Safety
/// `source` is the program's argument: valid as soon as `local` has succeeded.
pub unsafe fn load(
    out: Out<u64>,
    source: Source,
    options: Options,
    is_library: bool,
    local: impl FnOnce(*mut u64) -> CuResult,
    unload: impl FnOnce(u64) -> CuResult,
) -> Outcome {
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        let out = out.required()?;
        let mut handle = 0;
        local(&mut handle).ok()?;
        let image = Image { handle, is_library };
        // SAFETY: the local driver has accepted the source.
        let outcome = unsafe { contents(source) }.and_then(|bytes| match bytes {
            Some(bytes) if image::declares_managed(&bytes) => Ok(Outcome::Refuse(Reason::ManagedVariables)),
            Some(bytes) => announce(session, image, &bytes, options).map(|()| Outcome::Done),
            // Of a kind that this build does not know: its functions are refused when they are used.
            None => Ok(Outcome::Done),
        });
        if outcome == Ok(Outcome::Done) {
            out.put(handle);
        } else {
            unload(handle);
        }
        outcome
    };
    run().into()
}

/// The image itself.
///
/// # Safety
/// The local driver has accepted the source, whose bytes outlive `'a`.
unsafe fn contents<'a>(source: Source) -> Result<Option<Cow<'a, [u8]>>, CuResult> {
    match source {
        // SAFETY: as the caller vouches.
        Source::Memory(address) => Ok(unsafe { image::bytes(address.cast()) }.map(Cow::Borrowed)),
        Source::File(path) => {
            // SAFETY: as the caller vouches, a C string.
            let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
            let mut bytes = std::fs::read(path).map_err(|_| CuResult::FILE_NOT_FOUND)?;
            // PTX in a file has no NUL; behind a binary one more byte does no harm.
            bytes.push(0);
            Ok(Some(Cow::Owned(bytes)))
        }
    }
}

/// Large images that lie in a file travel as that file: nothing is copied, and of hundreds of megabytes in a library only those are read
/// that the executor's driver looks at.
fn announce(session: &Session, image: Image, bytes: &[u8], options: Options) -> Result<(), CuResult> {
    /// Below this, copying is cheaper than looking for the file.
    const LARGE_BYTES: usize = 64 << 10;
    let mapped = if bytes.len() > LARGE_BYTES { mapped::find(bytes) } else { None };
    match mapped {
        Some(mapped) => send_file(session, image, &mapped.file, mapped.offset, bytes.len() as u64, options),
        None => send(session, image, bytes, options),
    }
}

fn send(session: &Session, image: Image, bytes: &[u8], options: Options) -> Result<(), CuResult> {
    let fd = session::blob(bytes).map_err(|_| CuResult::OUT_OF_MEMORY)?;
    send_file(session, image, &fd, 0, bytes.len() as u64, options)
}

fn send_file(
    session: &Session,
    image: Image,
    file: &OwnedFd,
    offset: u64,
    bytes: u64,
    options: Options,
) -> Result<(), CuResult> {
    let tag = session.next_tag();
    session.send_fd(tag, file.as_fd())?;
    session.cast(&Request::Module(ModuleRequest::Load {
        module: image.handle,
        blob_tag: tag,
        offset,
        bytes,
        library: image.is_library,
        options: options.numbers(),
    }))?;
    remember(image, 0);
    Ok(())
}

fn images() -> std::sync::MutexGuard<'static, FxHashMap<Image, Owner>> {
    IMAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `library` is the one whose module it is, or 0. Returns whether it is new.
fn remember(image: Image, library: u64) -> bool {
    let context = if image.is_library { 0 } else { context::current() };
    images().insert(image, Owner { context, library }).is_none()
}

/// The images that `is_gone` holds for end, with their functions and variables.
fn forget(is_gone: impl Fn(Image, Owner) -> bool) -> Vec<Image> {
    let gone = |image: &Image, owner: &mut Owner| is_gone(*image, *owner);
    let gone: Vec<Image> = images().extract_if(gone).map(|(image, _)| image).collect();
    for &image in &gone {
        function::forget(image);
        global::forget(image.handle);
    }
    gone
}

/// The modules of a context that has ended, those of libraries included. With `is_primary` the libraries themselves start anew in the next
/// context: their variables have their first values again.
pub fn end_of_context(session: &Session, context: u64, is_primary: bool) {
    for image in forget(|image, owner| !image.is_library && owner.context == context) {
        let _ =
            session.cast(&Request::Module(ModuleRequest::Unload { module: image.handle, library: false }));
    }
    function::forget_of_libraries(is_primary);
    if is_primary {
        for library in libraries() {
            global::forget(library);
            let _ = session.cast(&Request::Module(ModuleRequest::Renew { library }));
        }
    }
}

fn libraries() -> Vec<u64> {
    images().keys().filter(|image| image.is_library).map(|image| image.handle).collect()
}

/// Whether the executor knows the image.
pub fn is_known(image: Image) -> bool {
    images().contains_key(&image)
}

/// Whether the executor knows a `CUmodule`, which may be a library's.
pub fn knows(module: u64) -> bool {
    is_known(Image { handle: module, is_library: false }) || adopt(module)
}

/// Finds the library whose `CUmodule` this is, for functions that name a module which the program never asked for.
pub fn adopt(module: u64) -> bool {
    let of = |library| {
        let mut found = 0;
        // SAFETY: a valid out-parameter and a library that is loaded.
        let result = unsafe { real::cuLibraryGetModule(&mut found, library) };
        result == CuResult::SUCCESS && found == module
    };
    let Some(library) = libraries().into_iter().find(|&library| of(library)) else { return false };
    let request = ModuleRequest::LibraryModule { module, library };
    let sent = session().is_some_and(|session| session.cast(&Request::Module(request)).is_ok());
    sent && remember(Image { handle: module, is_library: false }, library)
}

/// cuLibraryGetModule: the same code under another handle.
pub fn of_library(out: Out<u64>, library: u64, local: impl FnOnce(*mut u64) -> CuResult) -> Outcome {
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        let out = out.required()?;
        let mut module = 0;
        local(&mut module).ok()?;
        let image = Image { handle: module, is_library: false };
        if is_known(Image { handle: library, is_library: true }) && !is_known(image) {
            session.cast(&Request::Module(ModuleRequest::LibraryModule { module, library }))?;
            remember(image, library);
        }
        out.put(module);
        Ok(())
    };
    run().into()
}

/// cuLibraryGetManaged: what the local driver has not, it says. That it has one is learnt here only of an image that could not be read.
pub fn managed_variable(local: CuResult) -> Outcome {
    match local {
        CuResult::SUCCESS => Outcome::Refuse(Reason::ManagedVariables),
        error => Outcome::Fail(error),
    }
}

/// cuModuleUnload and cuLibraryUnload. The executor's driver may wait for the device when it unloads, so the program waits first.
pub fn unload(handle: u64, is_library: bool, local: impl FnOnce() -> CuResult) -> Outcome {
    let image = Image { handle, is_library };
    if !is_known(image) {
        return Outcome::PassThrough(Reason::InvalidArgument);
    }
    let run = || {
        let session = session().ok_or(CuResult::DEINITIALIZED)?;
        capture::permits_unsafe()?;
        stream::synchronize_context()?;
        // A library's module is another handle of the same code.
        forget(|known, owner| known == image || is_library && owner.library == handle);
        // The executor first: as soon as the local handle is free, another thread may be given the same value.
        let request = ModuleRequest::Unload { module: handle, library: is_library };
        let sent = session.cast(&Request::Module(request));
        local().ok().and(sent)
    };
    run().into()
}
