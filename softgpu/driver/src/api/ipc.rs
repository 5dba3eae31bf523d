//! Memory shared between processes.

use crate::edge::{exports, put};
use crate::ipc;
pub use crate::ipc::MemHandle;

exports! { TABLE:
    entry cuIpcGetMemHandle: (handle: *mut MemHandle, address: u64) { put(handle, ipc::handle_of(address)?) }
    entry cuIpcOpenMemHandle_v2: (address: *mut u64, handle: MemHandle, flags: u32) {
        put(address, ipc::open(&handle, flags)?)
    }
    entry cuIpcOpenMemHandle: (address: *mut u64, handle: MemHandle, flags: u32) {
        put(address, ipc::open(&handle, flags)?)
    }
    entry cuIpcCloseMemHandle: (address: u64) { ipc::close(address) }
}
