//! Memory that vanishes while a kernel uses it: a fault of the grid, never one of the process.

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use lightos_softgpu_engine::exec::{Environment, Fault, Grid, Memory, Program, quiesce};

use crate::harness::kernel;

const BYTES: usize = 1 << 16;

/// One range of pages that can be taken away.
#[derive(Default)]
struct Pages {
    range: RwLock<Option<(u64, u64)>>,
    epoch: AtomicU64,
}

impl Memory for Pages {
    fn range(&self, address: u64) -> Option<(u64, u64)> {
        self.range.read().unwrap().filter(|&(start, end)| (start..end).contains(&address))
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

impl Pages {
    fn map(&self) -> u64 {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), BYTES, protection, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        *self.range.write().unwrap() = Some((at as u64, at as u64 + BYTES as u64));
        self.epoch.fetch_add(1, Ordering::Release);
        at as u64
    }

    fn unmap(&self, at: u64) {
        *self.range.write().unwrap() = None;
        self.epoch.fetch_add(1, Ordering::Release);
        assert!(quiesce(Duration::from_secs(20)));
        // SAFETY: the range is gone from the memory and no turn that knew it still runs.
        assert_eq!(unsafe { libc::munmap(at as *mut libc::c_void, BYTES) }, 0);
    }
}

#[test]
fn unmapping_under_a_running_kernel_is_an_illegal_address() {
    let text = kernel(
        "add.u64 %rd1, %rd0, 4096; mov.u32 %r1, 0;
     L: add.u32 %r1, %r1, 1; st.global.u32 [%rd0], %r1; ld.global.u32 %r2, [%rd1+8]; atom.global.add.u32 %r3, [%rd1], 1;
        bra L;",
    );
    let program = Program::load(&text, &mut |_, _| None).unwrap();
    for _ in 0..50 {
        let pages = Pages::default();
        let at = pages.map();
        let cancel = AtomicBool::new(false);
        let params: Vec<u8> = [at, 0].into_iter().flat_map(u64::to_le_bytes).collect();
        let outcome = std::thread::scope(|scope| {
            let run = scope.spawn(|| {
                let environment = Environment {
                    memory: &pages,
                    sm_count: 132,
                    cancel: &cancel,
                    print: &|_| {},
                    check: None,
                };
                let (grid, block) = ([4, 1, 1], [64, 1, 1]);
                let grid = Grid { grid, block, dynamic_shared_bytes: 0, params: &params, cooperative: false };
                program.run("k", &grid, &environment)
            });
            // SAFETY: the page stays mapped until `unmap` below, and every access to the word is atomic or racing by design
            // of the test with the kernel's own stores, which the interpreter makes as whole words.
            let first = unsafe { AtomicU32::from_ptr(at as *mut u32) };
            while first.load(Ordering::Relaxed) == 0 && !run.is_finished() {
                std::thread::yield_now();
            }
            pages.unmap(at);
            run.join().unwrap()
        });
        let range = at..at + BYTES as u64;
        assert!(
            matches!(&outcome, Err(Fault::IllegalAddress { address, .. }) if range.contains(address)),
            "{outcome:?}"
        );
    }
}

/// Other tests of this process run kernels at the same time; their turns end soon.
#[test]
fn no_turn_is_waited_for_without_end() {
    assert!(quiesce(Duration::from_secs(10)));
}
