//! A program that asks the executor for memory it must not have: refused by name of the error, and nobody is disturbed.

use std::fs::File;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Duration;

use lightos_protocol::arena::{DEVICE_ARENA_BASE, DEVICE_ARENA_BYTES, HOST_ARENA_BASE, HOST_ARENA_BYTES};
use lightos_protocol::control::FdMessage;
use lightos_protocol::mapping::sealed_memfd;
use lightos_protocol::record::{CopyKind, Memcpy, Memcpy2D, MemcpyInline, Memset};
use lightos_protocol::request::{MemoryRequest, Reply, Request};
use lightos_tests::raw::RawClient;
use lightos_tests::{Sidecar, wait_until};

const INVALID_VALUE: u32 = 1;
const PAGE: u64 = 2 << 20;
const BLOCK: u64 = 64 << 10;

fn ask(client: &RawClient, request: MemoryRequest) -> Result<Reply, u32> {
    client.call(&Request::Memory(request)).expect("the executor answers")
}

fn slab(client: &RawClient, address: u64, bytes: u64, tag: u64) -> Result<Reply, u32> {
    ask(client, MemoryRequest::SlabCreate { address, bytes, device: 0, handle_tag: tag })
}

fn host(client: &RawClient, fd: &OwnedFd, address: u64, bytes: u64, tag: u64) -> Result<Reply, u32> {
    client.channel.send(&FdMessage { tag }, &[fd.as_fd()]).expect("the descriptor is taken");
    ask(client, MemoryRequest::HostMap { address, bytes, tag, flags: 0 })
}

#[test]
fn slabs_stay_in_the_arena() {
    let sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    let invalid = Err(INVALID_VALUE);
    assert_eq!(slab(&client, DEVICE_ARENA_BASE - PAGE, PAGE, 1), invalid);
    assert_eq!(slab(&client, DEVICE_ARENA_BASE + DEVICE_ARENA_BYTES - PAGE, 2 * PAGE, 2), invalid);
    assert_eq!(slab(&client, DEVICE_ARENA_BASE, u64::MAX - PAGE + 1, 3), invalid);
    assert_eq!(slab(&client, DEVICE_ARENA_BASE, 0, 4), invalid);
    assert_eq!(slab(&client, DEVICE_ARENA_BASE, 4096, 5), invalid, "not a page");
    assert_eq!(slab(&client, DEVICE_ARENA_BASE, PAGE, 6), Ok(Reply::Done));
    assert!(slab(&client, DEVICE_ARENA_BASE, PAGE, 7).is_err(), "taken");
    let destroy = |address, bytes| ask(&client, MemoryRequest::SlabDestroy { address, bytes });
    assert_eq!(destroy(DEVICE_ARENA_BASE, 2 * PAGE), invalid);
    assert_eq!(destroy(DEVICE_ARENA_BASE + PAGE, PAGE), invalid);
    assert_eq!(destroy(DEVICE_ARENA_BASE, PAGE), Ok(Reply::Done));
    assert_eq!(destroy(DEVICE_ARENA_BASE, PAGE), invalid);
    let map = MemoryRequest::VmmMap { address: DEVICE_ARENA_BASE, bytes: PAGE, offset: 0, handle: 77 };
    assert_eq!(ask(&client, map), invalid, "an allocation that does not exist");
    let unmap = MemoryRequest::VmmUnmap { address: 0x7fff_0000_0000, bytes: PAGE };
    assert_eq!(ask(&client, unmap), invalid);
    assert!(client.is_served());
}

#[test]
fn host_memory_stays_in_the_arena_and_keeps_its_size() {
    let sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    let sealed = sealed_memfd("test", BLOCK).unwrap();
    // SAFETY: a C string; the descriptor returned is nobody else's.
    let open = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"open".as_ptr(), libc::MFD_CLOEXEC)) };
    let open: OwnedFd = {
        let file = File::from(open);
        file.set_len(BLOCK).unwrap();
        file.into()
    };
    let file: OwnedFd = File::open("/proc/self/exe").unwrap().into();
    let invalid = Err(INVALID_VALUE);
    assert_eq!(host(&client, &open, HOST_ARENA_BASE, BLOCK, 1), invalid, "it could shrink under a copy");
    assert_eq!(host(&client, &file, HOST_ARENA_BASE, BLOCK, 2), invalid);
    assert_eq!(host(&client, &sealed, HOST_ARENA_BASE, 2 * BLOCK, 3), invalid, "shorter than claimed");
    assert_eq!(host(&client, &sealed, HOST_ARENA_BASE + 4096, BLOCK, 4), invalid);
    assert_eq!(host(&client, &sealed, HOST_ARENA_BASE + HOST_ARENA_BYTES, BLOCK, 5), invalid);
    assert_eq!(host(&client, &sealed, 0x7fff_0000_0000, BLOCK, 6), invalid);
    assert_eq!(host(&client, &sealed, u64::MAX - BLOCK + 1, BLOCK, 7), invalid);
    assert_eq!(host(&client, &sealed, HOST_ARENA_BASE, BLOCK, 8), Ok(Reply::Done));
    assert_eq!(host(&client, &sealed, HOST_ARENA_BASE, BLOCK, 9), invalid, "taken");
    let unmap = |address, bytes| ask(&client, MemoryRequest::HostUnmap { address, bytes });
    assert_eq!(unmap(HOST_ARENA_BASE, 2 * BLOCK), invalid);
    assert_eq!(unmap(HOST_ARENA_BASE, BLOCK), Ok(Reply::Done));
    assert_eq!(host(&client, &sealed, HOST_ARENA_BASE, BLOCK, 10), Ok(Reply::Done), "free again");
    assert!(client.is_served());
}

#[test]
fn registered_memory_replaces_nothing_of_the_executors() {
    let sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    let share = |address: u64, bytes: u64, tag: u64| {
        let fd = sealed_memfd("test", BLOCK).unwrap();
        client.channel.send(&FdMessage { tag }, &[fd.as_fd()]).expect("the descriptor is taken");
        ask(&client, MemoryRequest::HostShare { address, bytes, tag, flags: 0 })
    };
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", sidecar.executors()[0])).unwrap();
    let mapped = |line: &str| line.split('-').next().and_then(|from| u64::from_str_radix(from, 16).ok());
    let not_supported = Err(801);
    for (index, line) in maps.lines().filter(|line| !line.contains("[vsyscall]")).enumerate() {
        assert_eq!(share(mapped(line).unwrap(), 4096, index as u64 + 1), not_supported, "{line}");
    }
    let invalid = Err(INVALID_VALUE);
    assert_eq!(share(0, 4096, 10_001), invalid);
    assert_eq!(share(0x1234_5000_0000 + 1, 4096, 10_002), invalid, "not a page");
    assert_eq!(share(0x1234_5000_0000, 2 * BLOCK, 10_003), invalid, "shorter than claimed");
    assert_eq!(share(u64::MAX - 4095, 4096, 10_004), invalid);
    assert_eq!(share((1 << 47) - 4096, 8192, 10_005), invalid);
    assert_eq!(share(0x1234_5000_0000, BLOCK, 10_006), Ok(Reply::Done));
    assert_eq!(share(0x1234_5000_0000, BLOCK, 10_007), not_supported, "taken");
    let unshare = |address| ask(&client, MemoryRequest::HostUnshare { address });
    assert_eq!(unshare(0x1234_5000_0000 + 4096), invalid);
    assert_eq!(unshare(0x1234_5000_0000), Ok(Reply::Done));
    assert_eq!(unshare(0x1234_5000_0000), invalid);
    assert!(client.is_served());
}

/// Pushes a record and expects that it loses the session of this tenant alone.
fn is_refused(what: &str, push: impl FnOnce(&RawClient)) {
    let sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    assert_eq!(slab(&client, DEVICE_ARENA_BASE, PAGE, 1), Ok(Reply::Done));
    let sealed = sealed_memfd("test", BLOCK).unwrap();
    assert_eq!(host(&client, &sealed, HOST_ARENA_BASE, BLOCK, 2), Ok(Reply::Done));
    push(&client);
    let lost = || client.pages.status().sticky_error() == INVALID_VALUE;
    assert!(wait_until(Duration::from_secs(2), lost), "{what} is carried out\n{}", sidecar.log());
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served(), "{what}");
}

#[test]
fn copies_name_shared_memory_only() {
    // An address inside the executor's own program or stack would be the most valuable one to read.
    let own = 0x7fff_0000_0000;
    let down = CopyKind::DeviceToHost as u32;
    let up = CopyKind::HostToDevice as u32;
    let across = CopyKind::HostToHost as u32;
    let copy = |dst, src, bytes, kind| Memcpy { dst, src, bytes, kind, ..Memcpy::default() };
    for (what, record) in [
        ("a source in the executor", copy(DEVICE_ARENA_BASE, own, 8, up)),
        ("a destination in the executor", copy(own, DEVICE_ARENA_BASE, 8, down)),
        ("more than is shared", copy(DEVICE_ARENA_BASE, HOST_ARENA_BASE, BLOCK + 1, up)),
        ("a length that wraps", copy(HOST_ARENA_BASE, DEVICE_ARENA_BASE, u64::MAX, down)),
        ("a host address as the device's", copy(own, HOST_ARENA_BASE, 8, up)),
        ("host to host outside", copy(HOST_ARENA_BASE, own, 8, across)),
        ("a direction that does not exist", copy(DEVICE_ARENA_BASE, HOST_ARENA_BASE, 8, 9)),
    ] {
        is_refused(what, |client| client.producer.send(&record, 0, &[]).unwrap());
    }
}

#[test]
fn pitched_copies_fills_and_inline_bytes_stay_inside() {
    let pitched = Memcpy2D {
        dst: DEVICE_ARENA_BASE,
        dst_pitch: 64,
        src: HOST_ARENA_BASE,
        src_pitch: BLOCK,
        width_bytes: 64,
        height: 2,
        kind: CopyKind::HostToDevice as u32,
        ..Memcpy2D::default()
    };
    is_refused("rows beyond the block", |client| client.producer.send(&pitched, 0, &[]).unwrap());
    let wide = Memcpy2D { src_pitch: u64::MAX, height: u64::MAX, ..pitched };
    is_refused("an extent that wraps", |client| client.producer.send(&wide, 0, &[]).unwrap());
    let fill = Memset { dst: 0x7fff_0000_0000, element_bytes: 1, width: 8, height: 1, ..Memset::default() };
    is_refused("a fill of the executor", |client| client.producer.send(&fill, 0, &[]).unwrap());
    let odd = Memset { dst: DEVICE_ARENA_BASE, element_bytes: 3, ..fill };
    is_refused("elements of three bytes", |client| client.producer.send(&odd, 0, &[]).unwrap());
    let inline = MemcpyInline { dst: 0x7fff_0000_0000, bytes: 8, ..MemcpyInline::default() };
    is_refused("bytes for the executor", |client| client.producer.send(&inline, 0, &[&[0; 8]]).unwrap());
}
