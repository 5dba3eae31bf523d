//! Physical memory that processes share by file descriptors (cuMemExportToShareableHandle, cuMemImportFromShareableHandle).
//!
//! A descriptor is the driver's, whether the executor made it or a native process, so both kinds can be imported by both. It is imported
//! twice: here, where the local driver judges it, and in the executor; mapping then goes as for memory that was created.

use std::ffi::c_void;
use std::os::fd::{BorrowedFd, IntoRawFd};

use lightos_protocol::request::{MemoryRequest, Request};

use super::{FABRIC, Physical, Properties, driver_properties, next_number, refusal, state};
use crate::edge::Out;
use crate::ops::capture;
use crate::ops::memory::sidecar;
use crate::ops::memory::slabs::POSIX_FD;
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;

/// cuMemExportToShareableHandle, by the executor, whose memory it is. Memory that the program did not ask to be exportable is not.
pub fn export(out: Out<c_void>, handle: u64, kind: u32, flags: u64) -> Result<Outcome, CuResult> {
    let state = state();
    // The local driver knows as little of the handle and says so.
    let Some(number) = state.number(handle) else { return Ok(Outcome::PassThrough(Reason::InvalidArgument)) };
    let asked = state.allocations.get(&number).map_or(0, |physical| physical.handle_types);
    drop(state);
    match kind {
        POSIX_FD => {}
        FABRIC if asked & FABRIC != 0 => return Ok(Outcome::Refuse(Reason::VmmKind)),
        _ => return Err(CuResult::INVALID_VALUE),
    }
    let out = out.cast::<i32>().required()?;
    if flags != 0 || asked & POSIX_FD == 0 {
        return Err(CuResult::INVALID_VALUE);
    }
    let session = sidecar()?;
    let tag = session.next_tag();
    let request = MemoryRequest::VmmExport { handle: number, tag };
    let (_, fd) = session.call_for_fd(&Request::Memory(request), tag)?;
    out.put(fd.into_raw_fd());
    Ok(Outcome::Done)
}

/// cuMemImportFromShareableHandle. The descriptor stays the program's.
pub fn import(out: Out<u64>, os_handle: *mut c_void, kind: u32) -> Result<Outcome, CuResult> {
    match kind {
        POSIX_FD => {}
        FABRIC => return Ok(Outcome::Refuse(Reason::VmmKind)),
        // Of another operating system.
        _ => return Ok(Outcome::PassThrough(Reason::InvalidArgument)),
    }
    let out = out.required()?;
    let mut handle = 0;
    // SAFETY: the program's own descriptor in place of a pointer, which the driver judges; `handle` is a valid out-pointer.
    capture::relaxed(|| unsafe { real::cuMemImportFromShareableHandle(&mut handle, os_handle, kind) }.ok())?;
    let mut state = state();
    // A driver may know memory again that this process already has; the handle then has one more reference.
    let again = state.number(handle).and_then(|number| state.allocations.get_mut(&number));
    if let Some(physical) = again {
        physical.references += 1;
        out.put(handle);
        return Ok(Outcome::Done);
    }
    let adopted = driver_properties(handle).and_then(|found| match refusal(found.location) {
        Some(reason) => Ok(Err(reason)),
        None => share(os_handle.addr() as i32).map(|number| Ok((number, found))),
    });
    match adopted {
        Ok(Ok((number, found))) => {
            let Properties { handle_types, location, .. } = found;
            // Not charged to this program: the memory is the exporter's.
            let physical = Physical { bytes: 0, handle, references: 1, mappings: 0, handle_types, location };
            state.add(number, physical);
            out.put(handle);
            Ok(Outcome::Done)
        }
        Ok(Err(reason)) => {
            release(handle);
            Ok(Outcome::Refuse(reason))
        }
        Err(error) => {
            release(handle);
            Err(error)
        }
    }
}

/// Has the executor import the descriptor as well; the number of the allocation.
fn share(fd: i32) -> Result<u64, CuResult> {
    let session = sidecar()?;
    let (number, tag) = (next_number(), session.next_tag());
    // SAFETY: the local driver has just imported the descriptor, so it is open, and the program keeps it so during its call.
    session.send_fd(tag, unsafe { BorrowedFd::borrow_raw(fd) })?;
    session.call(&Request::Memory(MemoryRequest::VmmImport { handle: number, tag }))?;
    Ok(number)
}

fn release(handle: u64) {
    // SAFETY: the reference that the import has just given.
    let _ = unsafe { real::cuMemRelease(handle) };
}
