//! Reservations and mappings at chosen addresses.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use lightos_protocol::arena::{HOST_ARENA_BASE, HOST_ARENA_BYTES, HOST_PAGE_BYTES, is_shared_host_range};
use lightos_protocol::mapping::{Access, Piece, Reservation, SharedMapping, sealed_bytes, sealed_memfd};

/// One test owns the host arena: tests of this file run as threads of one process.
#[test]
fn the_host_arena_is_reserved_once_and_filled_piecewise() {
    let arena = Reservation::fixed(HOST_ARENA_BASE, HOST_ARENA_BYTES).unwrap();
    assert_eq!((arena.address(), arena.bytes()), (HOST_ARENA_BASE, HOST_ARENA_BYTES));
    assert!(Reservation::fixed(HOST_ARENA_BASE + (1 << 30), 4096).is_err(), "taken twice");

    let fd = sealed_memfd("arena", 2 * HOST_PAGE_BYTES).unwrap();
    let offset = 5 << 30;
    let address = arena.map(offset, fd.as_fd(), 0, 2 * HOST_PAGE_BYTES, Access::ReadWrite).unwrap();
    assert_eq!(address, HOST_ARENA_BASE + offset);
    assert!(is_shared_host_range(address, 2 * HOST_PAGE_BYTES));
    let elsewhere = SharedMapping::whole(&fd, 2 * HOST_PAGE_BYTES).unwrap();
    // SAFETY: mapped readable and writable just above, aligned, and nothing unmaps it before the last use.
    let word = unsafe { &*std::ptr::with_exposed_provenance::<AtomicU32>(address as usize) };
    word.store(41, Ordering::Relaxed);
    assert_eq!(elsewhere.view::<AtomicU32>(0).unwrap().load(Ordering::Relaxed), 41);

    arena.unmap(offset, 2 * HOST_PAGE_BYTES).unwrap();
    assert!(Reservation::fixed(address, HOST_PAGE_BYTES).is_err(), "unmapped, yet still reserved");
    assert!(arena.map(HOST_ARENA_BYTES - 4096, fd.as_fd(), 0, HOST_PAGE_BYTES, Access::ReadOnly).is_err());
    assert!(arena.map(u64::MAX, fd.as_fd(), 0, HOST_PAGE_BYTES, Access::ReadOnly).is_err());
    assert!(arena.unmap(0, 0).is_err());
    assert!(arena.contains(address, 4096) && !arena.contains(address, HOST_ARENA_BYTES));
    drop(arena);
    Reservation::fixed(HOST_ARENA_BASE, HOST_ARENA_BYTES).unwrap();
}

#[test]
fn pieces_of_a_file_may_appear_twice() {
    let fd = sealed_memfd("twice", 2 * HOST_PAGE_BYTES).unwrap();
    let data = Piece { file_offset: HOST_PAGE_BYTES, bytes: HOST_PAGE_BYTES };
    let mapping = SharedMapping::map(&fd, &[data, data]).unwrap();
    mapping.view::<AtomicU64>(8).unwrap().store(7, Ordering::Relaxed);
    let again = mapping.view::<AtomicU64>(HOST_PAGE_BYTES as usize + 8).unwrap();
    assert_eq!(again.load(Ordering::Relaxed), 7);
}

#[test]
fn views_are_bounded_and_aligned() {
    let fd = sealed_memfd("views", HOST_PAGE_BYTES).unwrap();
    let mapping = SharedMapping::whole(&fd, HOST_PAGE_BYTES).unwrap();
    let end = HOST_PAGE_BYTES as usize;
    assert!(mapping.view::<AtomicU64>(end - 8).is_some());
    for offset in [end - 4, end, usize::MAX, 4] {
        assert!(mapping.view::<AtomicU64>(offset).is_none(), "{offset}");
    }
    assert_eq!(mapping.slice::<AtomicU32>(0, end / 4).map(<[_]>::len), Some(end / 4));
    assert!(mapping.slice::<AtomicU32>(4, end / 4).is_none());
    assert!(mapping.slice::<AtomicU64>(0, usize::MAX).is_none());
}

#[test]
fn sealed_files_keep_their_size_and_others_are_refused() {
    let fd = sealed_memfd("sealed", HOST_PAGE_BYTES).unwrap();
    assert_eq!(sealed_bytes(fd.as_fd()).unwrap(), HOST_PAGE_BYTES);
    assert!(rustix::fs::ftruncate(&fd, 0).is_err());
    assert!(rustix::fs::ftruncate(&fd, 2 * HOST_PAGE_BYTES).is_err());
    let beyond = Piece { file_offset: HOST_PAGE_BYTES, bytes: HOST_PAGE_BYTES };
    assert!(SharedMapping::map(&fd, &[beyond]).is_err());
    let overflow = Piece { file_offset: u64::MAX - 4096, bytes: HOST_PAGE_BYTES };
    assert!(SharedMapping::map(&fd, &[overflow]).is_err());
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let loose = rustix::fs::memfd_create("loose", flags).unwrap();
    rustix::fs::ftruncate(&loose, HOST_PAGE_BYTES).unwrap();
    assert!(sealed_bytes(loose.as_fd()).is_err(), "not sealed");
    assert!(sealed_bytes(tempfile::tempfile().unwrap().as_fd()).is_err(), "not a memfd");
    assert!(sealed_bytes(std::io::stdin().as_fd()).is_err(), "not a file");
}
