//! The linker: joins PTX inputs into one PTX image, which a module load accepts.
//!
//! Machine code is not served, so object and cubin inputs answer NO_BINARY_FOR_GPU; in place of the static device runtime, which is
//! machine code, stands a PTX text with the barrier of cooperative grids. A register limit travels in the image
//! (`jit::Options::limited`), which lives until the link state is destroyed.

use std::ffi::{c_char, c_void};
use std::sync::{Arc, Mutex};

use crate::abi::Text;
use crate::edge::{exports, put, put_some, text};
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::jit::Options;
use crate::{context, image, module};

const INPUT_CUBIN: u32 = 0;
const INPUT_PTX: u32 = 1;
const INPUT_FATBINARY: u32 = 2;
const INPUT_LIBRARY: u32 = 4;

/// What programs call from cudadevrt, as far as it is served.
const DEVICE_RUNTIME: &str = include_str!("../devrt.ptx");

#[derive(Debug, Default)]
struct Link {
    text: Mutex<Vec<u8>>,
    /// The register limit, as text.
    limit: String,
}

static LINKS: Table<Link> = Table::new();

impl Link {
    /// Adds PTX. Later inputs lose their `.version`, `.target` and `.address_size` lines, which may stand only once.
    fn add(&self, ptx: &str) {
        let mut text = self.text.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let first = text.is_empty();
        for line in ptx.lines() {
            let word = line.trim_start();
            let header = [".version", ".target", ".address_size"].iter().any(|name| word.starts_with(name));
            if first || !header {
                text.extend_from_slice(line.as_bytes());
                text.push(b'\n');
            }
        }
    }
}

fn find(state: u64) -> Result<Arc<Link>> {
    LINKS.get(state).ok_or(Error::INVALID_HANDLE)
}

/// # Safety
/// `data` is readable for `bytes`.
unsafe fn add(state: u64, kind: u32, data: *const c_void, bytes: usize) -> Result {
    let link = find(state)?;
    match kind {
        INPUT_PTX | INPUT_FATBINARY if data.is_null() || bytes == 0 => return Err(Error::INVALID_VALUE),
        INPUT_PTX | INPUT_FATBINARY => {}
        INPUT_LIBRARY if !data.is_null() => {
            // SAFETY: this function's contract.
            let archive = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) };
            if !is_device_runtime(archive) {
                return Err(Error::NO_BINARY_FOR_GPU);
            }
            link.add(DEVICE_RUNTIME);
            return Ok(());
        }
        INPUT_CUBIN..=5 => return Err(Error::NO_BINARY_FOR_GPU),
        _ => return Err(Error::INVALID_VALUE),
    }
    // SAFETY: this function's contract.
    let mut copy = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) }.to_vec();
    copy.push(0);
    let (major, minor) = context::current()?.device.profile().compute_capability;
    // SAFETY: the copy is NUL-terminated and complete.
    link.add(&unsafe { image::ptx(copy.as_ptr().cast(), major * 10 + minor) }?);
    Ok(())
}

/// Whether an archive is cudadevrt: the name of its member tells, the device code in it is compressed.
fn is_device_runtime(archive: &[u8]) -> bool {
    const MEMBER: &[u8] = b"cuda_device_runtime.o/";
    archive.starts_with(b"!<arch>\n") && archive.windows(MEMBER.len()).any(|window| window == MEMBER)
}

/// # Safety
/// As `add`, for a path.
unsafe fn add_file(state: u64, kind: u32, path: Text) -> Result {
    // SAFETY: this function's contract, then a live buffer.
    unsafe {
        let bytes = module::read_file(text(path)?)?;
        add(state, kind, bytes.as_ptr().cast(), bytes.len())
    }
}

fn create(options: &Options) -> Result<u64> {
    context::healthy()?;
    let state = handle::fresh();
    let limit = options.limited("").into_owned();
    LINKS.insert(state, Arc::new(Link { text: Mutex::default(), limit }));
    Ok(state)
}

exports! { TABLE:
    entry cuLinkCreate_v2: (count: u32, names: *const u32, values: *mut *mut c_void, state: *mut u64) {
        if state.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        put(state, create(&Options::new(names, values, count)?)?)
    }
    entry cuLinkAddData_v2: (
        state: u64, kind: u32, data: *const c_void, bytes: usize, _name: *const c_char,
        _count: u32, _names: *const u32, _values: *mut *mut c_void
    ) {
        add(state, kind, data, bytes)
    }
    entry cuLinkAddFile_v2: (
        state: u64, kind: u32, path: Text, _count: u32, _names: *const u32, _values: *mut *mut c_void
    ) {
        add_file(state, kind, path)
    }
    entry cuLinkComplete: (state: u64, image: *mut *mut c_void, bytes: *mut usize) {
        let link = find(state)?;
        let mut text = link.text.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if text.is_empty() {
            return Err(Error::INVALID_VALUE);
        }
        if text.last() != Some(&0) {
            text.extend_from_slice(link.limit.as_bytes());
            text.push(0);
        }
        put(image, text.as_mut_ptr().cast())?;
        put_some(bytes, text.len());
        Ok(())
    }
    entry cuLinkDestroy: (state: u64) { LINKS.remove(state).map(drop).ok_or(Error::INVALID_HANDLE) }
}
