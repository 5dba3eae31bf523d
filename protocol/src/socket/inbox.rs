//! Descriptors that have arrived, by tag, until the request or reply that names them is handled.
//!
//! Both sides use it: descriptors cross the socket in any order relative to the ring, and several threads
//! may wait for different tags.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Channel, SocketError};
use crate::control::FdMessage;

/// How long one thread holds the channel before it lets another look for its own descriptor.
const TURN: Duration = Duration::from_millis(20);

/// Holds descriptors that nobody has asked for yet.
#[derive(Debug, Default)]
pub struct FdInbox {
    waiting: Mutex<HashMap<u64, OwnedFd>>,
}

impl FdInbox {
    /// Most descriptors kept unasked for; a peer that sends more breaks the rules.
    pub const MAX_WAITING: usize = 64;

    /// Takes the descriptor with this tag, receiving from `channel` until it comes or `timeout` passes.
    ///
    /// # Errors
    /// [`SocketError::TimedOut`] when it did not come, [`SocketError::TooManyFds`] when the peer floods us
    /// or sends a message without exactly one descriptor, or what receiving reports.
    pub fn take(&self, channel: &Channel, tag: u64, timeout: Duration) -> Result<OwnedFd, SocketError> {
        let start = Instant::now();
        loop {
            if let Some(fd) = self.remove(tag) {
                return Ok(fd);
            }
            let left = timeout.saturating_sub(start.elapsed());
            match channel.recv::<FdMessage>(Some(left.min(TURN))) {
                Ok((message, fds)) => self.put(message.tag, fds)?,
                Err(SocketError::TimedOut) if !left.is_zero() => {}
                // Another thread may have received ours and then met the end of the connection.
                Err(error) => return self.remove(tag).ok_or(error),
            }
        }
    }

    /// Adds what a message brought.
    ///
    /// # Errors
    /// [`SocketError::TooManyFds`] unless there is exactly one and there is room.
    pub fn put(&self, tag: u64, fds: Vec<OwnedFd>) -> Result<(), SocketError> {
        let Ok([fd]) = <[OwnedFd; 1]>::try_from(fds) else {
            return Err(SocketError::TooManyFds);
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= Self::MAX_WAITING {
            return Err(SocketError::TooManyFds);
        }
        waiting.insert(tag, fd);
        Ok(())
    }

    fn remove(&self, tag: u64) -> Option<OwnedFd> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&tag)
    }
}
