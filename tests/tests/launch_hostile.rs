//! Programs that speak the protocol by hand: what no correct shim sends is answered with an error, never a crash.

use lightos_protocol::arena::DEVICE_ARENA_BASE;
use lightos_protocol::record::{CopyKind, GraphLaunch, Launch, MemOpKind, StreamValue, Timeline};
use lightos_protocol::request::{
    CopyDescriptor, GraphBody, GraphNode, GraphRequest, MemOp, ModuleRequest, NodeAttribute, NodePlace,
    Request, StreamRequest,
};
use lightos_tests::Sidecar;
use lightos_tests::raw::RawClient;
use lightos_tests::wait_until;
use std::time::Duration;

const INVALID_VALUE: u32 = 1;
const INVALID_HANDLE: u32 = 400;

fn client(sidecar: &Sidecar) -> RawClient {
    RawClient::connect(&sidecar.socket()).expect("a session")
}

fn error(client: &RawClient, request: Request) -> u32 {
    match client.call(&request).expect("the executor answers") {
        Err(error) => error,
        Ok(reply) => panic!("{request:?} was answered {reply:?}"),
    }
}

#[test]
fn unknown_handles_are_errors_of_the_call() {
    let sidecar = Sidecar::start();
    let client = client(&sidecar);
    let requests = [
        Request::Module(ModuleRequest::Unload { module: 1, library: false }),
        Request::Module(ModuleRequest::FunctionAttribute { function: 1, attribute: 8, value: 0 }),
        Request::Stream(StreamRequest::EventElapsed { start: 1, end: 2 }),
        Request::Stream(StreamRequest::EventQuery { event: 3 }),
        Request::Stream(StreamRequest::SetAttribute { stream: 7, attribute: 1, value: vec![0; 64] }),
        Request::Graph(GraphRequest::ExecDestroy { exec: 9 }),
        Request::Graph(GraphRequest::SetEnabled {
            exec: 9,
            place: NodePlace { graph: 0, node: 0 },
            enabled: true,
        }),
    ];
    for request in requests {
        assert_eq!(error(&client, request.clone()), INVALID_HANDLE, "{request:?}");
    }
    assert!(client.is_served(), "the session goes on");
}

#[test]
fn wrong_numbers_are_errors_of_the_call() {
    let sidecar = Sidecar::start();
    let client = client(&sidecar);
    let instantiate = |graphs| Request::Graph(GraphRequest::Instantiate { exec: 1, flags: u64::MAX, graphs });
    let body = |nodes, edges| GraphBody { nodes, edges, ports: vec![] };
    let requests = [
        Request::Stream(StreamRequest::SetAttribute { stream: 0, attribute: 77, value: vec![0; 64] }),
        Request::Stream(StreamRequest::SetAttribute { stream: 0, attribute: 1, value: vec![0; 3] }),
        instantiate(vec![]),
        instantiate(vec![body(vec![GraphNode::Empty], vec![(0, 5)])]),
        instantiate(vec![body(vec![GraphNode::Child { graph: 0 }], vec![])]),
        instantiate(vec![body(
            vec![GraphNode::Kernel {
                function: 1,
                grid: [1; 3],
                block: [1; 3],
                shared_bytes: 0,
                params: vec![],
                attributes: vec![NodeAttribute { id: 1, value: vec![0; 65] }],
            }],
            vec![],
        )]),
    ];
    for request in requests {
        assert_eq!(error(&client, request.clone()), INVALID_VALUE, "{request:?}");
    }
    assert!(client.is_served(), "the session goes on");
}

/// A graph that copies from, copies to or fills what is the executor's own would be a way into its process.
#[test]
fn a_graph_touches_the_programs_memory_alone() {
    let sidecar = Sidecar::start();
    let client = client(&sidecar);
    let (device, own) = (DEVICE_ARENA_BASE, 0x40_0000);
    let copy = |src, dst, kind: CopyKind| {
        let (pitch, rows) = (16, 1);
        GraphNode::Memcpy(CopyDescriptor {
            src,
            src_pitch: pitch,
            src_height: rows,
            dst,
            dst_pitch: pitch,
            dst_height: rows,
            width_bytes: 16,
            height: rows,
            depth: 1,
            kind: kind.into(),
            ..CopyDescriptor::default()
        })
    };
    let fill = |dst, width| GraphNode::Memset { dst, pitch: 0, value: 0, element_bytes: 4, width, height: 1 };
    let word = |kind, address| GraphNode::MemOps(vec![MemOp { kind, flags: 0, address, value: 1 }]);
    let nodes = [
        copy(own, device, CopyKind::HostToDevice),
        copy(device, own, CopyKind::DeviceToHost),
        copy(own, own, CopyKind::HostToHost),
        fill(own, 4),
        fill(device, u64::MAX / 2),
        word(MemOpKind::WriteValue32, own),
        word(MemOpKind::WaitValue64, u64::MAX - 3),
    ];
    for node in nodes {
        let graphs = vec![GraphBody { nodes: vec![node.clone()], ..GraphBody::default() }];
        let request = Request::Graph(GraphRequest::Instantiate { exec: 1, flags: 0, graphs });
        assert_eq!(error(&client, request), INVALID_VALUE, "{node:?}");
    }
    assert!(client.is_served(), "the session goes on");
}

#[test]
fn an_empty_graph_and_its_place_are_checked() {
    let sidecar = Sidecar::start();
    let client = client(&sidecar);
    let graphs = vec![GraphBody { nodes: vec![GraphNode::Empty], ..GraphBody::default() }];
    let made = client.call(&Request::Graph(GraphRequest::Instantiate { exec: 5, flags: 0, graphs }));
    assert!(matches!(made, Some(Ok(_))), "{made:?}");
    for place in [NodePlace { graph: 0, node: 1 }, NodePlace { graph: 1, node: 0 }] {
        let request = GraphRequest::SetNode { exec: 5, place, node: GraphNode::Empty };
        assert_eq!(error(&client, Request::Graph(request)), INVALID_HANDLE);
    }
    assert!(client.is_served());
}

/// What a record without a reply does wrong becomes the session's sticky error; the process lives on, so that others are served.
fn sticks(push: impl FnOnce(&RawClient)) -> u32 {
    let sidecar = Sidecar::start();
    let (client, other) = (client(&sidecar), client(&sidecar));
    push(&client);
    let status = client.pages.status();
    assert!(wait_until(Duration::from_secs(5), || status.sticky_error() != 0), "an error appears");
    assert!(other.is_served(), "another tenant is undisturbed");
    status.sticky_error()
}

#[test]
fn a_launch_of_nothing_known_sticks() {
    let launch = Launch { function: 0x1234, grid: [1; 3], block: [1; 3], ..Launch::default() };
    assert_eq!(sticks(|client| client.producer.send(&launch, 0, &[]).unwrap()), INVALID_HANDLE);
}

#[test]
fn a_graph_launch_of_nothing_known_sticks() {
    let launch = GraphLaunch { exec: 0x1234, stream: 0 };
    assert_eq!(sticks(|client| client.producer.send(&launch, 0, &[]).unwrap()), INVALID_HANDLE);
}

#[test]
fn an_operation_on_a_word_that_does_not_exist_sticks() {
    for operation in [0, 7, 8, u32::MAX] {
        let value = StreamValue { address: DEVICE_ARENA_BASE, operation, ..StreamValue::default() };
        assert_eq!(sticks(|client| client.producer.send(&value, 0, &[]).unwrap()), INVALID_VALUE);
    }
}

#[test]
fn timeline_words_outside_the_area_stick() {
    let mark = Timeline { slot: 1 << 20, value: 1, ..Timeline::default() };
    assert_eq!(sticks(|client| client.producer.send(&mark, 0, &[]).unwrap()), INVALID_VALUE);
}
