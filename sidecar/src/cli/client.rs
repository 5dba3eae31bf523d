//! Asking a running sidecar.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lightos_protocol::control::{Admin, AdminReply, Opening, Purpose};
use lightos_protocol::socket::{Channel, SocketError};

use crate::layout;

/// A sidecar answers from memory.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a sidecar was not asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no sidecar answers at {}; start one with `lightos sidecar`", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or "))]
    NoSidecar(Vec<PathBuf>),
    #[error("cannot connect to the sidecar at {}: {source}{}", path.display(), advice(source))]
    Connect { path: PathBuf, source: io::Error },
    #[error("the sidecar does not answer: {0} (is it another version than this command?)")]
    Socket(#[from] SocketError),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; its configuration's `group` names who may connect besides its own user: join that group"
        }
        _ => "",
    }
}

/// A sidecar that was reached.
#[derive(Debug)]
pub(super) struct Client {
    path: PathBuf,
}

impl Client {
    /// Reaches the sidecar at `socket`, or the first that answers at the usual places.
    pub(super) fn connect(socket: Option<&Path>) -> Result<Self, AskError> {
        let places = match socket {
            Some(path) => vec![path.to_owned()],
            None => layout::socket_candidates(),
        };
        for path in &places {
            match Channel::connect(path) {
                Ok(_) => return Ok(Self { path: path.clone() }),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                }
                Err(source) => return Err(AskError::Connect { path: path.clone(), source }),
            }
        }
        Err(AskError::NoSidecar(places))
    }

    /// Where it listens.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Asks one question, on a connection of its own.
    pub(super) fn ask(&self, question: &Admin) -> Result<AdminReply, AskError> {
        let channel = Channel::connect(&self.path);
        let channel = channel.map_err(|source| AskError::Connect { path: self.path.clone(), source })?;
        channel.send(&Opening::new(Purpose::Admin(question.clone())), &[])?;
        Ok(channel.recv(Some(TIMEOUT))?.0)
    }
}
