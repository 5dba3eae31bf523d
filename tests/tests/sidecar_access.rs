//! Who may connect. Needs root, which alone can take another user's place; without it there is nobody else to be.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lightos_protocol::control::{Admin, AdminReply, Opening, Purpose};
use lightos_protocol::socket::Channel;
use lightos_tests::Sidecar;
use lightos_tests::raw::RawClient;

const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Runs `body` on a thread with the credentials of nobody: Linux keeps them for each thread, and so does SO_PEERCRED.
fn as_nobody<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    let become_nobody = || {
        // SAFETY: the raw calls change this thread alone, which ends with `body`; the group list is empty.
        let results = unsafe {
            [
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()),
                libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY),
                libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY),
            ]
        };
        assert_eq!(results, [0; 3], "{}", io::Error::last_os_error());
        body()
    };
    std::thread::scope(|scope| scope.spawn(become_nobody).join().unwrap())
}

/// Lets everybody into the folder of the socket, so that the socket's own mode decides.
fn open_folder(sidecar: &Sidecar) {
    let socket = sidecar.socket();
    std::fs::set_permissions(socket.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn other_users_cannot_even_connect() {
    if !is_root() {
        return;
    }
    let sidecar = Sidecar::start();
    open_folder(&sidecar);
    let error = as_nobody(|| Channel::connect(&sidecar.socket()).unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served());
}

#[test]
fn members_of_the_group_are_served_but_do_not_end_the_daemon() {
    if !is_root() {
        return;
    }
    let sidecar = Sidecar::with_config(&format!("group: '{NOBODY}'\n"));
    open_folder(&sidecar);
    as_nobody(|| {
        assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served());
        let ask = |question| {
            let channel = Channel::connect(&sidecar.socket()).unwrap();
            channel.send(&Opening::new(Purpose::Admin(question)), &[]).unwrap();
            channel.recv::<AdminReply>(Some(Duration::from_secs(5))).unwrap().0
        };
        assert!(matches!(ask(Admin::Status), AdminReply::Status(_)));
        let AdminReply::Failed(message) = ask(Admin::Shutdown) else { panic!("nobody ended the daemon") };
        assert!(message.contains(&NOBODY.to_string()), "{message}");
    });
    assert!(RawClient::connect(&sidecar.socket()).unwrap().is_served());
}
