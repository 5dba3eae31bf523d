//! Where this process's calls go: to the sidecar's executor, or to its own driver under the sidecar's policy.
//!
//! Decided at the first `cuInit` by `LIGHTOS_DISPATCH`. `auto` starts with the executor and may change its mind once, as long as nothing of
//! the program lies there: programs that need several devices, or memory that only one process's own driver can share, show it early. What they
//! have created until then (streams, events, modules) exists in the local driver as well, so the program notices nothing.
//!
//! The signs of a program that `sidecar` cannot carry:
//! - it is one of several ranks, as their launchers say in the environment;
//! - NCCL resolves the driver's functions;
//! - it makes a context on a second device;
//! - it calls a refused function that shares memory between devices or processes, or loads an image with managed variables;
//! - it asks CUPTI for records of the device, which CUPTI sees in the program's own process only.

pub mod local;

use crate::{
    life::{self, Wish},
    outcome::Reason,
    resolver,
    result::CuResult,
    session,
};
use std::{
    ffi::{CStr, c_void},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Set while `auto` may still leave the executor.
static OPEN: AtomicBool = AtomicBool::new(false);

/// Set once NCCL was seen to resolve the driver's functions.
static NCCL: AtomicBool = AtomicBool::new(false);

/// Set once CUPTI was asked for records of the device.
static PROFILED: AtomicBool = AtomicBool::new(false);

/// Variables by which launchers tell a rank how many there are: torchrun and most others, Open MPI, MPICH and its kin, Slurm's srun.
const RANK_COUNTS: [&str; 4] = ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Begins at the first `cuInit`. `Ok` with or without a sidecar; an error where the program must not run without one.
pub fn start() -> Result<(), CuResult> {
    enum State {
        Fresh,
        Served,
        Native,
    }
    static STATE: Mutex<State> = Mutex::new(State::Fresh);
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let settings = life::settings();
    if matches!(*state, State::Fresh) {
        if let Some(unknown) = &settings.unknown_wish {
            life::warn(&format!(
                "LIGHTOS_DISPATCH={unknown} means nothing; it is auto, sidecar, local or off; this is auto"
            ));
        }
        let begun = match settings.dispatch {
            Wish::Local => local::begin(),
            Wish::Auto if is_one_of_several_ranks() || PROFILED.load(Relaxed) => local::begin(),
            Wish::Auto => session::begin().inspect(|()| OPEN.store(true, Relaxed)),
            Wish::Sidecar => session::begin(),
        };
        *state = match begun {
            Ok(()) => State::Served,
            Err(error) => {
                let require = settings.require;
                let what =
                    if require { "refusing to run CUDA (LIGHTOS_REQUIRE=1)" } else { "running natively" };
                life::warn(&format!("{error}; {what}"));
                State::Native
            }
        };
        if PROFILED.load(Relaxed) {
            advise_profiler();
        }
    }
    match *state {
        State::Native if settings.require => Err(CuResult::SYSTEM_NOT_READY),
        _ => Ok(()),
    }
}

/// Whether `auto` may still leave the executor. One relaxed load.
#[inline]
pub fn is_open() -> bool {
    OPEN.load(Relaxed)
}

/// Something of the program comes to lie with the executor: the choice stands.
#[inline]
pub fn settle() {
    if is_open() {
        OPEN.store(false, Relaxed);
    }
}

/// Before a call of a program whose choice is open. True when the call, and all that follow, are the local driver's.
#[cold]
pub fn revise() -> bool {
    (NCCL.load(Relaxed) || PROFILED.load(Relaxed)) && go_local()
}

/// The program makes a context on `device`.
pub fn uses_device(device: i32) {
    if device != 0 && session::session().is_some() && !go_local() {
        advise("a second device");
    }
}

/// The program calls a function that `sidecar` refuses. True when the call is the local driver's.
pub fn meets_refusal(reason: Reason, function: &CStr) -> bool {
    let what = match reason {
        Reason::Peer | Reason::Ipc | Reason::Multicast | Reason::OtherDevice => "",
        Reason::ManagedVariables => " with managed variables",
        _ => return false,
    };
    let left = go_local();
    if !left {
        advise(&format!("{}{what}", function.to_string_lossy()));
    }
    left
}

/// The program asks CUPTI for records of the device. A choice that is open falls with the next call of the driver.
pub fn meets_profiler() {
    PROFILED.store(true, Relaxed);
    advise_profiler();
}

/// Says once why a profile of a program with an executor has no kernels.
fn advise_profiler() {
    static SAID: AtomicBool = AtomicBool::new(false);
    let Some(session) = session::session().filter(|_| !is_open()) else { return };
    session.pages().counters().count_reason(Reason::Profiler as usize);
    if !SAID.swap(true, Relaxed) {
        life::warn(
            "CUPTI sees no kernels of this program, because they run in LightOS's executor; run it with LIGHTOS_DISPATCH=local to profile it",
        );
    }
}

/// A look-up of a driver function by the code at `caller`. Runs inside the resolver: no allocation, no lock of ours.
pub fn notice_caller(caller: *const c_void) {
    if NCCL.load(Relaxed) {
        return;
    }
    let Some(library) = resolver::library_of(caller).filter(|library| !library.name.is_null()) else {
        return;
    };
    // SAFETY: the loader keeps the name while the library, whose code is running, is loaded.
    let path = unsafe { CStr::from_ptr(library.name) }.to_bytes();
    let file = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    if file.starts_with(b"libnccl") {
        NCCL.store(true, Relaxed);
    }
}

/// Leaves the executor for the local driver, if that is still possible. Without a sidecar for the local mode the program runs natively, as
/// it would have from the start.
fn go_local() -> bool {
    if OPEN.compare_exchange(true, false, Relaxed, Relaxed).is_err() {
        return false;
    }
    session::leave();
    if let Err(error) = local::begin() {
        life::warn(&format!("{error}; running natively"));
    }
    true
}

/// Says once what to do about a program that `sidecar` cannot carry.
fn advise(what: &str) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Relaxed) {
        life::warn(&format!(
            "{what} cannot be carried by the sidecar (one device, memory of its own); run this program with LIGHTOS_DISPATCH=local"
        ));
    }
}

/// Read at the first `cuInit`, because a program may set them itself for the ranks that it starts.
fn is_one_of_several_ranks() -> bool {
    RANK_COUNTS.iter().any(|name| std::env::var(name).is_ok_and(|text| says_several(&text)))
}

fn says_several(count: &str) -> bool {
    count.trim().parse::<u32>().is_ok_and(|count| count > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rank_is_not_several() {
        assert!(says_several("2") && says_several(" 16\n"));
        assert!(!says_several("1") && !says_several("0") && !says_several("") && !says_several("many"));
    }

    #[test]
    fn without_a_session_nothing_is_left_or_advised() {
        assert!(!is_open() && !revise());
        assert!(!meets_refusal(Reason::Batch, c"cuMemcpyBatchAsync"));
        uses_device(1);
    }
}
