//! A whole session between two processes: the child plays the shim, this process plays daemon and executor.
//!
//! The child is this test binary again, told by an environment variable to be the client.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lightos_protocol::codec;
use lightos_protocol::control::{
    FdMessage, HELLO_FD_PAGES, HELLO_FD_RING, HELLO_FDS, Hello, HelloReply, Opening, Purpose, Welcome,
};
use lightos_protocol::mapping::{SharedMapping, sealed_memfd};
use lightos_protocol::pages::{ExecutorState, Outcome, SessionPages};
use lightos_protocol::record::{Op, RecordHeader, Timeline, read_exact};
use lightos_protocol::request::{MemoryRequest, Reply, Request};
use lightos_protocol::ring::{Consumer, MIN_CAPACITY_BYTES, Producer, PushError, RingMemory};
use lightos_protocol::socket::{Channel, FdInbox};

const SOCKET: &str = "LIGHTOS_TEST_SESSION_SOCKET";
const LONG: Duration = Duration::from_secs(20);
const RECORDS: u32 = 20_000;

struct Session {
    channel: Channel,
    pages: SessionPages,
    consumer: Consumer,
    hello: Hello,
    child: Child,
}

/// Starts a client with the given behaviour and completes the handshake.
fn start(role: &str) -> Session {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", role, "--nocapture", "--ignored", "--quiet"])
        .stdout(std::process::Stdio::null())
        .env(SOCKET, &path)
        .spawn()
        .unwrap();
    let channel = Channel::from(listener.accept().unwrap().0);
    assert_eq!(channel.peer_credentials().unwrap().pid as u32, child.id());
    let (frame, fds) = channel.recv_frame(Some(LONG)).unwrap();
    let Purpose::Client(hello) = Opening::decode(&frame).unwrap().purpose else { panic!("not a client") };
    assert_eq!(fds.len(), HELLO_FDS);
    let mut fds: Vec<_> = fds.into_iter().map(Some).collect();
    let pages = SessionPages::open(fds[HELLO_FD_PAGES].take().unwrap()).unwrap();
    let consumer = Consumer::new(RingMemory::open(fds[HELLO_FD_RING].take().unwrap()).unwrap());
    pages.status().set_executor_state(ExecutorState::Ready);
    channel.send(&HelloReply::Welcome(Welcome { tenant_id: 1, ..Welcome::default() }), &[]).unwrap();
    Session { channel, pages, consumer, hello, child }
}

/// The client's side of the handshake.
fn connect() -> (Arc<Channel>, SessionPages, Producer) {
    let channel = Arc::new(Channel::connect(Path::new(&std::env::var_os(SOCKET).unwrap())).unwrap());
    let (pages, pages_fd) = SessionPages::create().unwrap();
    let (ring, ring_fd) = RingMemory::create(MIN_CAPACITY_BYTES).unwrap();
    let hello = Hello { pid: std::process::id(), hooks: vec!["cuInit".into()], ..Hello::default() };
    let opening = Opening::new(Purpose::Client(hello));
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let fds = [pages_fd.as_fd(), ring_fd.as_fd(), stdout.as_fd(), stderr.as_fd()];
    channel.send(&opening, &fds).unwrap();
    let (HelloReply::Welcome(_), _) = channel.recv(Some(LONG)).unwrap() else { panic!("refused") };
    assert_eq!(pages.status().wait_while_starting(LONG), ExecutorState::Ready);
    let watched = Arc::clone(&channel);
    (channel, pages, Producer::with_abort(ring, move || watched.peer_gone()))
}

#[test]
#[ignore = "run by a_session_carries_calls_answers_and_descriptors as a child process"]
fn client_that_works() {
    let (channel, pages, producer) = connect();
    for index in 0..RECORDS {
        producer.push(Op::Memset.into(), 0, &[&index.to_ne_bytes()]).unwrap();
    }
    pages.counters().count(0, Outcome::Forwarded);

    let request =
        MemoryRequest::SlabCreate { address: 0x3000_0000_0000, bytes: 65_536, device: 0, handle_tag: 5 };
    let ticket = pages.replies().claim(|| false).unwrap();
    let header = RecordHeader { op: Op::Cold.into(), reply: ticket.reply(), ..RecordHeader::default() };
    producer.push_record(header, &codec::encode(&Request::Memory(request)).unwrap(), &[]).unwrap();
    let answer = ticket.wait(|| channel.peer_gone()).expect("no answer");
    assert_eq!((answer.result, codec::decode(&answer.payload).unwrap()), (0, Reply::Done));
    let slab = FdInbox::default().take(&channel, 5, LONG).unwrap();
    let slab = SharedMapping::whole(&slab, 65_536).unwrap();
    assert_eq!(slab.bytes(), 65_536);

    producer.send(&Timeline { slot: 3, value: 8, ..Timeline::default() }, 0, &[]).unwrap();
    assert!(pages.timeline().wait(3, 8, || channel.peer_gone()));
    let callback = pages.callbacks().next(LONG).unwrap();
    assert_eq!(callback.id, 77);
    pages.callbacks().finish(callback);
}

#[test]
fn a_session_carries_calls_answers_and_descriptors() {
    let mut session = start("client_that_works");
    assert_eq!(session.hello.pid, session.child.id());
    let mut scratch = Vec::new();
    for index in 0..RECORDS {
        let record = session.consumer.next(LONG, &mut scratch).unwrap().expect("a record is lost");
        assert_eq!((record.header.op, record.payload), (Op::Memset as u16, &index.to_ne_bytes()[..]));
    }
    let record = session.consumer.next(LONG, &mut scratch).unwrap().unwrap();
    assert_eq!(Op::try_from(record.header.op), Ok(Op::Cold));
    let Request::Memory(MemoryRequest::SlabCreate { bytes, handle_tag, .. }) =
        codec::decode(record.payload).unwrap()
    else {
        panic!("another request")
    };
    let slab = sealed_memfd("slab", bytes).unwrap();
    session.channel.send(&FdMessage { tag: handle_tag }, &[slab.as_fd()]).unwrap();
    let done = codec::encode(&Reply::Done).unwrap();
    session.pages.replies().answer(record.header.reply, 0, &done).unwrap();

    let record = session.consumer.next(LONG, &mut scratch).unwrap().unwrap();
    let timeline = read_exact::<Timeline>(record.payload).unwrap();
    session.pages.timeline().store(timeline.slot, timeline.value);
    assert!(session.pages.callbacks().run(77, 0, || session.channel.peer_gone()));
    assert!(session.child.wait().unwrap().success());
    assert!(session.channel.peer_gone());
    let snapshot = session.pages.counters().snapshot(&session.hello.hooks, &[]);
    assert_eq!((snapshot.calls[0].function.as_str(), snapshot.calls[0].forwarded), ("cuInit", 1));
}

#[test]
#[ignore = "run by an_executor_that_dies_ends_every_wait_of_its_client as a child process"]
fn client_that_is_left_alone() {
    let (channel, pages, producer) = connect();
    let gone = || channel.peer_gone();
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| while producer.push(1, 0, &[&[0; 1000]]).is_ok() {});
        let replying = scope.spawn(|| pages.replies().claim(gone).unwrap().wait(gone));
        let polling = scope.spawn(|| pages.timeline().wait(1, 1, gone));
        pushing.join().unwrap();
        assert_eq!(replying.join().unwrap(), None);
        assert!(!polling.join().unwrap());
    });
    assert_eq!(producer.push(1, 0, &[]), Err(PushError::Disconnected));
}

#[test]
fn an_executor_that_dies_ends_every_wait_of_its_client() {
    let mut session = start("client_that_is_left_alone");
    std::thread::sleep(Duration::from_millis(100));
    assert!(session.child.try_wait().unwrap().is_none(), "the client should be waiting");
    // As after kill -9: the consumer says no goodbye, the socket closes.
    std::mem::forget(session.consumer);
    let start = Instant::now();
    drop(session.channel);
    assert!(session.child.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
}

#[test]
#[ignore = "run by a_client_that_is_killed_is_noticed_at_once as a child process"]
fn client_that_pushes_for_ever() {
    let (_channel, _pages, producer) = connect();
    while producer.push(1, 0, &[&[0; 100]]).is_ok() {}
}

#[test]
fn a_client_that_is_killed_is_noticed_at_once() {
    let mut session = start("client_that_pushes_for_ever");
    let mut scratch = Vec::new();
    for _ in 0..1000 {
        session.consumer.next(LONG, &mut scratch).unwrap().unwrap();
    }
    session.child.kill().unwrap();
    session.child.wait().unwrap();
    assert!(session.channel.peer_gone());
    // What it left is drained without a violation; a half-written record is no record.
    while session.consumer.next(Duration::ZERO, &mut scratch).unwrap().is_some() {}
}
