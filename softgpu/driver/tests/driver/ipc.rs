//! Memory and events shared by IPC handles: one process exports, another opens.

use std::ffi::c_void;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use cuda::api::ipc::{self, EventHandle, MemHandle};
use cuda::api::{copy, event, memory, memset, stream};

use crate::support::{
    INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, NOT_READY, code, in_own_process, ok, primary,
};

const HANDLES: &str = "SOFTGPU_TEST_HANDLES";
const NAME: &str = "ipc::another_process_opens_what_was_exported";
const LARGE_BYTES: usize = 3 << 20;

fn text(handle: &MemHandle) -> String {
    // SAFETY: 64 bytes of plain data without padding.
    let bytes = unsafe { std::ptr::from_ref(handle).cast::<[u8; 64]>().read() };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse(text: &str) -> MemHandle {
    let bytes: Vec<u8> =
        (0..64).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
    // SAFETY: any bytes are a handle.
    unsafe { bytes.as_ptr().cast::<MemHandle>().read_unaligned() }
}

fn export(address: u64) -> MemHandle {
    let mut handle = parse(&"0".repeat(128));
    ok!(ipc::cuIpcGetMemHandle(&mut handle, address));
    handle
}

fn word(address: u64) -> u32 {
    let mut word = 0u32;
    ok!(copy::cuMemcpyDtoH_v2(&raw mut word as u64, address, 4));
    word
}

fn child(handles: &str) {
    primary();
    let handles: Vec<MemHandle> = handles.split(',').map(parse).collect();
    let (mut small, mut again, mut large, mut freed) = (0, 0, 0, 0);
    ok!(ipc::cuIpcOpenMemHandle_v2(&mut small, handles[0], 1));
    ok!(ipc::cuIpcOpenMemHandle_v2(&mut again, handles[0], 1));
    assert_eq!(small, again, "one mapping, opened twice");
    ok!(ipc::cuIpcOpenMemHandle_v2(&mut large, handles[1], 1));
    assert_eq!((word(small), word(large + LARGE_BYTES as u64 - 4)), (0x11, 0x22));
    ok!(memset::cuMemsetD32_v2(small + 4, 0x33, 1));
    ok!(memset::cuMemsetD32_v2(large + 8, 0x44, 1));
    assert_eq!(code!(memset::cuMemsetD8_v2(small, 0, 513)), INVALID_VALUE, "the neighbour is not shared");
    assert_eq!(code!(memory::cuMemFree_v2(small)), INVALID_VALUE, "not this process's");
    assert_eq!(code!(ipc::cuIpcOpenMemHandle_v2(&mut freed, handles[2], 1)), INVALID_VALUE);
    assert_eq!(code!(ipc::cuIpcOpenMemHandle_v2(&mut freed, handles[0], 0)), INVALID_VALUE, "flags");
    ok!(ipc::cuIpcCloseMemHandle(small));
    assert_eq!(word(small + 4), 0x33, "still open once");
    ok!(ipc::cuIpcCloseMemHandle(small));
    assert_eq!(code!(ipc::cuIpcCloseMemHandle(small)), INVALID_VALUE);
    assert_eq!(code!(memset::cuMemsetD8_v2(small, 0, 1)), INVALID_VALUE, "closed");
    ok!(ipc::cuIpcCloseMemHandle(large));
}

#[test]
fn another_process_opens_what_was_exported() {
    if let Ok(handles) = std::env::var(HANDLES) {
        return child(&handles);
    }
    in_own_process(NAME, || {
        primary();
        let (mut small, mut neighbour, mut large, mut freed) = (0, 0, 0, 0);
        ok!(memory::cuMemAlloc_v2(&mut small, 500));
        ok!(memory::cuMemAlloc_v2(&mut neighbour, 500));
        ok!(memory::cuMemAlloc_v2(&mut large, LARGE_BYTES));
        ok!(memory::cuMemAlloc_v2(&mut freed, LARGE_BYTES));
        ok!(memset::cuMemsetD32_v2(small, 0x11, 1));
        ok!(memset::cuMemsetD32_v2(neighbour, 0x55, 1));
        ok!(memset::cuMemsetD32_v2(large, 0x22, LARGE_BYTES / 4));
        let handles = [export(small + 100), export(large), export(freed)].map(|handle| text(&handle));
        assert_eq!(text(&export(small)), handles[0], "of the allocation, not of the address");
        ok!(memory::cuMemFree_v2(freed));
        let mut opened = 0;
        assert_eq!(code!(ipc::cuIpcOpenMemHandle_v2(&mut opened, parse(&handles[0]), 1)), INVALID_CONTEXT);
        let strange = format!("ff{}", &handles[0][2..]);
        assert_eq!(code!(ipc::cuIpcOpenMemHandle_v2(&mut opened, parse(&strange), 1)), INVALID_VALUE);
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(["--exact", NAME, "--nocapture"]).env(HANDLES, handles.join(","));
        assert!(other.status().unwrap().success());
        assert_eq!((word(small + 4), word(large + 8), word(neighbour)), (0x33, 0x44, 0x55));
        ok!(memory::cuMemFree_v2(small));
        ok!(memory::cuMemFree_v2(large));
    });
}

const EVENT: &str = "SOFTGPU_TEST_EVENT";
const EVENT_NAME: &str = "ipc::another_process_waits_for_an_event";
/// `CU_EVENT_DISABLE_TIMING`, `CU_EVENT_INTERPROCESS`.
const SHARED_EVENT: u32 = 2 | 4;

fn bytes_of(handle: &EventHandle) -> String {
    // SAFETY: 64 bytes of plain data without padding.
    text(unsafe { &*std::ptr::from_ref(handle).cast::<MemHandle>() })
}

fn event_of(text: &str) -> EventHandle {
    // SAFETY: any bytes are a handle.
    unsafe { std::ptr::from_ref(&parse(text)).cast::<EventHandle>().read() }
}

/// Finds the event not passed, puts work behind it, says so, and waits for that work.
fn waiting_child(handle: &str) {
    primary();
    let (mut event, mut own, mut stream) = (0, 0, 0);
    ok!(ipc::cuIpcOpenEventHandle(&mut event, event_of(handle)));
    assert_eq!(code!(event::cuEventQuery(event)), NOT_READY);
    ok!(stream::cuStreamCreate(&mut stream, 1));
    ok!(event::cuEventCreate(&mut own, 2));
    ok!(stream::cuStreamWaitEvent(stream, event, 0));
    ok!(event::cuEventRecord(own, stream));
    assert_eq!(code!(event::cuEventQuery(own)), NOT_READY);
    println!("waiting");
    ok!(event::cuEventSynchronize(event));
    ok!(stream::cuStreamSynchronize(stream));
    ok!(event::cuEventQuery(own));
    // Recorded here, it is passed there.
    ok!(event::cuEventRecord(event, stream));
    ok!(event::cuEventSynchronize(event));
}

#[test]
fn another_process_waits_for_an_event() {
    static RELEASED: AtomicBool = AtomicBool::new(false);
    unsafe extern "C" fn hold(_: *mut c_void) {
        while !RELEASED.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }
    if let Ok(handle) = std::env::var(EVENT) {
        return waiting_child(&handle);
    }
    in_own_process(EVENT_NAME, || {
        primary();
        let (mut shared, mut private, mut held) = (0, 0, 0);
        ok!(event::cuEventCreate(&mut shared, SHARED_EVENT));
        ok!(event::cuEventCreate(&mut private, 2));
        let mut handle = event_of(&"0".repeat(128));
        assert_eq!(code!(ipc::cuIpcGetEventHandle(&mut handle, private)), INVALID_HANDLE);
        assert_eq!(code!(ipc::cuIpcOpenEventHandle(&mut private, handle)), INVALID_VALUE);
        ok!(ipc::cuIpcGetEventHandle(&mut handle, shared));
        ok!(stream::cuStreamCreate(&mut held, 1));
        ok!(stream::cuLaunchHostFunc(held, Some(hold), std::ptr::null_mut()));
        ok!(event::cuEventRecord(shared, held));
        let mut other = Command::new(std::env::current_exe().unwrap());
        other.args(["--exact", EVENT_NAME, "--nocapture"]).env(EVENT, bytes_of(&handle));
        let mut other = other.stdout(Stdio::piped()).spawn().unwrap();
        // Kept open to the end: the other process goes on writing.
        let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().map_while(Result::ok).any(|line| line == "waiting"));
        assert_eq!(code!(event::cuEventQuery(shared)), NOT_READY);
        RELEASED.store(true, Ordering::Release);
        assert!(lines.all(|line| line.is_ok()) && other.wait().unwrap().success());
        ok!(event::cuEventQuery(shared));
        ok!(stream::cuStreamSynchronize(held));
    });
}
