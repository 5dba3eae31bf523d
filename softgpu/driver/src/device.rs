//! The driver's life (before `cuInit`, ready, in a forked child) and the devices.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Once, OnceLock};

use lightos_softgpu_engine::profile::{self, Machine, Profile};
use lightos_softgpu_engine::state::State;

use crate::error::{Error, Result};

const BEFORE_INIT: u8 = 0;
const READY: u8 = 1;
/// CUDA does not survive fork: the child's every call answers NOT_INITIALIZED.
const FORKED: u8 = 2;

static LIFE: AtomicU8 = AtomicU8::new(BEFORE_INIT);
static STATE: OnceLock<&'static State> = OnceLock::new();

extern "C" fn in_forked_child() {
    if LIFE.load(Ordering::Relaxed) == READY {
        LIFE.store(FORKED, Ordering::Relaxed);
    }
}

/// `cuInit`.
pub fn init(flags: u32) -> Result {
    if LIFE.load(Ordering::Acquire) == FORKED {
        return Err(Error::NOT_INITIALIZED);
    }
    if flags != 0 {
        return Err(Error::INVALID_VALUE);
    }
    if Machine::get().device_count == 0 {
        return Err(Error::NO_DEVICE);
    }
    if STATE.get().is_none() {
        let _ = STATE.set(State::get().map_err(|_| Error::OPERATING_SYSTEM)?);
    }
    static AT_FORK: Once = Once::new();
    AT_FORK.call_once(|| {
        // SAFETY: the handler only stores an atomic, which is safe in a forked child.
        unsafe { libc::pthread_atfork(None, None, Some(in_forked_child)) };
    });
    LIFE.store(READY, Ordering::Release);
    crate::check::start();
    Ok(())
}

/// Succeeds between `cuInit` and fork.
pub fn ready() -> Result {
    if LIFE.load(Ordering::Acquire) == READY { Ok(()) } else { Err(Error::NOT_INITIALIZED) }
}

/// The shared accounting file; only reached after [`ready`].
pub fn state() -> &'static State {
    STATE.get().expect("every entry point checks that cuInit has run")
}

/// One device ordinal, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device(usize);

impl Device {
    pub fn new(ordinal: i32) -> Result<Device> {
        usize::try_from(ordinal)
            .ok()
            .filter(|ordinal| *ordinal < Machine::get().device_count)
            .map(Device)
            .ok_or(Error::INVALID_DEVICE)
    }

    pub fn all() -> impl Iterator<Item = Device> {
        (0..Machine::get().device_count).map(Device)
    }

    pub fn index(self) -> usize {
        self.0
    }

    pub fn ordinal(self) -> i32 {
        self.0 as i32
    }

    pub fn profile(self) -> &'static Profile {
        Machine::get().profile
    }

    pub fn total_bytes(self) -> u64 {
        Machine::get().memory_bytes
    }

    pub fn attribute(self, attribute: i32) -> Result<i32> {
        self.profile().attribute(attribute, self.0).ok_or(Error::INVALID_VALUE)
    }

    pub fn uuid(self) -> [u8; 16] {
        profile::uuid(self.profile(), self.0)
    }

    /// "domain:bus:device.function" as `cuDeviceGetPCIBusId` writes it.
    pub fn pci_bus_id(self) -> String {
        format!("0000:{:02X}:00.0", profile::pci_bus(self.0))
    }

    /// Takes memory of the device for this process; false when the device is full.
    pub fn reserve(self, bytes: u64) -> bool {
        state().reserve(self.0, bytes, self.total_bytes())
    }

    pub fn release(self, bytes: u64) {
        state().release(self.0, bytes);
    }

    pub fn free_bytes(self) -> u64 {
        self.total_bytes().saturating_sub(state().used_bytes(self.0))
    }
}
