//! Two processes map the same physical memory at the same address, and see one account of it.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use cuda::api::{copy, memory, memset, vmm};

use crate::support::{ok, primary};

const ARENA: u64 = 0x3000_0000_0000;
const ARENA_BYTES: usize = 1 << 40;
const BYTES: usize = 8 << 20;
const CHILD: &str = "SOFTGPU_TEST_SOCKET";

fn send_fd(socket: &UnixStream, fd: RawFd) {
    let mut control = [0u8; 32];
    let byte = [IoSlice::new(b"x")];
    // SAFETY: one control message with one descriptor, in a buffer that is large enough for it.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = byte.as_ptr() as *mut libc::iovec;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        assert_eq!(libc::sendmsg(socket.as_raw_fd(), &message, 0), 1);
    }
}

fn receive_fd(socket: &UnixStream) -> RawFd {
    let (mut control, mut byte) = ([0u8; 32], [0u8; 1]);
    let mut vector = [IoSliceMut::new(&mut byte)];
    // SAFETY: the counterpart of `send_fd`.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = vector.as_mut_ptr().cast();
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = control.len();
        assert_eq!(libc::recvmsg(socket.as_raw_fd(), &mut message, 0), 1);
        libc::CMSG_DATA(libc::CMSG_FIRSTHDR(&message)).cast::<RawFd>().read_unaligned()
    }
}

fn reserve_arena() {
    let mut start = 0;
    ok!(vmm::cuMemAddressReserve(&mut start, ARENA_BYTES, 0, ARENA, 0));
    assert_eq!(start, ARENA);
}

fn map(handle: u64) {
    let access = [1u32, 0, 3];
    ok!(vmm::cuMemMap(ARENA + BYTES as u64, BYTES, 0, handle, 0));
    ok!(vmm::cuMemSetAccess(ARENA + BYTES as u64, BYTES, access.as_ptr().cast(), 1));
}

/// The importing side: finds the exporter's bytes, writes its own, waits to be told to leave.
fn child(socket_fd: RawFd) {
    // SAFETY: the parent made this descriptor and passed its number; nothing else in this process owns it.
    let mut socket = unsafe { UnixStream::from_raw_fd(socket_fd) };
    primary();
    reserve_arena();
    let fd = receive_fd(&socket);
    let (mut handle, mut free, mut total, mut word) = (0, 0, 0, 0u32);
    ok!(vmm::cuMemImportFromShareableHandle(&mut handle, fd as usize as *mut _, 1));
    map(handle);
    ok!(copy::cuMemcpyDtoH_v2(&raw mut word as u64, ARENA + BYTES as u64 + 4096, 4));
    assert_eq!(word, 0x1234_5678);
    ok!(memset::cuMemsetD32_v2(ARENA + BYTES as u64, 0xabcd, 1));
    ok!(memory::cuMemGetInfo_v2(&mut free, &mut total));
    socket.write_all(&(total - free).to_le_bytes()).unwrap();
    let _ = socket.read(&mut [0]);
}

#[test]
fn memory_is_shared_at_the_same_address() {
    let name = "two_processes::memory_is_shared_at_the_same_address";
    if let Ok(fd) = std::env::var(CHILD) {
        return child(fd.parse().unwrap());
    }
    crate::support::in_own_process(name, || {
        primary();
        reserve_arena();
        let (mut handle, mut fd, mut free, mut total) = (0, -1, 0, 0);
        let prop = [1u64 | 1 << 32, 1, 0, 0];
        ok!(vmm::cuMemCreate(&mut handle, BYTES, prop.as_ptr().cast(), 0));
        map(handle);
        ok!(memset::cuMemsetD32_v2(ARENA + BYTES as u64, 0x1234_5678, BYTES / 4));
        ok!(vmm::cuMemExportToShareableHandle((&raw mut fd).cast(), handle, 1, 0));
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        // SAFETY: clears close-on-exec of a descriptor that lives until the child has started.
        assert_eq!(unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) }, 0);
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut process = command
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, theirs.as_raw_fd().to_string())
            .spawn()
            .unwrap();
        drop(theirs);
        send_fd(&ours, fd);
        let mut used = [0; 8];
        ours.read_exact(&mut used).unwrap();
        ok!(memory::cuMemGetInfo_v2(&mut free, &mut total));
        assert!(
            usize::from_le_bytes(used) >= BYTES,
            "the importer sees the exporter's memory in the account"
        );
        let mut word = 0u32;
        ok!(copy::cuMemcpyDtoH_v2(&raw mut word as u64, ARENA + BYTES as u64, 4));
        assert_eq!(word, 0xabcd);
        ours.write_all(&[0]).unwrap();
        assert!(process.wait().unwrap().success());
        // SAFETY: the exported descriptor is ours to close.
        unsafe { libc::close(fd) };
    });
}
