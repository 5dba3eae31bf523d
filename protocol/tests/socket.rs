//! Channels: messages with descriptors, timeouts, and peers that lie about lengths or stop half-way.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lightos_protocol::codec::{self, MAX_MESSAGE_BYTES};
use lightos_protocol::control::FdMessage;
use lightos_protocol::mapping::sealed_memfd;
use lightos_protocol::request::{Reply, Request};
use lightos_protocol::socket::{Channel, FdInbox, MAX_FDS, MAX_OPENING_BYTES, SocketError};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

const LONG: Option<Duration> = Some(Duration::from_secs(10));
const SHORT: Option<Duration> = Some(Duration::from_millis(20));

/// A channel and the raw stream of its peer.
fn half_raw() -> (Channel, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours.into(), theirs)
}

fn file_with(text: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

fn read(fd: OwnedFd) -> String {
    let mut text = String::new();
    File::from(fd).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn messages_and_descriptors_arrive_together_and_in_order() {
    let (a, b) = Channel::pair().unwrap();
    let files = [file_with("one"), file_with("two")];
    a.send(&Reply::Text("hi".into()), &[]).unwrap();
    a.send(&FdMessage { tag: 4 }, &[files[0].as_fd(), files[1].as_fd()]).unwrap();
    a.send(&Request::Ping, &[]).unwrap();
    let (text, none) = b.recv::<Reply>(LONG).unwrap();
    assert_eq!((text, none.len()), (Reply::Text("hi".into()), 0));
    let (message, fds) = b.recv::<FdMessage>(LONG).unwrap();
    assert_eq!(message.tag, 4);
    for fd in &fds {
        let flags = rustix::io::fcntl_getfd(fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "an exec'd child would inherit it");
    }
    assert_eq!(fds.into_iter().map(read).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(b.recv::<Request>(LONG).unwrap().0, Request::Ping);
}

#[test]
fn a_long_message_crosses_in_pieces() {
    let (a, b) = Channel::pair().unwrap();
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| i as u8).collect();
    let message = Reply::Bytes(bytes);
    std::thread::scope(|scope| {
        scope.spawn(|| a.send(&message, &[]).unwrap());
        assert_eq!(b.recv::<Reply>(LONG).unwrap().0, message);
    });
}

#[test]
fn a_timeout_between_frames_leaves_the_channel_usable() {
    let (a, b) = Channel::pair().unwrap();
    let start = Instant::now();
    assert!(matches!(b.recv::<Request>(SHORT), Err(SocketError::TimedOut)));
    assert!(start.elapsed() >= SHORT.unwrap());
    a.send(&Request::Ping, &[]).unwrap();
    assert_eq!(b.recv::<Request>(LONG).unwrap().0, Request::Ping);
}

#[test]
fn a_timeout_inside_a_frame_breaks_the_channel() {
    let (channel, mut peer) = half_raw();
    peer.write_all(&[8, 0, 0, 0, 1]).unwrap();
    assert!(matches!(channel.recv::<Request>(SHORT), Err(SocketError::TimedOut)));
    assert!(matches!(channel.recv::<Request>(SHORT), Err(SocketError::Broken)));
}

#[test]
fn the_end_is_clean_between_frames_and_an_error_inside() {
    let (channel, peer) = half_raw();
    drop(peer);
    assert!(matches!(channel.recv::<Request>(LONG), Err(SocketError::Closed)));
    for partial in [&[8u8, 0][..], &[8, 0, 0, 0, 1, 2]] {
        let (channel, mut peer) = half_raw();
        peer.write_all(partial).unwrap();
        drop(peer);
        assert!(matches!(channel.recv::<Request>(LONG), Err(SocketError::Truncated)));
    }
}

#[test]
fn giant_lengths_are_refused_before_anything_is_read() {
    for length in [MAX_MESSAGE_BYTES as u32 + 1, u32::MAX] {
        let (channel, mut peer) = half_raw();
        peer.write_all(&length.to_le_bytes()).unwrap();
        let error = channel.recv::<Request>(LONG).unwrap_err();
        assert!(
            matches!(error, SocketError::FrameTooLong { bytes, .. } if bytes == length as usize),
            "{error}"
        );
        assert!(matches!(channel.recv::<Request>(LONG), Err(SocketError::Broken)));
    }
}

#[test]
fn a_stranger_gets_less_room_than_a_peer() {
    let (channel, mut peer) = half_raw();
    peer.write_all(&(MAX_OPENING_BYTES as u32 + 1).to_le_bytes()).unwrap();
    let error = channel.recv_frame(LONG).unwrap_err();
    assert!(matches!(error, SocketError::FrameTooLong { limit_bytes: MAX_OPENING_BYTES, .. }), "{error}");
}

#[test]
fn a_frame_that_is_not_the_message_leaves_the_channel_usable() {
    let (channel, mut peer) = half_raw();
    peer.write_all(&[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).unwrap();
    peer.write_all(&[0, 0, 0, 0]).unwrap();
    let ping = codec::encode(&Request::Ping).unwrap();
    peer.write_all(&(ping.len() as u32).to_le_bytes()).unwrap();
    peer.write_all(&ping).unwrap();
    assert!(matches!(channel.recv::<Request>(LONG), Err(SocketError::Codec(_))));
    assert!(matches!(channel.recv::<Request>(LONG), Err(SocketError::Codec(_))));
    assert_eq!(channel.recv::<Request>(LONG).unwrap().0, Request::Ping);
}

#[test]
fn too_many_descriptors_are_refused_on_both_sides() {
    let (channel, peer) = half_raw();
    let file = file_with("");
    let fds: Vec<BorrowedFd<'_>> = vec![file.as_fd(); MAX_FDS + 1];
    assert!(matches!(channel.send(&Request::Ping, &fds), Err(SocketError::TooManyFds)));

    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(40))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let flood = vec![writer.as_fd(); 40];
    assert!(control.push(SendAncillaryMessage::ScmRights(&flood)));
    let bytes = [4u8, 0, 0, 0, 0, 0, 0, 0];
    sendmsg(&peer, &[std::io::IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
    assert!(matches!(channel.recv::<Request>(LONG), Err(SocketError::TooManyFds)));
    drop(writer);
    // Blocks for ever if one of the forty is still open somewhere.
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_peer_that_hangs_up_is_noticed_without_waiting() {
    let (a, b) = Channel::pair().unwrap();
    assert!(!a.peer_gone());
    b.send(&Request::Ping, &[]).unwrap();
    assert!(!a.peer_gone(), "unread data is not a hang-up");
    drop(b);
    assert!(a.peer_gone());
    assert_eq!(a.recv::<Request>(LONG).unwrap().0, Request::Ping, "what was sent before still arrives");
    assert!(matches!(a.send(&Request::Ping, &[]), Err(SocketError::Closed)), "and no SIGPIPE");
}

#[test]
fn credentials_are_the_kernels() {
    let (a, _b) = Channel::pair().unwrap();
    let peer = a.peer_credentials().unwrap();
    assert_eq!(peer.pid as u32, std::process::id());
    assert_eq!(
        (peer.uid, peer.gid),
        (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
    );
}

#[test]
fn threads_may_send_at_once() {
    let (a, b) = Channel::pair().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let a = &a;
            scope.spawn(move || (0..200).for_each(|_| a.send(&Reply::U64(thread), &[]).unwrap()));
        }
        let mut seen = [0; 4];
        for _ in 0..800 {
            let (Reply::U64(thread), _) = b.recv::<Reply>(LONG).unwrap() else { panic!("not what was sent") };
            seen[thread as usize] += 1;
        }
        assert_eq!(seen, [200; 4]);
    });
}

#[test]
fn the_inbox_hands_each_thread_its_own_descriptor() {
    let (a, b) = Channel::pair().unwrap();
    let inbox = FdInbox::default();
    std::thread::scope(|scope| {
        let takers: Vec<_> = (1..=8u64)
            .map(|tag| {
                let (inbox, b) = (&inbox, &b);
                scope.spawn(move || read(inbox.take(b, tag, LONG.unwrap()).unwrap()))
            })
            .collect();
        for tag in (1..=8u64).rev() {
            a.send(&FdMessage { tag }, &[file_with(&tag.to_string()).as_fd()]).unwrap();
        }
        let texts: Vec<String> = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
        assert_eq!(texts, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    });
    assert!(matches!(inbox.take(&b, 9, SHORT.unwrap()), Err(SocketError::TimedOut)));
}

#[test]
fn the_inbox_bounds_what_it_keeps() {
    let inbox = FdInbox::default();
    for tag in 0..FdInbox::MAX_WAITING as u64 {
        inbox.put(tag, vec![sealed_memfd("inbox", 0).unwrap()]).unwrap();
    }
    let one_more = inbox.put(1000, vec![sealed_memfd("inbox", 0).unwrap()]);
    assert!(matches!(one_more, Err(SocketError::TooManyFds)));
    assert!(matches!(FdInbox::default().put(1, vec![]), Err(SocketError::TooManyFds)));
}
