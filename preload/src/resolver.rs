//! How a program finds symbols: the filter behind the `dlsym` and `dlvsym` trampolines, and the real functions of the loader.
//!
//! Runs in every look-up of every program, from the first one on (before malloc is ready, inside other libraries'
//! constructors): names other than `cu` + upper case and `cup`, as CUPTI's begin, leave after three bytes, and nothing here
//! allocates, takes a lock of ours or logs (but for CUPTI's names, see [`behind`]).

use crate::{
    dispatch, elf,
    hooks::{self, Class, Hook, cupti, unknown},
    life, real,
    trampoline::Verdict,
};
use std::{
    ffi::{CStr, c_char, c_void},
    mem::MaybeUninit,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
type Dlvsym = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;

/// A loaded library.
#[derive(Clone, Copy, Debug)]
pub struct Library {
    /// Load address.
    pub base: usize,
    /// Path or name, kept by the loader while the library is loaded.
    pub name: *const c_char,
}

/// The library that an address belongs to.
pub fn library_of(address: *const c_void) -> Option<Library> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `dladdr` takes any address and fills the structure when it returns non-zero; zeroed is a valid value of it.
    let info = unsafe {
        if libc::dladdr(address, info.as_mut_ptr()) == 0 {
            return None;
        }
        info.assume_init()
    };
    (!info.dli_fbase.is_null()).then_some(Library { base: info.dli_fbase as usize, name: info.dli_fname })
}

/// The next definition of a loader function behind ours, found once.
struct Next(AtomicUsize, &'static CStr);

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self(AtomicUsize::new(0), name)
    }

    fn address(&self) -> usize {
        match self.0.load(Relaxed) {
            0 => {
                let found = elf::hidden_definition(self.1).unwrap_or(0);
                self.0.store(found, Relaxed);
                found
            }
            found => found,
        }
    }
}

static DLSYM: Next = Next::new(c"dlsym");
static DLVSYM: Next = Next::new(c"dlvsym");

/// The real `dlsym`, as called by this library.
pub fn real_symbol(handle: *mut c_void, name: &CStr) -> *const c_void {
    match DLSYM.address() {
        0 => std::ptr::null(),
        // SAFETY: the address is the C library's `dlsym`; the handle is one that its caller got from the loader.
        address => unsafe { std::mem::transmute::<usize, Dlsym>(address)(handle, name.as_ptr()) },
    }
}

/// The definition behind ours that `caller` reaches: one of the global scope, or of the libraries that its own was linked with.
pub fn behind(name: &CStr, caller: *const c_void) -> *const c_void {
    let next = || real_symbol(libc::RTLD_NEXT, name);
    let found = next();
    let Some(library) = library_of(caller).filter(|library| found.is_null() && !library.name.is_null())
    else {
        return found;
    };
    // SAFETY: only finds a library that is loaded; the name is a C string that the loader keeps.
    let handle = unsafe { libc::dlopen(library.name, libc::RTLD_NOW | libc::RTLD_NOLOAD) };
    let found = if handle.is_null() {
        std::ptr::null()
    } else {
        let found = real_symbol(handle, name);
        // SAFETY: the handle of above. The library, whose code is calling, stays loaded.
        unsafe { libc::dlclose(handle) };
        found
    };
    // The handle of the program itself stands for the global scope, whose only definition is ours.
    let is_theirs = library_of(found).is_some_and(|owner| Some(owner.base) != ours());
    // Nothing is what the loader says once more, so that `dlerror` tells.
    if is_theirs { found } else { next() }
}

/// As [`behind`], but where the caller is not known, the first that is loaded.
pub fn behind_or_any(name: &CStr, caller: *const c_void) -> *const c_void {
    match behind(name, caller) {
        found if found.is_null() => {
            elf::next_definition(name, None).address.map_or(found, |address| address as *const c_void)
        }
        found => found,
    }
}

/// Load address of this library.
fn ours() -> Option<usize> {
    library_of(ours as *const c_void).map(|library| library.base)
}

/// Filter of the `dlsym` trampoline; `caller` is the address that the call returns to.
pub extern "C" fn dlsym_verdict(handle: *mut c_void, name: *const c_char, caller: *const c_void) -> Verdict {
    let target = DLSYM.address();
    // SAFETY: the address is the C library's `dlsym`; handle and name are the program's.
    let find = |handle| unsafe { std::mem::transmute::<usize, Dlsym>(target)(handle, name) };
    verdict(name, handle, caller, find, target)
}

/// Filter of the `dlvsym` trampoline; `caller` is the address that the call returns to.
pub extern "C" fn dlvsym_verdict(
    handle: *mut c_void,
    name: *const c_char,
    version: *const c_char,
    caller: *const c_void,
) -> Verdict {
    let target = DLVSYM.address();
    // SAFETY: the address is the C library's `dlvsym`; handle, name and version are the program's.
    let find = |handle| unsafe { std::mem::transmute::<usize, Dlvsym>(target)(handle, name, version) };
    verdict(name, handle, caller, find, target)
}

/// Decides a look-up. `find` looks up with this library as the caller, which makes no difference for a handle.
fn verdict(
    name: *const c_char,
    handle: *mut c_void,
    caller: *const c_void,
    find: impl Fn(*mut c_void) -> *mut c_void,
    target: usize,
) -> Verdict {
    let native = Verdict { answer: 0, target };
    let Some(name) = cuda_name(name).filter(|_| target != 0) else { return native };
    if name.to_bytes()[2] == b'p' {
        return cupti::position(name)
            .map_or(native, |function| profiling(function, name, handle, caller, find, target));
    }
    dispatch::notice_caller(caller);
    match hooks::classify(name.to_bytes()) {
        Class::Hook(hook) => hooked(hook, handle, caller, find, target),
        Class::Local => native,
        Class::Unknown if handle == libc::RTLD_NEXT || handle == libc::RTLD_DEFAULT || life::is_off() => {
            native
        }
        Class::Unknown => {
            let found = find(handle).cast_const();
            let answer = if real::owns(found) { unknown::stub_of(found, name) } else { found };
            Verdict { answer: answer as usize, target: 0 }
        }
    }
}

/// The name, if it can be a function's of the driver or of CUPTI: three bytes decide for nearly every look-up of a process.
fn cuda_name<'a>(name: *const c_char) -> Option<&'a CStr> {
    if name.is_null() {
        return None;
    }
    let bytes = name.cast::<u8>();
    // SAFETY: the name is a C string; `&&` reads a byte only when the one before was not NUL.
    let is_cuda = unsafe {
        *bytes == b'c'
            && *bytes.add(1) == b'u'
            && (*bytes.add(2) == b'p' || (*bytes.add(2)).is_ascii_uppercase())
    };
    // SAFETY: a C string of the program, used during its call only.
    is_cuda.then(|| unsafe { CStr::from_ptr(name) })
}

/// Finds a function of CUPTI natively and decides what the program gets.
fn profiling(
    function: usize,
    name: &CStr,
    handle: *mut c_void,
    caller: *const c_void,
    find: impl Fn(*mut c_void) -> *mut c_void,
    target: usize,
) -> Verdict {
    let found = if handle != libc::RTLD_NEXT {
        match find(handle).cast_const() {
            // Not from here; the caller's own scope may have it, and else the loader says why not.
            found if found.is_null() => return Verdict { answer: 0, target },
            found => Some(found),
        }
    } else if elf::next_definition(name, library_of(caller).map(|library| library.base)).passed_ours {
        None
    } else {
        return Verdict { answer: 0, target };
    };
    Verdict { answer: cupti::answer(function, found, caller) as usize, target: 0 }
}

/// Finds a hooked name natively and decides what the program gets.
fn hooked(
    hook: &Hook,
    handle: *mut c_void,
    caller: *const c_void,
    find: impl Fn(*mut c_void) -> *mut c_void,
    target: usize,
) -> Verdict {
    let answer = |address: *const c_void| Verdict { answer: address as usize, target: 0 };
    let found = if handle == libc::RTLD_NEXT {
        let next = elf::next_definition(hook.slot.name(), library_of(caller).map(|library| library.base));
        match next.address {
            Some(address) => address as *const c_void,
            // Nothing but our own export follows the caller: nothing follows us either, and the loader says so.
            None if next.passed_ours => return answer(find(libc::RTLD_NEXT)),
            None => return Verdict { answer: 0, target },
        }
    } else {
        match find(handle).cast_const() {
            // The global scope holds our own exports. What counts is whether a driver stands behind them: a probe must not
            // believe that CUDA exists where none does.
            found if found == hook.entry() => find(libc::RTLD_NEXT),
            found => found,
        }
    };
    if found.is_null() || life::is_off() || !real::adopts(found) {
        answer(found)
    } else {
        answer(hook.entry())
    }
}
