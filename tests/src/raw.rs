//! A program that speaks the protocol by hand, without the preload library: what a correct shim does, and what none would.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use lightos_protocol::codec;
use lightos_protocol::control::{Hello, HelloReply, Opening, Purpose, RefusalReason, Welcome};
use lightos_protocol::pages::SessionPages;
use lightos_protocol::record::{Op, RecordHeader};
use lightos_protocol::request::{Reply, Request};
use lightos_protocol::ring::layout::{Control, STAMPS_OFFSET, data_offset};
use lightos_protocol::ring::{Producer, RingMemory};
use lightos_protocol::socket::Channel;

const RING_BYTES: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(20);

/// A session made by hand.
pub struct RawClient {
    pub channel: Channel,
    pub pages: SessionPages,
    pub producer: Producer,
    pub welcome: Welcome,
    ring: File,
}

/// What a hello is made of.
pub struct Parts {
    pub pages: SessionPages,
    pub memory: RingMemory,
    pub pages_fd: OwnedFd,
    pub ring_fd: OwnedFd,
    pub output: OwnedFd,
}

impl Parts {
    pub fn new() -> io::Result<Self> {
        let (pages, pages_fd) = SessionPages::create()?;
        let (memory, ring_fd) = RingMemory::create(RING_BYTES)?;
        let output = File::options().write(true).open("/dev/null")?.into();
        Ok(Self { pages, memory, pages_fd, ring_fd, output })
    }

    /// The descriptors of a correct hello, in order.
    pub fn fds(&self) -> [BorrowedFd<'_>; 4] {
        [self.pages_fd.as_fd(), self.ring_fd.as_fd(), self.output.as_fd(), self.output.as_fd()]
    }
}

/// Says hello with `fds` and gives the answer.
pub fn greet(socket: &Path, fds: &[BorrowedFd<'_>]) -> (Channel, HelloReply) {
    let channel = Channel::connect(socket).expect("the sidecar listens");
    let hello = Hello { process_name: "raw".into(), ..Hello::default() };
    channel.send(&Opening::new(Purpose::Client(hello)), fds).expect("the hello is taken");
    let (reply, _) = channel.recv::<HelloReply>(Some(TIMEOUT)).expect("the sidecar answers");
    (channel, reply)
}

impl RawClient {
    /// A session, or why there is none.
    pub fn connect(socket: &Path) -> Result<Self, (RefusalReason, String)> {
        let parts = Parts::new().expect("shared memory");
        let (channel, reply) = greet(socket, &parts.fds());
        match reply {
            HelloReply::Welcome(welcome) => Ok(Self {
                channel,
                pages: parts.pages,
                producer: Producer::new(parts.memory),
                welcome,
                ring: parts.ring_fd.into(),
            }),
            HelloReply::Refused { reason, message } => Err((reason, message)),
        }
    }

    /// A request and its outcome; none when the executor goes away first.
    pub fn call(&self, request: &Request) -> Option<Result<Reply, u32>> {
        let ticket = self.pages.replies().claim(|| self.channel.peer_gone())?;
        let header = RecordHeader { op: Op::Cold as u16, reply: ticket.reply(), ..RecordHeader::default() };
        let body = codec::encode(request).expect("a request is encodable");
        self.producer.push_record(header, &body, &[]).ok()?;
        let answer = ticket.wait(|| self.channel.peer_gone())?;
        Some(match answer.result {
            0 => Ok(codec::decode(&answer.payload).expect("a reply is decodable")),
            error => Err(error),
        })
    }

    /// Whether the executor answers.
    pub fn is_served(&self) -> bool {
        self.call(&Request::Ping) == Some(Ok(Reply::Done))
    }

    /// Whether the executor hangs up within `timeout`.
    pub fn hangs_up(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if self.channel.peer_gone() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }

    /// Writes a record's header at the start of an unused ring and completes it, whatever the header says.
    pub fn forge(&self, header: &[u8; 16], tail: u64, stamp: u32) {
        let write =
            |bytes: &[u8], at: usize| self.ring.write_all_at(bytes, at as u64).expect("the ring is writable");
        write(header, data_offset(RING_BYTES));
        write(&tail.to_ne_bytes(), std::mem::offset_of!(Control, tail));
        write(&stamp.to_ne_bytes(), STAMPS_OFFSET);
    }

    /// Overwrites the consumer's position.
    pub fn forge_head(&self, head: u64) {
        let at = std::mem::offset_of!(Control, head) as u64;
        self.ring.write_all_at(&head.to_ne_bytes(), at).expect("the ring is writable");
    }
}

impl std::fmt::Debug for RawClient {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RawClient").field("welcome", &self.welcome).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Parts").finish_non_exhaustive()
    }
}
