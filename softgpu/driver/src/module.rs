//! Modules: programs loaded into a context, with the functions and globals that the program was asked for.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use lightos_softgpu_engine::exec::Program;
use rustc_hash::FxHashMap;

use crate::context;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::function::{FUNCTIONS, Function};
use crate::handle::{self, Table};
use crate::image;
use crate::jit::Options;
use crate::memory;

/// One loaded program.
#[derive(Debug)]
pub struct Module {
    pub handle: u64,
    /// Owning context; 0 for a library's module, which lives as long as the library.
    pub context: u64,
    pub device: Device,
    pub program: Program,
    functions: Mutex<FxHashMap<String, u64>>,
}

static MODULES: Table<Module> = Table::new();

/// The newest PTX ISA that a driver for CUDA 13.0 accepts.
const NEWEST_PTX: (u32, u32) = (9, 0);

/// `cuModuleLoadDataEx`.
///
/// # Safety
/// As [`image::ptx`] for the image and [`Options::new`] for the options.
pub unsafe fn load(image: *const c_void, options: &Options) -> Result<u64> {
    let context = context::healthy()?;
    let (major, minor) = context.device.profile().compute_capability;
    // SAFETY: this function's contract.
    let ptx = unsafe { image::ptx(image, major * 10 + minor) }?;
    Ok(Module::load(&ptx, context.handle, context.device, options)?.handle)
}

/// The image in a file. A NUL is added, for text.
pub fn read_file(path: &std::ffi::CStr) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()));
    let mut bytes = std::fs::read(path).map_err(|_| Error::FILE_NOT_FOUND)?;
    bytes.extend_from_slice(&[0; 8]);
    Ok(bytes)
}

pub fn find(handle: u64) -> Result<Arc<Module>> {
    MODULES.get(handle).ok_or(Error::INVALID_HANDLE)
}

/// `cuModuleUnload`: waits for queued work first.
pub fn unload(handle: u64) -> Result {
    let context = context::healthy()?;
    if find(handle)?.context == 0 {
        return Err(Error::NOT_PERMITTED);
    }
    context.synchronize()?;
    forget(handle);
    Ok(())
}

/// Removes a module's handles; its memory goes with the last user.
pub(crate) fn forget(handle: u64) {
    MODULES.remove(handle);
    FUNCTIONS.retain(|function| function.module.handle != handle);
}

/// Handles of the modules that the program has loaded into the contexts that `of` accepts; a library's are not among them.
pub(crate) fn loaded(of: impl Fn(u64) -> bool) -> Vec<u64> {
    let modules = MODULES.all(|module| module.context != 0 && of(module.context));
    modules.iter().map(|module| module.handle).collect()
}

pub(crate) fn forget_context(context: u64) {
    FUNCTIONS.retain(|function| function.module.context != context);
    MODULES.retain(|module| module.context != context);
}

impl Module {
    /// Loads PTX for a device. Errors go to the JIT log.
    pub fn load(ptx: &str, context: u64, device: Device, options: &Options) -> Result<Arc<Module>> {
        let mut full = false;
        let mut globals = Vec::new();
        let loaded = Program::load(&options.limited(ptx), &mut |bytes, align| {
            let at = memory::allocate_global(device, context, bytes, align);
            full |= at.is_none();
            globals.extend(at);
            at
        });
        let program = loaded.map_err(|error| {
            globals.iter().for_each(|at| memory::free_global(*at));
            options.report("", &error.log);
            match (full, error.version > Some(NEWEST_PTX)) {
                (true, _) => Error::OUT_OF_MEMORY,
                (_, true) => Error::UNSUPPORTED_PTX_VERSION,
                (_, false) => Error::INVALID_PTX,
            }
        })?;
        if program.version() > NEWEST_PTX {
            globals.iter().for_each(|at| memory::free_global(*at));
            options.report(
                "",
                "Unsupported .version: the PTX was compiled with a newer toolchain than CUDA 13.0\n",
            );
            return Err(Error::UNSUPPORTED_PTX_VERSION);
        }
        let (major, minor) = device.profile().compute_capability;
        if program.kernels().any(|kernel| kernel.target_sm > major * 10 + minor) {
            globals.iter().for_each(|at| memory::free_global(*at));
            options.report("", "SM version specified by .target is higher than default SM version assumed\n");
            return Err(Error::INVALID_PTX);
        }
        options.report("", "");
        let module = Arc::new(Module {
            handle: handle::fresh(),
            context,
            device,
            program,
            functions: Mutex::default(),
        });
        MODULES.insert(module.handle, module.clone());
        Ok(module)
    }

    /// The function of that name; the same handle at every query.
    pub fn function(self: &Arc<Self>, name: &str) -> Result<u64> {
        self.function_for(name, 0)
    }

    /// As [`Module::function`], for the function of a library's kernel.
    pub fn function_for(self: &Arc<Self>, name: &str, kernel: u64) -> Result<u64> {
        let mut functions = self.functions.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(handle) = functions.get(name) {
            return Ok(*handle);
        }
        let info = self.program.kernel(name).ok_or(Error::NOT_FOUND)?.clone();
        let function = Function::new(handle::fresh(), self.clone(), self.device, info, kernel)?;
        let handle = function.handle;
        FUNCTIONS.insert(handle, Arc::new(function));
        functions.insert(name.to_owned(), handle);
        Ok(handle)
    }

    /// Address and size of a global variable.
    pub fn global(&self, name: &str) -> Result<(u64, usize)> {
        let found = self.program.globals().find(|(global, ..)| *global == name);
        found.map(|(_, address, bytes)| (address, bytes as usize)).ok_or(Error::NOT_FOUND)
    }

    /// The names of all kernels, in the program's order.
    pub fn kernel_names(&self) -> Vec<String> {
        self.program.kernels().map(|kernel| kernel.name.clone()).collect()
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.program.globals().for_each(|(_, address, _)| memory::free_global(address));
    }
}
