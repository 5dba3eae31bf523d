//! The memfds behind physical allocations. A file's name tells the importer the device and the side of the memory.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::device::Device;
use crate::error::{Error, Result};

const FILE_PREFIX: &str = "softgpu-memory-";

/// A new file of `bytes` zeros.
pub(super) fn create(device: Device, on_device: bool, bytes: u64) -> Result<OwnedFd> {
    let side = if on_device { "device" } else { "host" };
    let name = CString::new(format!("{FILE_PREFIX}{side}-{}", device.index())).map_err(|_| Error::UNKNOWN)?;
    // SAFETY: the name is a live C string.
    let open = || unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    let mut fd = open();
    if fd < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EMFILE) {
        raise_descriptor_limit();
        fd = open();
    }
    if fd < 0 {
        return Err(Error::OUT_OF_MEMORY);
    }
    // SAFETY: memfd_create returned a descriptor that nothing else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: ftruncate on a descriptor we own.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), bytes as libc::off_t) } != 0 {
        return Err(Error::OUT_OF_MEMORY);
    }
    Ok(fd)
}

/// Every physical allocation holds a descriptor, which a device driver's would not: the usual soft limit of 1024 is too low.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls use a live structure.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// A descriptor of our own for another process's allocation, with size, device and whether it is device memory. `fd` stays the
/// caller's; one that is no allocation of a software device is an invalid value.
pub(super) fn adopt(fd: RawFd) -> Result<(OwnedFd, u64, Device, bool)> {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).map_err(|_| Error::INVALID_VALUE)?;
    let name = link.to_string_lossy();
    let rest = name.strip_prefix("/memfd:").and_then(|name| name.strip_prefix(FILE_PREFIX));
    let (side, ordinal) = rest
        .and_then(|rest| rest.split_ascii_whitespace().next()?.split_once('-'))
        .ok_or(Error::INVALID_VALUE)?;
    let device = Device::new(ordinal.parse().map_err(|_| Error::INVALID_VALUE)?)?;
    // SAFETY: the descriptor is open, as the link read above shows; it is borrowed for this function alone.
    let theirs = unsafe { BorrowedFd::borrow_raw(fd) };
    let own = theirs.try_clone_to_owned().or_else(|_| {
        raise_descriptor_limit();
        theirs.try_clone_to_owned().map_err(|_| Error::OPERATING_SYSTEM)
    })?;
    let file = std::fs::File::from(own);
    let bytes = file.metadata().map_err(|_| Error::OPERATING_SYSTEM)?.len();
    Ok((file.into(), bytes, device, side == "device"))
}
