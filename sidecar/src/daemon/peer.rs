//! Who is at the other end of a connection, by SO_PEERCRED, and whether it may be there.

use std::io;

use interprocess::local_socket::Stream;
use interprocess::local_socket::traits::StreamCommon;
use rustix::fs::Gid;

use super::listener::ListenError;

/// How far up the process tree a tenant is traced, so that `lightos run` finds what its command started.
const MAX_ANCESTORS: usize = 64;

/// The process that made the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) pid: u32,
    pub(super) uid: u32,
    pub(super) groups: Vec<u32>,
}

impl Peer {
    pub(super) fn of(stream: &Stream) -> io::Result<Self> {
        let creds = stream.peer_creds()?;
        let missing = || io::Error::other("the kernel names no peer");
        let pid = creds.pid().and_then(|pid| u32::try_from(pid).ok()).ok_or_else(missing)?;
        let uid = creds.euid().ok_or_else(missing)?;
        let mut groups: Vec<u32> = creds.egid().into_iter().collect();
        groups.extend(creds.groups().unwrap_or_default());
        Ok(Self { pid, uid, groups })
    }

    /// The daemon's own user and root, who may end it.
    pub(super) fn is_owner(&self, own_uid: u32) -> bool {
        self.uid == own_uid || self.uid == 0
    }

    /// The owners and members of the configured group, who may use the daemon.
    pub(super) fn is_allowed(&self, own_uid: u32, group: Option<Gid>) -> bool {
        self.is_owner(own_uid) || group.is_some_and(|group| self.groups.contains(&group.as_raw()))
    }

    /// The peer's own process id and those of its parents, nearest first.
    pub(super) fn lineage(&self) -> Vec<u32> {
        let mut pids = vec![self.pid];
        while let Some(parent) = pids.last().copied().and_then(parent)
            && parent > 1
            && pids.len() < MAX_ANCESTORS
        {
            pids.push(parent);
        }
        pids
    }
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// A group by name or number.
pub(super) fn group(name: &str) -> Result<Gid, ListenError> {
    let missing = || ListenError::NoGroup(name.to_owned());
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let found = nix::unistd::Group::from_name(name).ok().flatten().ok_or_else(missing)?;
    Ok(Gid::from_raw(found.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, groups: &[u32]) -> Peer {
        Peer { pid: std::process::id(), uid, groups: groups.to_vec() }
    }

    #[test]
    fn own_user_root_and_group_are_let_in() {
        let group = Some(Gid::from_raw(44));
        assert!(peer(1000, &[]).is_allowed(1000, None));
        assert!(peer(0, &[]).is_allowed(1000, None));
        assert!(peer(1001, &[100, 44]).is_allowed(1000, group));
        assert!(!peer(1001, &[100]).is_allowed(1000, group));
        assert!(!peer(1001, &[44]).is_allowed(1000, None));
        assert!(peer(1000, &[]).is_owner(1000) && peer(0, &[]).is_owner(1000));
        assert!(!peer(1001, &[44]).is_owner(1000));
    }

    #[test]
    fn lineage_starts_at_the_process_and_climbs() {
        let pids = peer(0, &[]).lineage();
        assert_eq!(pids[0], std::process::id());
        assert_eq!(pids.get(1).copied(), Some(std::os::unix::process::parent_id()).filter(|pid| *pid > 1));
    }

    #[test]
    fn groups_by_name_and_number() {
        assert_eq!(group("root").unwrap().as_raw(), 0);
        assert_eq!(group("4711").unwrap().as_raw(), 4711);
        assert!(group("no-such-group").unwrap_err().to_string().contains("no-such-group"));
    }
}
