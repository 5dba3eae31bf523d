//! Hooks of the functions that share memory and events between processes.

use super::hooks;
use crate::edge::Out;
use crate::ops::event;
use crate::ops::ipc::{self, Handle};

hooks! {
    area ipc;
    fn cuIpcGetMemHandle(out: *mut Handle, address: u64) => ipc::export(Out::new(out), address);
    fn cuIpcOpenMemHandle(out: *mut u64, handle: Handle, flags: u32)
        => ipc::open(Out::new(out), handle, flags, |out| real::cuIpcOpenMemHandle(out, handle, flags));
    fn cuIpcOpenMemHandle_v2(out: *mut u64, handle: Handle, flags: u32)
        => ipc::open(Out::new(out), handle, flags, |out| real::cuIpcOpenMemHandle_v2(out, handle, flags));
    fn cuIpcCloseMemHandle(address: u64) => ipc::close(address);
    fn cuIpcGetEventHandle(out: *mut Handle, event: u64) => event::ipc_handle(Out::new(out), event);
    fn cuIpcOpenEventHandle(out: *mut u64, handle: Handle) => event::ipc_open(Out::new(out), handle);
}
