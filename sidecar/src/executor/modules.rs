//! Modules, libraries, kernels and functions, under the program's own handle values.
//!
//! Owned by the ring thread. An image stays a file until one of its functions is looked up or a global is needed: programs load far
//! more code than they run, and the loading is what costs. Kernels (`CUkernel`) are resolved to their functions at once, so that
//! everything behind this file deals in `CUfunction` alone.

use std::ffi::{CString, c_void};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use lightos_protocol::mapping::{Access, MAP_ALIGN_BYTES, Reservation, align_up, sealed_bytes};
use lightos_protocol::request::{ModuleRequest, Reply};
use rustc_hash::FxHashMap;
use rustix::fs::FileType;

use super::Executor;
use super::driver::{CuError, check, sys};

/// `CU_FUNC_ATTRIBUTE_*` numbers that exist so far are below this.
const FUNCTION_ATTRIBUTES: u32 = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX as u32;
/// `CUfunc_cache` numbers are below this.
const CACHE_CONFIGS: u32 = 4;

/// The program's images and the functions known from them.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// By handle and by whether the handle is a `CUlibrary`.
    images: FxHashMap<(u64, bool), Image>,
    functions: FxHashMap<u64, Function>,
}

#[derive(Debug)]
enum Image {
    /// Not needed yet.
    File(ImageFile),
    /// A library that was loaded and shall be loaded anew.
    Mapped(Mapped),
    /// With the bytes, where the driver was promised that they stay.
    Loaded(Loaded, Option<Mapped>),
    /// The `CUmodule` of a library.
    OfLibrary(u64),
    /// The driver does not take it, and will not.
    Broken(CuError),
}

/// An image that is not loaded.
#[derive(Debug)]
struct ImageFile {
    fd: OwnedFd,
    /// Of the image in the file.
    offset: u64,
    bytes: u64,
    options: Vec<(u32, u64)>,
}

/// The bytes of an image, readable as long as this lives.
#[derive(Debug)]
struct Mapped {
    _memory: Reservation,
    address: u64,
    options: Vec<(u32, u64)>,
}

/// An image in the executor's context.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loaded {
    Module(sys::CUmodule),
    Library(sys::CUlibrary),
}

#[derive(Debug)]
enum Function {
    Named { image: (u64, bool), name: CString },
    Known { image: (u64, bool), raw: sys::CUfunction },
}

impl Function {
    fn image(&self) -> (u64, bool) {
        match *self {
            Self::Named { image, .. } | Self::Known { image, .. } => image,
        }
    }
}

impl Modules {
    /// The image of a `CUmodule` or (`library`) `CUlibrary`, loaded if it was not.
    pub(crate) fn loaded(&mut self, module: u64, library: bool) -> Result<Loaded, CuError> {
        let image = self.images.get_mut(&(module, library)).ok_or(CuError::INVALID_HANDLE)?;
        let outcome = match image {
            Image::File(file) => map(file).and_then(|mapped| Ok((load(&mapped, library)?, mapped))),
            Image::Mapped(mapped) => match load(mapped, library) {
                Ok(loaded) => {
                    let empty = Image::Broken(CuError::INVALID_HANDLE);
                    let Image::Mapped(mapped) = std::mem::replace(image, empty) else { unreachable!() };
                    Ok((loaded, mapped))
                }
                Err(error) => Err(error),
            },
            Image::Loaded(loaded, _) => return Ok(*loaded),
            Image::Broken(error) => return Err(*error),
            Image::OfLibrary(library) => {
                let library = *library;
                return self.loaded(library, true);
            }
        };
        match outcome {
            Ok((loaded, mapped)) => {
                // The driver keeps no pointer to a module's image.
                *image = Image::Loaded(loaded, library.then_some(mapped));
                Ok(loaded)
            }
            Err(error) => {
                // Without room, the next use may find some.
                if !matches!(error, CuError::OUT_OF_MEMORY | CuError::OPERATING_SYSTEM) {
                    *image = Image::Broken(error);
                }
                Err(error)
            }
        }
    }

    /// Unloads a library that was loaded; its next use loads it again. The program announces its functions again as well.
    fn renew(&mut self, library: u64) -> Result<(), CuError> {
        let id = (library, true);
        self.functions.retain(|_, function| function.image() != id);
        let image = self.images.get_mut(&id).ok_or(CuError::INVALID_HANDLE)?;
        match std::mem::replace(image, Image::Broken(CuError::INVALID_HANDLE)) {
            Image::Loaded(Loaded::Library(raw), Some(mapped)) => {
                *image = Image::Mapped(mapped);
                // SAFETY: the handle was ours and has left the table, with all functions of it; its bytes stay mapped.
                check(unsafe { sys::cuLibraryUnload(raw) })
            }
            other => {
                *image = other;
                Ok(())
            }
        }
    }

    /// Whether this is a `CUmodule` of the program.
    pub(crate) fn knows(&self, module: u64) -> bool {
        self.images.contains_key(&(module, false))
    }

    /// The driver's function for the program's `CUfunction` or `CUkernel`.
    pub(crate) fn function(&mut self, handle: u64) -> Result<sys::CUfunction, CuError> {
        let (image, name) = match self.functions.get(&handle).ok_or(CuError::INVALID_HANDLE)? {
            Function::Known { raw, .. } => return Ok(*raw),
            Function::Named { image, name } => (*image, name.clone()),
        };
        let raw = find(self.loaded(image.0, image.1)?, &name)?;
        self.functions.insert(handle, Function::Known { image, raw });
        Ok(raw)
    }

    /// Unloads an image, and says which handles mean nothing any more: a library's modules are others of the same code.
    fn unload(&mut self, image: (u64, bool)) -> (Vec<u64>, Result<(), CuError>) {
        let of = |other: &Image| image.1 && matches!(other, Image::OfLibrary(library) if *library == image.0);
        let modules = self.images.iter().filter(|(_, other)| of(other));
        let mut gone: Vec<u64> = modules.map(|((module, _), _)| *module).collect();
        for &module in &gone {
            let _ = self.forget((module, false));
        }
        gone.push(image.0);
        (gone, self.forget(image))
    }

    fn forget(&mut self, image: (u64, bool)) -> Result<(), CuError> {
        self.functions.retain(|_, function| function.image() != image);
        match self.images.remove(&image).ok_or(CuError::INVALID_HANDLE)? {
            // SAFETY: the handle was ours and has just left the table, with all functions of it.
            Image::Loaded(Loaded::Module(raw), _) => check(unsafe { sys::cuModuleUnload(raw) }),
            // SAFETY: as above.
            Image::Loaded(Loaded::Library(raw), _memory) => check(unsafe { sys::cuLibraryUnload(raw) }),
            Image::File(_) | Image::Mapped(_) | Image::OfLibrary(_) | Image::Broken(_) => Ok(()),
        }
    }

    fn set_attribute(&mut self, function: u64, attribute: u32, value: i32) -> Result<(), CuError> {
        let raw = self.function(function)?;
        if attribute >= FUNCTION_ATTRIBUTES {
            return Err(CuError::INVALID_VALUE);
        }
        // SAFETY: every number below the maximum is a variant of the `repr(u32)` enum.
        let attribute = unsafe { std::mem::transmute::<u32, sys::CUfunction_attribute>(attribute) };
        // SAFETY: the function is live as long as its image is in the table.
        check(unsafe { sys::cuFuncSetAttribute(raw, attribute, value) })
    }

    fn set_cache_config(&mut self, function: u64, config: u32) -> Result<(), CuError> {
        let raw = self.function(function)?;
        if config >= CACHE_CONFIGS {
            return Err(CuError::INVALID_VALUE);
        }
        // SAFETY: 0 to 3 are the variants of the `repr(u32)` enum.
        let config = unsafe { std::mem::transmute::<u32, sys::CUfunc_cache>(config) };
        // SAFETY: the function is live as long as its image is in the table.
        check(unsafe { sys::cuFuncSetCacheConfig(raw, config) })
    }
}

/// Maps the bytes of an image.
fn map(file: &ImageFile) -> Result<Mapped, CuError> {
    const ALIGN: u64 = MAP_ALIGN_BYTES as u64;
    let unreadable = |error: std::io::Error| {
        tracing::warn!(%error, file.bytes, "an image cannot be mapped");
        CuError::OPERATING_SYSTEM
    };
    let end = file.offset.checked_add(file.bytes).ok_or(CuError::INVALID_VALUE)?;
    if file.bytes == 0 || end > file_bytes(file.fd.as_fd()).map_err(unreadable)? {
        return Err(CuError::INVALID_VALUE);
    }
    let start = file.offset & !(ALIGN - 1);
    let mapped_bytes = align_up(end - start, ALIGN).ok_or(CuError::INVALID_VALUE)?;
    let memory = Reservation::anywhere(mapped_bytes).map_err(unreadable)?;
    let address =
        memory.map(0, file.fd.as_fd(), start, mapped_bytes, Access::ReadOnly).map_err(unreadable)?;
    let address = address + (file.offset - start);
    Ok(Mapped { _memory: memory, address, options: file.options.clone() })
}

/// The size of a sealed memfd, or of one of the program's regular files. If it cuts that one short later, its own executor faults.
fn file_bytes(fd: BorrowedFd<'_>) -> std::io::Result<u64> {
    sealed_bytes(fd).or_else(|unsealed| {
        let status = rustix::fs::fstat(fd)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(unsealed);
        }
        u64::try_from(status.st_size).map_err(|_| unsealed)
    })
}

/// Hands the image to the driver. The driver copies a module; a library's bytes have to stay for it.
fn load(mapped: &Mapped, library: bool) -> Result<Loaded, CuError> {
    let image = std::ptr::with_exposed_provenance::<c_void>(mapped.address as usize);
    let count = mapped.options.len() as u32;
    let mut names: Vec<u32> = mapped.options.iter().map(|(name, _)| *name).collect();
    let mut values: Vec<*mut c_void> =
        mapped.options.iter().map(|(_, value)| std::ptr::without_provenance_mut(*value as usize)).collect();
    let (names, values) = (names.as_mut_ptr().cast::<sys::CUjit_option>(), values.as_mut_ptr());
    if library {
        let mut raw = std::ptr::null_mut();
        let mut preserved = [sys::CUlibraryOption_enum::CU_LIBRARY_BINARY_IS_PRESERVED];
        let mut yes = [std::ptr::without_provenance_mut::<c_void>(1)];
        // SAFETY: `image` is readable until the library is unloaded, as the option promises; the option arrays have the lengths that are
        // stated; the driver reads the names as plain numbers. An image that lies about its own size makes the driver
        // read outside the mapping, in this tenant's process.
        check(unsafe {
            let (options, values_of) = (preserved.as_mut_ptr(), yes.as_mut_ptr());
            sys::cuLibraryLoadData(&mut raw, image, names, values, count, options, values_of, 1)
        })?;
        Ok(Loaded::Library(raw))
    } else {
        let mut raw = std::ptr::null_mut();
        // SAFETY: as above; the driver keeps no pointer to a module's image.
        check(unsafe { sys::cuModuleLoadDataEx(&mut raw, image, count, names, values) })?;
        Ok(Loaded::Module(raw))
    }
}

fn find(image: Loaded, name: &CString) -> Result<sys::CUfunction, CuError> {
    let mut function = std::ptr::null_mut();
    // SAFETY: the image is live, the name a C string, the out-pointers valid.
    unsafe {
        match image {
            Loaded::Module(module) => check(sys::cuModuleGetFunction(&mut function, module, name.as_ptr()))?,
            Loaded::Library(library) => {
                let mut kernel = std::ptr::null_mut();
                check(sys::cuLibraryGetKernel(&mut kernel, library, name.as_ptr()))?;
                check(sys::cuKernelGetFunction(&mut function, kernel))?;
            }
        }
    }
    Ok(function)
}

impl Executor {
    /// Executes a cold call about code.
    pub(crate) fn module_request(&mut self, request: ModuleRequest) -> Result<Reply, CuError> {
        let modules = &mut self.modules;
        match request {
            ModuleRequest::Load { module, blob_tag, offset, bytes, library, options } => {
                let file = ImageFile { fd: self.fds.take(blob_tag)?, offset, bytes, options };
                modules.images.insert((module, library), Image::File(file));
            }
            ModuleRequest::LibraryModule { module, library } => {
                modules.images.insert((module, false), Image::OfLibrary(library));
            }
            ModuleRequest::Renew { library } => {
                self.globals.forget(library);
                modules.renew(library)?;
            }
            ModuleRequest::Unload { module, library } => {
                let (gone, outcome) = modules.unload((module, library));
                gone.into_iter().for_each(|module| self.globals.forget(module));
                self.references.keep(|module| modules.knows(module));
                outcome?;
            }
            ModuleRequest::Function { function, module, name, library } => {
                let name = CString::new(name).map_err(|_| CuError::INVALID_VALUE)?;
                modules.functions.insert(function, Function::Named { image: (module, library), name });
                // Now, as natively, and not behind a kernel that the program launches before this one: the driver may wait for the
                // device when it loads. What goes wrong is said at the function's use.
                let _ = modules.function(function);
            }
            ModuleRequest::FunctionAttribute { function, attribute, value } => {
                modules.set_attribute(function, attribute, value)?;
            }
            ModuleRequest::FunctionCacheConfig { function, config } => {
                modules.set_cache_config(function, config)?;
            }
        }
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_librarys_modules_and_their_functions_end_with_it() {
        let mut modules = Modules::default();
        let none = CuError::INVALID_HANDLE;
        for (image, content) in [
            ((16, true), Image::Broken(none)),
            ((32, false), Image::OfLibrary(16)),
            ((48, false), Image::OfLibrary(64)),
        ] {
            modules.images.insert(image, content);
        }
        for (function, image) in [(1, (16, true)), (2, (32, false)), (3, (48, false))] {
            modules.functions.insert(function, Function::Named { image, name: CString::default() });
        }
        let (gone, outcome) = modules.unload((16, true));
        assert_eq!((gone, outcome), (vec![32, 16], Ok(())));
        assert!(modules.images.contains_key(&(48, false)) && modules.images.len() == 1);
        assert!(modules.functions.contains_key(&3) && modules.functions.len() == 1);
        assert_eq!(modules.unload((16, true)), (vec![16], Err(none)), "once");
    }
}
