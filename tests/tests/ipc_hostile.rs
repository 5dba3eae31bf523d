//! Programs that ask for other programs' memory and events by hand: only who has a true handle gets anything, and nobody is disturbed.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use lightos_protocol::arena::{DEVICE_ARENA_BASE, DEVICE_ARENA_BYTES};
use lightos_protocol::control::FdMessage;
use lightos_protocol::request::ipc::IpcPlace;
use lightos_protocol::request::{IpcMemory, IpcRequest, MemoryRequest, Reply, Request, StreamRequest};
use lightos_tests::Sidecar;
use lightos_tests::raw::RawClient;

const INVALID_VALUE: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const INVALID_CONTEXT: u32 = 201;
const INVALID_HANDLE: u32 = 400;
const NOT_SUPPORTED: u32 = 801;
const PAGE: u64 = 2 << 20;
const BASE: u64 = DEVICE_ARENA_BASE;
/// Offers that a program may have at a time.
const MAX_OFFERS: usize = 512;
const FD_TIMEOUT: Duration = Duration::from_secs(5);

fn ask(client: &RawClient, request: IpcRequest) -> Result<Reply, u32> {
    client.call(&Request::Ipc(request)).expect("the executor answers")
}

fn memory(client: &RawClient, request: MemoryRequest) -> Result<Reply, u32> {
    client.call(&Request::Memory(request)).expect("the executor answers")
}

/// Receives the descriptor that the executor sent under `tag`: the inode of its file.
fn received(client: &RawClient, tag: u64) -> u64 {
    let (message, fds) = client.channel.recv::<FdMessage>(Some(FD_TIMEOUT)).expect("a descriptor comes");
    assert_eq!((message.tag, fds.len()), (tag, 1));
    File::from(fds.into_iter().next().unwrap()).metadata().unwrap().ino()
}

/// A slab of one page, and its file.
fn slab(client: &RawClient, address: u64, tag: u64) -> u64 {
    let request = MemoryRequest::SlabCreate { address, bytes: PAGE, device: 0, handle_tag: tag };
    assert_eq!(memory(client, request), Ok(Reply::Done));
    received(client, tag)
}

fn export(client: &RawClient, address: u64, bytes: u64) -> Result<IpcMemory, u32> {
    match ask(client, IpcRequest::Export { address, bytes })? {
        Reply::Bytes(handle) => {
            let memory = IpcMemory::from_handle(&handle.try_into().expect("a handle of 64 bytes"));
            Ok(memory.expect("a handle of ours"))
        }
        other => panic!("{other:?}"),
    }
}

fn open(client: &RawClient, memory: IpcMemory, address: u64, tag: u64) -> Result<Reply, u32> {
    ask(client, IpcRequest::Open { memory, address, tag })
}

#[test]
fn only_a_true_handle_opens_memory() {
    let sidecar = Sidecar::start();
    let [exporter, opener] = [(); 2].map(|()| RawClient::connect(&sidecar.socket()).unwrap());
    let file = slab(&exporter, BASE, 1);
    let not_exported: Result<IpcMemory, u32> = Err(INVALID_VALUE);
    let invalid: Result<Reply, u32> = Err(INVALID_VALUE);
    assert_eq!(export(&exporter, BASE - 1, 10), not_exported, "no slab");
    assert_eq!(export(&exporter, BASE + PAGE - 1, 2), not_exported, "beyond its end");
    assert_eq!(export(&exporter, BASE, 0), not_exported, "no bytes");
    assert_eq!(export(&exporter, u64::MAX, u64::MAX), not_exported);
    let true_one = export(&exporter, BASE + 512, 1000).unwrap();
    assert_eq!(true_one.place, IpcPlace { slab_bytes: PAGE, offset: 512, bytes: 1000 });

    assert_eq!(open(&exporter, true_one, BASE + 8 * PAGE, 2), Err(INVALID_CONTEXT), "one's own");
    for index in 0..16 {
        let mut forged = true_one;
        forged.token[index] ^= 0x40;
        assert_eq!(open(&opener, forged, BASE, 2), Err(INVALID_VALUE));
    }
    let place = |place| IpcMemory { place, ..true_one };
    let larger = IpcPlace { slab_bytes: 2 * PAGE, ..true_one.place };
    assert_eq!(open(&opener, place(larger), BASE, 2), invalid, "more than was offered");
    let wrapping = IpcPlace { offset: u64::MAX, ..true_one.place };
    assert_eq!(open(&opener, place(wrapping), BASE, 2), invalid);
    assert_eq!(open(&opener, true_one, BASE - PAGE, 2), invalid, "outside the arena");
    assert_eq!(open(&opener, true_one, BASE + DEVICE_ARENA_BYTES - 1, 2), invalid);
    assert!(open(&opener, true_one, BASE + 4096, 2).is_err(), "not a page");
    slab(&opener, BASE, 2);
    assert!(open(&opener, true_one, BASE, 3).is_err(), "taken");

    assert_eq!(open(&opener, true_one, BASE + PAGE, 4), Ok(Reply::Done));
    assert_eq!(received(&opener, 4), file, "the exporter's slab");
    let close = |client, address| ask(client, IpcRequest::Close { address });
    assert_eq!(close(&opener, BASE), invalid, "a slab of its own");
    assert_eq!(close(&opener, BASE + PAGE), Ok(Reply::Done));
    assert_eq!(close(&opener, BASE + PAGE), invalid);

    let withdraw = |client| ask(client, IpcRequest::Withdraw { token: true_one.token });
    assert_eq!(withdraw(&opener), Err(INVALID_VALUE), "not theirs");
    assert_eq!(withdraw(&exporter), Ok(Reply::Done));
    assert_eq!(open(&opener, true_one, BASE + PAGE, 5), Err(INVALID_VALUE), "freed");
    assert!(exporter.is_served() && opener.is_served());
}

#[test]
fn offers_end_with_their_program() {
    let sidecar = Sidecar::start();
    let [exporter, opener] = [(); 2].map(|()| RawClient::connect(&sidecar.socket()).unwrap());
    let file = slab(&exporter, BASE, 1);
    let offered = export(&exporter, BASE, PAGE).unwrap();
    assert_eq!(open(&opener, offered, BASE, 1), Ok(Reply::Done));
    assert_eq!(received(&opener, 1), file);
    let executors = sidecar.executors();
    drop(exporter);
    let gone = || sidecar.executors().len() < executors.len();
    assert!(lightos_tests::wait_until(Duration::from_secs(5), gone));
    let withdrawn = || open(&opener, offered, BASE + PAGE, 2) == Err(INVALID_VALUE);
    assert!(lightos_tests::wait_until(Duration::from_secs(5), withdrawn));
    assert_eq!(ask(&opener, IpcRequest::Close { address: BASE }), Ok(Reply::Done), "what is open stays");
}

#[test]
fn a_flood_of_offers_is_bounded_and_disturbs_nobody() {
    let sidecar = Sidecar::start();
    let [hostile, other] = [(); 2].map(|()| RawClient::connect(&sidecar.socket()).unwrap());
    slab(&hostile, BASE, 1);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).unwrap().count();
    let before = descriptors();
    let outcomes: Vec<_> = (0..MAX_OFFERS as u64 + 50).map(|at| export(&hostile, BASE + at, 1)).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), MAX_OFFERS);
    assert_eq!(outcomes.last(), Some(&Err(OUT_OF_MEMORY)));
    assert!(descriptors() <= before + MAX_OFFERS + 8);
    slab(&other, BASE, 1);
    let theirs = export(&other, BASE, 1000).expect("another program has a bound of its own");
    assert_eq!(open(&hostile, theirs, BASE + PAGE, 2), Ok(Reply::Done), "who has the handle may open");
    let first = outcomes[0].unwrap();
    assert_eq!(ask(&hostile, IpcRequest::Withdraw { token: first.token }), Ok(Reply::Done));
    assert!(export(&hostile, BASE, 1).is_ok(), "there is room for one again");
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served());
    drop(hostile);
    assert!(lightos_tests::wait_until(Duration::from_secs(5), || descriptors() <= before + 8));
}

#[test]
fn descriptors_that_are_no_memory_are_not_imported() {
    let sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    let import = |file: &File, handle: u64, tag: u64| {
        client.channel.send(&FdMessage { tag }, &[file.as_fd()]).expect("the descriptor is taken");
        memory(&client, MemoryRequest::VmmImport { handle, tag })
    };
    let export = |handle: u64, tag: u64| memory(&client, MemoryRequest::VmmExport { handle, tag });
    let null = File::open("/dev/null").unwrap();
    assert!(import(&null, 1, 1).is_err());
    let own: File = lightos_protocol::mapping::sealed_memfd("test", PAGE).unwrap().into();
    assert!(import(&own, 1, 2).is_err());
    assert_eq!(export(1, 3), Err(INVALID_VALUE), "nothing was imported");
    let create = |location_type| {
        let (bytes, location_id, flags, handle_types) = (PAGE, 0, 0, 0);
        let handle = 7;
        let tag = 4;
        let request =
            MemoryRequest::VmmCreate { handle, bytes, location_type, location_id, flags, handle_types, tag };
        memory(&client, request)
    };
    for location_type in [0, 4, 9, u32::MAX] {
        assert_eq!(create(location_type), Err(NOT_SUPPORTED), "memory nowhere");
    }
    assert_eq!(create(1), Ok(Reply::Done));
    let (_, fds) = client.channel.recv::<FdMessage>(Some(FD_TIMEOUT)).unwrap();
    let created = File::from(fds.into_iter().next().unwrap());
    assert_eq!(import(&created, 7, 5), Err(INVALID_VALUE), "a number twice");
    assert_eq!(import(&created, 8, 6), Ok(Reply::Done));
    assert_eq!(export(8, 7), Ok(Reply::Done));
    assert_eq!(received(&client, 7), created.metadata().unwrap().ino());
    assert!(client.is_served());
}

#[test]
fn events_are_opened_by_the_drivers_handles_alone() {
    let sidecar = Sidecar::start();
    let client = RawClient::connect(&sidecar.socket()).unwrap();
    let event_open = |event, bytes| ask(&client, IpcRequest::EventOpen { event, handle: vec![0x5a; bytes] });
    assert_eq!(event_open(8, 63), Err(INVALID_VALUE));
    assert_eq!(event_open(8, 65), Err(INVALID_VALUE));
    assert!(event_open(8, 64).is_err());
    assert_eq!(ask(&client, IpcRequest::EventHandle { event: 8 }), Err(INVALID_HANDLE), "was not opened");
    for (event, flags) in [(16, 2), (24, 6)] {
        let create = StreamRequest::EventCreate { event, flags };
        assert_eq!(client.call(&Request::Stream(create)), Some(Ok(Reply::Done)));
    }
    assert_eq!(ask(&client, IpcRequest::EventHandle { event: 16 }), Err(INVALID_HANDLE), "not shared");
    assert!(ask(&client, IpcRequest::EventHandle { event: 24 }).is_ok());
    let wait = |event, slot| ask(&client, IpcRequest::EventAwait { event, slot, value: 1 });
    assert_eq!(wait(32, 1), Err(INVALID_HANDLE));
    assert_eq!(wait(24, u32::MAX), Err(INVALID_VALUE), "a word that does not exist");
    assert_eq!(wait(24, 1), Ok(Reply::Done), "never recorded, so complete");
    assert!(client.pages.timeline().wait(1, 1, || client.channel.peer_gone()));
    assert!(client.is_served());
}
