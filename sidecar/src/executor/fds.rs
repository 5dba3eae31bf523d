//! File descriptors that travel over the program's socket beside the ring.
//!
//! A request names its descriptor by a tag that the program chose; the program sends the descriptor before the request, so it is in
//! the socket when the request is executed.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use lightos_protocol::codec::MAX_MESSAGE_BYTES;
use lightos_protocol::control::FdMessage;
use lightos_protocol::mapping::sealed_bytes;
use lightos_protocol::record::BlobRef;
use lightos_protocol::socket::{Channel, FdInbox};

use super::driver::CuError;

/// How long a descriptor that should already be in the socket is waited for.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The executor's end of the program's socket.
#[derive(Debug)]
pub(crate) struct Fds {
    channel: Arc<Channel>,
    inbox: FdInbox,
}

/// Why a request that came as a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("no descriptor came for tag {tag}")]
    Missing { tag: u64 },
    #[error("blob of {bytes} bytes in a file of {file_bytes}")]
    Size { bytes: u64, file_bytes: u64 },
    #[error("blob cannot be read: {0}")]
    Read(#[from] std::io::Error),
}

impl Fds {
    pub(crate) fn new(channel: Arc<Channel>) -> Self {
        Self { channel, inbox: FdInbox::default() }
    }

    /// The descriptor that the program sent under `tag`.
    ///
    /// # Errors
    /// `OPERATING_SYSTEM` when none comes in time.
    pub(crate) fn take(&self, tag: u64) -> Result<OwnedFd, CuError> {
        self.inbox.take(&self.channel, tag, TIMEOUT).map_err(|error| {
            tracing::warn!(tag, %error, "no descriptor from the program");
            CuError::OPERATING_SYSTEM
        })
    }

    /// Sends `fd` to the program under `tag`.
    ///
    /// # Errors
    /// `OPERATING_SYSTEM` when the program does not take it.
    pub(crate) fn send(&self, tag: u64, fd: BorrowedFd<'_>) -> Result<(), CuError> {
        self.channel.send(&FdMessage { tag }, &[fd]).map_err(|error| {
            tracing::warn!(tag, %error, "cannot send a descriptor to the program");
            CuError::OPERATING_SYSTEM
        })
    }

    /// The first `bytes` bytes of the sealed memfd that the program sent under `tag`: a module image, a long request.
    ///
    /// # Errors
    /// [`BlobError`]: the program broke the rules. A length is judged against the file before anything is allocated for it.
    pub(crate) fn read(&self, tag: u64, bytes: u64) -> Result<Vec<u8>, BlobError> {
        let fd = self.take(tag).map_err(|_| BlobError::Missing { tag })?;
        let file_bytes = sealed_bytes(fd.as_fd())?;
        if bytes > file_bytes {
            return Err(BlobError::Size { bytes, file_bytes });
        }
        let mut content = vec![0; usize::try_from(bytes).map_err(|_| BlobError::Size { bytes, file_bytes })?];
        File::from(fd).read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    /// The bytes of a request that was too long for a record.
    pub(crate) fn request(&self, blob: &BlobRef) -> Result<Vec<u8>, BlobError> {
        if blob.bytes > MAX_MESSAGE_BYTES as u64 {
            return Err(BlobError::Size { bytes: blob.bytes, file_bytes: MAX_MESSAGE_BYTES as u64 });
        }
        self.read(blob.tag, blob.bytes)
    }
}
