//! How a thread waits for a word that no futex announces: spin, then yield, then sleep with a growing pause.
//!
//! Used by producers of a full ring and by waiters on timeline words, which the device writes. The first
//! phase keeps the common wait below a microsecond; the last costs next to no processor time.

use std::time::Duration;

const SPINS: u32 = 256;
const YIELDS: u32 = 64;
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// The state of one wait. Make a fresh one for each.
#[derive(Debug, Default)]
pub struct Backoff {
    turns: u32,
    pause: Duration,
}

impl Backoff {
    /// A wait that starts with the spinning phase.
    pub const fn new() -> Self {
        Self { turns: 0, pause: FIRST_PAUSE }
    }

    /// Waits a little, longer each time. Returns true once the wait has left the spinning phase, which is
    /// when a caller should begin to ask whether its peer still lives.
    pub fn snooze(&mut self) -> bool {
        self.turns = self.turns.saturating_add(1);
        if cfg!(loom) {
            crate::ring::sync::yield_now();
            return true;
        }
        if self.turns <= SPINS {
            std::hint::spin_loop();
            return false;
        }
        if self.turns <= SPINS + YIELDS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(self.pause);
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
        true
    }
}
