//! Libraries: code that is loaded once and becomes a module on each device where it is used.

use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, OnceLock};

use lightos_softgpu_engine::profile::MAX_DEVICES;
use rustc_hash::FxHashMap;

use crate::context;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::function::{FUNCTIONS, KERNELS, Kernel};
use crate::handle::{self, Table};
use crate::image;
use crate::jit::Options;
use crate::module::{self, Module};

/// One library. It is read at load time on the current device, or the first.
#[derive(Debug)]
pub struct Library {
    pub handle: u64,
    ptx: String,
    modules: Mutex<[Option<Arc<Module>>; MAX_DEVICES]>,
    names: Vec<String>,
    kernels: OnceLock<FxHashMap<String, u64>>,
}

static LIBRARIES: Table<Library> = Table::new();

/// `cuLibraryLoadData`.
///
/// # Safety
/// As [`image::ptx`] for the image and [`Options::new`] for the options.
pub unsafe fn load(image: *const c_void, options: &Options) -> Result<u64> {
    let device = context::current().map(|context| context.device).or_else(|_| Device::new(0))?;
    let (major, minor) = device.profile().compute_capability;
    // SAFETY: this function's contract.
    let ptx = unsafe { image::ptx(image, major * 10 + minor) }?;
    let module = Module::load(&ptx, 0, device, options)?;
    let names = module.kernel_names();
    let mut modules = [const { None }; MAX_DEVICES];
    modules[device.index()] = Some(module.clone());
    let library = Arc::new(Library {
        handle: handle::fresh(),
        ptx: options.limited(&ptx).into_owned(),
        modules: Mutex::new(modules),
        names,
        kernels: OnceLock::new(),
    });
    let kernels = module.program.kernels().map(|info| {
        let kernel = Kernel {
            handle: handle::fresh(),
            library: library.clone(),
            name: CString::new(info.name.as_str()).unwrap_or_default(),
            info: info.clone(),
            functions: Default::default(),
        };
        let handle = kernel.handle;
        KERNELS.insert(handle, Arc::new(kernel));
        (info.name.clone(), handle)
    });
    let _ = library.kernels.set(kernels.collect());
    LIBRARIES.insert(library.handle, library.clone());
    Ok(library.handle)
}

pub fn find(handle: u64) -> Result<Arc<Library>> {
    LIBRARIES.get(handle).ok_or(Error::INVALID_HANDLE)
}

/// Handles of all libraries.
pub(crate) fn all() -> Vec<u64> {
    LIBRARIES.all(|_| true).iter().map(|library| library.handle).collect()
}

/// `cuLibraryUnload`.
pub fn unload(handle: u64) -> Result {
    let library = LIBRARIES.remove(handle).ok_or(Error::INVALID_HANDLE)?;
    if let Ok(context) = context::current() {
        context.synchronize()?;
    }
    KERNELS.retain(|kernel| kernel.library.handle != handle);
    let modules = std::mem::take(&mut *library.modules());
    for module in modules.into_iter().flatten() {
        FUNCTIONS.retain(|function| function.module.handle != module.handle);
        module::forget(module.handle);
    }
    Ok(())
}

/// The primary context of a device has ended, and with it the libraries' modules there: they are loaded anew at their next use.
pub(crate) fn forget_device(device: Device) {
    for library in LIBRARIES.all(|_| true) {
        if let Some(module) = library.modules()[device.index()].take() {
            module::forget(module.handle);
        }
    }
}

impl Library {
    fn modules(&self) -> std::sync::MutexGuard<'_, [Option<Arc<Module>>; MAX_DEVICES]> {
        self.modules.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The library's module on a device.
    pub fn module(&self, device: Device) -> Result<Arc<Module>> {
        let mut modules = self.modules();
        let slot = &mut modules[device.index()];
        match slot {
            Some(module) => Ok(module.clone()),
            None => Ok(slot.insert(Module::load(&self.ptx, 0, device, &Options::NONE)?).clone()),
        }
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Result<u64> {
        self.kernels.get().and_then(|kernels| kernels.get(name)).copied().ok_or(Error::NOT_FOUND)
    }

    /// All kernels, in the program's order.
    pub fn kernels(&self) -> Vec<u64> {
        self.names.iter().filter_map(|name| self.kernel(name).ok()).collect()
    }
}
