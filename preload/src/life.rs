//! The life of the library in its process: settings, constructor, fork, exit, the one warning line.
//!
//! The constructor does no I/O and starts nothing: it reads the `LIGHTOS_*` variables, because nothing reads the environment
//! later. The sidecar is contacted at the first `cuInit`.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `LIGHTOS_DISPATCH=auto` | the default: `sidecar`, or `local` for a program that shows early that it needs it ([`crate::dispatch`]) |
//! | `LIGHTOS_DISPATCH=sidecar` | calls are forwarded to the sidecar's executor |
//! | `LIGHTOS_DISPATCH=local` | calls are the process's own driver's; launches obey the sidecar's policy |
//! | `LIGHTOS_DISPATCH=off` | the shim does nothing: every look-up and every call is native |
//! | `LIGHTOS_SOCKET=PATH` | the sidecar's socket, instead of /run/lightos/lightos.sock or $XDG_RUNTIME_DIR/lightos/lightos.sock |
//! | `LIGHTOS_REQUIRE=1` | without a sidecar `cuInit` fails with `CUDA_ERROR_SYSTEM_NOT_READY` instead of running ungoverned |
//! | `LIGHTOS_CLASS=NAME` | the tenant class to ask for |

use crate::{dispatch::local, ops, session};
use std::{
    env,
    ffi::CStr,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

/// What `LIGHTOS_DISPATCH` asks for, `off` aside ([`is_off`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    #[default]
    Auto,
    Sidecar,
    Local,
}

impl Wish {
    /// `None` for text that means nothing.
    fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "auto" => Some(Self::Auto),
            "sidecar" => Some(Self::Sidecar),
            "local" => Some(Self::Local),
            _ => None,
        }
    }
}

/// What the environment said when the process started.
#[derive(Debug)]
pub struct Settings {
    /// Where a sidecar may listen, in the order in which to try.
    pub sockets: Vec<PathBuf>,
    /// Where calls go.
    pub dispatch: Wish,
    /// What `LIGHTOS_DISPATCH` said, where that means nothing.
    pub unknown_wish: Option<String>,
    /// Fail instead of running natively.
    pub require: bool,
    /// Tenant class to ask for.
    pub class: Option<String>,
    /// Launches return when the kernel has ended, as the driver's own variable `CUDA_LAUNCH_BLOCKING` asks.
    pub launch_blocking: bool,
}

impl Settings {
    fn read() -> Self {
        let sockets = match env::var_os("LIGHTOS_SOCKET").filter(|path| !path.is_empty()) {
            Some(path) => vec![path.into()],
            None => {
                let runtime = env::var_os("XDG_RUNTIME_DIR")
                    .map(|folder| PathBuf::from(folder).join("lightos/lightos.sock"));
                [Some(PathBuf::from("/run/lightos/lightos.sock")), runtime].into_iter().flatten().collect()
            }
        };
        let wish = env::var_os("LIGHTOS_DISPATCH").unwrap_or_default().to_string_lossy().into_owned();
        let dispatch = Wish::parse(&wish);
        Self {
            sockets,
            dispatch: dispatch.unwrap_or_default(),
            unknown_wish: dispatch.is_none().then_some(wish),
            require: env::var_os("LIGHTOS_REQUIRE").is_some_and(|value| value == "1"),
            class: env::var("LIGHTOS_CLASS").ok().filter(|class| !class.is_empty()),
            launch_blocking: env::var("CUDA_LAUNCH_BLOCKING").is_ok_and(|value| value == "1"),
        }
    }
}

/// The settings of this process.
pub fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(Settings::read)
}

/// Whether the shim is switched off. Used while symbols are being resolved, possibly before the constructor has run: no
/// allocation, no lock.
pub fn is_off() -> bool {
    const ON: u8 = 1;
    const OFF: u8 = 2;
    static MODE: AtomicU8 = AtomicU8::new(0);
    match MODE.load(Relaxed) {
        0 => {
            // SAFETY: `getenv` with a C string; its result is read at once.
            let off = unsafe {
                let value = libc::getenv(c"LIGHTOS_DISPATCH".as_ptr());
                !value.is_null() && CStr::from_ptr(value) == c"off"
            };
            MODE.store(if off { OFF } else { ON }, Relaxed);
            off
        }
        mode => mode == OFF,
    }
}

#[cfg(not(test))]
#[ctor::ctor(unsafe)]
fn start() {
    if !is_off() {
        settings();
        // This standard library serves this shared object alone: a panic in it is caught at the hook, and the program's
        // stderr is not ours.
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Registers what has to happen at fork and exit. Called once a session exists, so that a program without CUDA has no handler
/// of ours.
pub fn register_handlers() {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if REGISTERED.swap(true, Relaxed) {
        return;
    }
    // SAFETY: both functions are `extern "C"`, take nothing and live as long as this library, which is never unloaded
    // (preloaded objects are not).
    unsafe {
        libc::pthread_atfork(None, None, Some(after_fork));
        libc::atexit(at_exit);
    }
}

/// In the child of a fork: ring, socket and threads belong to the parent.
extern "C" fn after_fork() {
    session::forget_in_child();
    local::forget_in_child();
}

/// Handlers that were registered before `cuInit` run after this one, and may fetch results of what the program has issued: it is
/// waited for. From then on nothing of ours may block: their calls run natively, as they would without us.
extern "C" fn at_exit() {
    finish();
    session::retire();
    local::retire();
}

/// Waits until the device has done everything, but not for ever: a kernel may wait for a program that has stopped answering. A thread of
/// its own waits, because the ring may be full and stay so.
fn finish() {
    const STACK_BYTES: usize = 256 << 10;
    const AT_MOST: Duration = Duration::from_secs(5);
    if session::session().is_none() {
        return;
    }
    let (done, wait) = mpsc::sync_channel(1);
    let waits = session::spawn_quietly("lightos-exit", STACK_BYTES, move || {
        let _ = ops::stream::synchronize_context();
        let _ = done.send(());
    });
    if waits.is_ok() {
        let _ = wait.recv_timeout(AT_MOST);
    }
}

#[cfg(not(test))]
redhook::hook! {
    unsafe fn fork() -> libc::pid_t => lightos_fork {
        // SAFETY: the real `fork`; its child only stores to memory.
        let pid = unsafe { redhook::real!(fork)() };
        if pid == 0 {
            after_fork();
        }
        pid
    }
}

/// Writes one line to stderr, directly: the program may have closed or redirected it, and its buffers are not ours.
pub fn warn(message: &str) {
    let line = format!("lightos: {}\n", message.replace('\n', " "));
    // SAFETY: writes bytes of a live string to a descriptor; an error is of no interest.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}
