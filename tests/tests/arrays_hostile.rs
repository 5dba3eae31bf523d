//! A program that speaks the protocol by hand about arrays and textures: wrong handles, foreign memory, and work that never ends.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use lightos_protocol::arena::{DEVICE_ARENA_BASE, HOST_ARENA_BASE};
use lightos_protocol::control::FdMessage;
use lightos_protocol::mapping::sealed_memfd;
use lightos_protocol::record::{CopyKind, MemOpKind, StreamValue};
use lightos_protocol::request::{
    ArrayDescriptor, ArrayPlace, ArrayRequest, CopyDescriptor, GraphBody, GraphNode, GraphRequest,
    MemoryRequest, ReferenceState, Reply, Request, ResourceDescriptor, StreamRequest, TextureDescriptor,
    TextureRequest,
};
use lightos_tests::raw::RawClient;
use lightos_tests::{Sidecar, wait_until};

const INVALID_VALUE: u32 = 1;
const INVALID_HANDLE: u32 = 400;
const BLOCK: u64 = 64 << 10;
/// An address in the executor's own program.
const OWN: u64 = 0x40_0000;

const BYTES: ArrayDescriptor =
    ArrayDescriptor { width: 64, height: 32, depth: 0, format: 1, channels: 1, flags: 2 };

fn client(sidecar: &Sidecar) -> RawClient {
    RawClient::connect(&sidecar.socket()).expect("a session")
}

fn ask(client: &RawClient, request: ArrayRequest) -> Result<Reply, u32> {
    client.call(&Request::Array(request)).expect("the executor answers")
}

fn texture(client: &RawClient, request: TextureRequest) -> Result<Reply, u32> {
    client.call(&Request::Texture(request)).expect("the executor answers")
}

/// A session with array 16 and a block of shared host memory.
fn with_array(sidecar: &Sidecar) -> (RawClient, File) {
    let client = client(sidecar);
    assert_eq!(ask(&client, ArrayRequest::Create { array: 16, descriptor: BYTES }), Ok(Reply::Done));
    let memory = sealed_memfd("test", BLOCK).expect("shared memory");
    client.channel.send(&FdMessage { tag: 1 }, &[memory.as_fd()]).expect("the descriptor is taken");
    let map = MemoryRequest::HostMap { address: HOST_ARENA_BASE, bytes: BLOCK, tag: 1, flags: 0 };
    assert_eq!(client.call(&Request::Memory(map)), Some(Ok(Reply::Done)));
    (client, memory.into())
}

fn place(array: u64) -> ArrayPlace {
    ArrayPlace { array, x_bytes: 0, y: 0, z: 0 }
}

/// From shared host memory to an array.
fn up(src: u64, array: u64) -> CopyDescriptor {
    CopyDescriptor {
        src,
        src_pitch: 64,
        src_height: 32,
        width_bytes: 64,
        height: 32,
        depth: 1,
        kind: CopyKind::HostToDevice.into(),
        dst_array: Some(place(array)),
        ..CopyDescriptor::default()
    }
}

fn copy(client: &RawClient, copy: CopyDescriptor) -> Result<Reply, u32> {
    ask(client, ArrayRequest::Copy { copy, stream: 0, release_slot: 0, release_value: 0 })
}

#[test]
fn unknown_handles_are_errors_of_the_call() {
    let sidecar = Sidecar::start();
    let client = client(&sidecar);
    for request in [
        ArrayRequest::Destroy { array: 7 },
        ArrayRequest::DestroyMipmapped { mipmapped: 7 },
        ArrayRequest::Level { array: 8, mipmapped: 7, level: 0 },
        ArrayRequest::Plane { array: 8, parent: 7, plane: 0 },
    ] {
        assert_eq!(ask(&client, request.clone()), Err(INVALID_HANDLE), "{request:?}");
    }
    let state = ReferenceState::FilterMode(77);
    for request in [
        TextureRequest::DestroyReference { reference: 7 },
        TextureRequest::SetReference { reference: 7, state },
        TextureRequest::SetSurfaceReference { reference: 7, array: 7, flags: 0 },
        TextureRequest::ModuleReference { reference: 7, module: 7, name: "image".into(), surface: false },
    ] {
        assert_eq!(texture(&client, request.clone()), Err(INVALID_HANDLE), "{request:?}");
    }
    for request in [TextureRequest::Destroy { object: 7 }, TextureRequest::DestroySurface { object: 7 }] {
        assert_eq!(texture(&client, request.clone()), Err(INVALID_VALUE), "{request:?}");
    }
    for request in [
        ArrayRequest::Create { array: 8, descriptor: ArrayDescriptor { format: 0x7777_7777, ..BYTES } },
        ArrayRequest::Create { array: 8, descriptor: ArrayDescriptor { width: u64::MAX, ..BYTES } },
        ArrayRequest::Create { array: 8, descriptor: ArrayDescriptor { flags: u32::MAX, ..BYTES } },
        ArrayRequest::CreateMipmapped {
            mipmapped: 8,
            descriptor: ArrayDescriptor { height: u64::MAX, ..BYTES },
            levels: u32::MAX,
        },
    ] {
        assert!(ask(&client, request.clone()).is_err(), "{request:?}");
    }
    assert!(client.is_served(), "the session goes on");
}

#[test]
fn copies_stay_in_arrays_and_shared_memory() {
    let sidecar = Sidecar::start();
    let (client, _memory) = with_array(&sidecar);
    let good = up(HOST_ARENA_BASE, 16);
    assert_eq!(copy(&client, good.clone()), Ok(Reply::Done));
    let device: u32 = CopyKind::DeviceToDevice.into();
    let moved = |x_bytes, y, z| Some(ArrayPlace { array: 16, x_bytes, y, z });
    let wrong = [
        ("the executor's own memory", up(OWN, 16)),
        ("that as the device's", CopyDescriptor { kind: device, ..up(OWN, 16) }),
        ("more than is shared", CopyDescriptor { src_pitch: BLOCK, ..good.clone() }),
        ("an extent that wraps", CopyDescriptor { src_pitch: u64::MAX, height: u64::MAX, ..good.clone() }),
        ("slices that wrap", CopyDescriptor { depth: u64::MAX, ..good.clone() }),
        ("an array on the host", CopyDescriptor { kind: CopyKind::HostToHost.into(), ..good.clone() }),
        ("a direction that does not exist", CopyDescriptor { kind: 9, ..good.clone() }),
        ("to the right of the array", CopyDescriptor { dst_array: moved(1, 0, 0), ..good.clone() }),
        ("below the array", CopyDescriptor { dst_array: moved(0, 1, 0), ..good.clone() }),
        ("behind the array", CopyDescriptor { dst_array: moved(0, 0, u64::MAX), ..good.clone() }),
    ];
    for (what, wrong) in wrong {
        assert_eq!(copy(&client, wrong.clone()), Err(INVALID_VALUE), "{what}");
        let graphs = vec![GraphBody { nodes: vec![GraphNode::Memcpy(wrong)], ..GraphBody::default() }];
        let graph = Request::Graph(GraphRequest::Instantiate { exec: 1, flags: 0, graphs });
        assert_eq!(client.call(&graph), Some(Err(INVALID_VALUE)), "{what}, in a graph");
    }
    assert_eq!(copy(&client, up(HOST_ARENA_BASE, 17)), Err(INVALID_HANDLE), "an array that does not exist");
    let timeline = ArrayRequest::Copy { copy: good, stream: 0, release_slot: 1 << 20, release_value: 1 };
    assert_eq!(ask(&client, timeline), Err(INVALID_VALUE), "a timeline word that does not exist");
    assert!(client.is_served());
}

#[test]
fn objects_name_arrays_that_exist_and_shapes_that_fit() {
    let sidecar = Sidecar::start();
    let (client, _memory) = with_array(&sidecar);
    let resource = |kind, first: &[u64]| {
        let mut words = [0; 16];
        words[..first.len()].copy_from_slice(first);
        ResourceDescriptor { kind, words, flags: 0 }
    };
    let create = |resource| {
        TextureRequest::Create(Box::new(TextureDescriptor { resource, texture: [0; 26], view: None }))
    };
    let bytes = 1 | 1 << 32;
    for (what, resource, error) in [
        ("an array that does not exist", resource(0, &[OWN]), INVALID_HANDLE),
        ("a mipmapped array that does not exist", resource(1, &[16]), INVALID_HANDLE),
        ("a size that wraps", resource(2, &[DEVICE_ARENA_BASE, bytes, u64::MAX]), INVALID_VALUE),
        ("rows that wrap", resource(3, &[HOST_ARENA_BASE, bytes, 64, u64::MAX, u64::MAX]), INVALID_VALUE),
        ("a width that wraps", resource(3, &[HOST_ARENA_BASE, 3 | 4 << 32, u64::MAX, 1, 512]), INVALID_VALUE),
        ("a kind that does not exist", resource(9, &[16]), INVALID_VALUE),
    ] {
        assert_eq!(texture(&client, create(resource)), Err(error), "texture: {what}");
        let surface = TextureRequest::CreateSurface { resource };
        assert!(texture(&client, surface).is_err(), "surface: {what}");
    }
    let Ok(Reply::U64(object)) = texture(&client, create(resource(0, &[16]))) else { panic!("no texture") };
    assert_eq!(texture(&client, TextureRequest::DestroySurface { object }), Err(INVALID_VALUE));
    assert_eq!(texture(&client, TextureRequest::Destroy { object }), Ok(Reply::Done));
    assert_eq!(texture(&client, TextureRequest::Destroy { object }), Err(INVALID_VALUE), "once");
    let plane = ArrayRequest::Plane { array: 16, parent: 16, plane: 0 };
    assert!(ask(&client, plane).is_err(), "an array is no part of itself");
    assert_eq!(ask(&client, ArrayRequest::Destroy { array: 16 }), Ok(Reply::Done));
    assert_eq!(texture(&client, create(resource(0, &[16]))), Err(INVALID_HANDLE), "it is gone");
    assert!(client.is_served());
}

#[test]
fn destruction_behind_endless_work_does_not_stop_the_ring() {
    let sidecar = Sidecar::start();
    let (client, memory) = with_array(&sidecar);
    let stream = Request::Stream(StreamRequest::Create { stream: 5, flags: 1, priority: 0 });
    assert_eq!(client.call(&stream), Some(Ok(Reply::Done)));
    // The stream waits for a word that nobody has written yet, and then writes another one.
    let wait = StreamValue {
        stream: 5,
        address: HOST_ARENA_BASE,
        value: 1,
        operation: MemOpKind::WaitValue32.into(),
        ..StreamValue::default()
    };
    client.producer.send(&wait, 0, &[]).unwrap();
    let write =
        StreamValue { address: HOST_ARENA_BASE + 64, operation: MemOpKind::WriteValue32.into(), ..wait };
    client.producer.send(&write, 0, &[]).unwrap();
    let mipmapped = ArrayRequest::CreateMipmapped { mipmapped: 32, descriptor: BYTES, levels: 3 };
    assert_eq!(ask(&client, mipmapped), Ok(Reply::Done));
    assert_eq!(ask(&client, ArrayRequest::Level { array: 48, mipmapped: 32, level: 1 }), Ok(Reply::Done));
    let begun = Instant::now();
    // A ring that stops goes on in time for the assertions to say so.
    let late = memory.try_clone().unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(10));
        let _ = late.write_all_at(&1_u32.to_ne_bytes(), 0);
    });
    assert_eq!(ask(&client, ArrayRequest::Destroy { array: 48 }), Err(INVALID_HANDLE), "a level");
    assert_eq!(ask(&client, ArrayRequest::DestroyMipmapped { mipmapped: 32 }), Ok(Reply::Done));
    assert_eq!(ask(&client, ArrayRequest::Destroy { array: 16 }), Ok(Reply::Done));
    for gone in [16, 48] {
        assert_eq!(copy(&client, up(HOST_ARENA_BASE, gone)), Err(INVALID_HANDLE), "gone at once");
    }
    // The same handles serve again while the first ones are still there.
    assert_eq!(ask(&client, ArrayRequest::Create { array: 16, descriptor: BYTES }), Ok(Reply::Done));
    assert!(client.is_served() && begun.elapsed() < Duration::from_secs(5));
    let word = |at| {
        let mut bytes = [0; 4];
        memory.read_exact_at(&mut bytes, at).unwrap();
        u32::from_ne_bytes(bytes)
    };
    assert_eq!(word(64), 0, "the device still waits");
    memory.write_all_at(&1_u32.to_ne_bytes(), 0).unwrap();
    assert!(wait_until(Duration::from_secs(5), || word(64) == 1), "the stream goes on");
    assert_eq!(copy(&client, up(HOST_ARENA_BASE, 16)), Ok(Reply::Done));
    assert!(client.is_served());
    assert_eq!(client.pages.status().sticky_error(), 0);
}
