//! Memory and events shared between processes.

use crate::edge::{exports, put};
pub use crate::ipc::MemHandle;
pub use crate::ipc::word::EventHandle;
use crate::{event, ipc};

exports! { TABLE:
    entry cuIpcGetMemHandle: (handle: *mut MemHandle, address: u64) { put(handle, ipc::handle_of(address)?) }
    entry cuIpcOpenMemHandle_v2: (address: *mut u64, handle: MemHandle, flags: u32) {
        put(address, ipc::open(&handle, flags)?)
    }
    entry cuIpcOpenMemHandle: (address: *mut u64, handle: MemHandle, flags: u32) {
        put(address, ipc::open(&handle, flags)?)
    }
    entry cuIpcCloseMemHandle: (address: u64) { ipc::close(address) }
    entry cuIpcGetEventHandle: (handle: *mut EventHandle, event: u64) {
        put(handle, event::ipc_handle(&*event::find(event)?)?)
    }
    entry cuIpcOpenEventHandle: (event: *mut u64, handle: EventHandle) { put(event, event::open(&handle)?) }
}
