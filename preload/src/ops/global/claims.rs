//! Pages of this process at the addresses of globals, whose memory is in the executor's.
//!
//! The local driver builds graphs and accepts only addresses that it knows in their copies and fills. It cannot have device memory
//! at an address that the executor's driver chose, but takes registered host memory anywhere; nothing is ever read or written there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;

use lightos_protocol::mapping::{Access, Reservation, sealed_memfd};

/// How the local driver comes to know pages: it is given first address and bytes, and says whether it took them.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    pub register: fn(u64, u64) -> bool,
    pub unregister: fn(u64),
}

/// Runs of pages, by first address. They never overlap; variables of several modules may share a page. Registering takes far
/// longer than a look-up, so a run is registered once a graph names an address there.
#[derive(Debug)]
pub struct Claims {
    runs: BTreeMap<u64, Run>,
    driver: Driver,
}

/// Pages without a gap, which the local driver knows as one: a copy may not reach from one registration into the next.
#[derive(Debug)]
struct Run {
    end: u64,
    pages: Vec<Reservation>,
    /// Modules with variables there.
    owners: BTreeSet<u64>,
    is_registered: bool,
}

/// Bytes of a page of this machine.
fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// Takes free pages and gives them memory.
fn take(address: u64, bytes: u64) -> io::Result<Reservation> {
    let pages = Reservation::fixed(address, bytes)?;
    pages.map(0, sealed_memfd("lightos-global", bytes)?.as_fd(), 0, bytes, Access::ReadWrite)?;
    Ok(pages)
}

impl Claims {
    pub const fn new(driver: Driver) -> Self {
        Self { runs: BTreeMap::new(), driver }
    }

    /// Claims the pages of `[address, address + bytes)` for `module`; false when something else lies in them.
    pub fn claim(&mut self, address: u64, bytes: u64, module: u64) -> bool {
        let start = address - address % page();
        let Some(end) = address.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(page()))
        else {
            return false;
        };
        let mut met = Vec::new();
        for (&first, run) in self.runs.range_mut(..end).filter(|(_, run)| run.end > start) {
            run.owners.insert(module);
            met.push((first, run.end));
        }
        if let [(first, last)] = met[..]
            && first <= start
            && end <= last
        {
            return true;
        }
        let (mut pages, mut complete, mut at) = (Vec::new(), true, start);
        for (first, last) in met.iter().copied().chain([(end, end)]) {
            if at < first {
                match take(at, first - at) {
                    Ok(taken) => pages.push(taken),
                    Err(_) => complete = false,
                }
            }
            at = last;
        }
        if complete {
            self.join(&met, pages, module);
        } else {
            // With the program's own memory in between, no copy of the whole variable is possible anyway.
            pages.into_iter().for_each(|taken| self.join(&[], vec![taken], module));
        }
        complete
    }

    /// Has the local driver know the pages at `address`, if they are claimed; whether they are.
    pub fn introduce(&mut self, address: u64) -> bool {
        let run = self.runs.range_mut(..=address).next_back().filter(|(_, run)| address < run.end);
        let Some((&first, run)) = run else { return false };
        if !run.is_registered {
            run.is_registered = (self.driver.register)(first, run.end - first);
        }
        true
    }

    /// Makes one run of new pages and the runs that they connect.
    fn join(&mut self, met: &[(u64, u64)], mut pages: Vec<Reservation>, module: u64) {
        let (mut owners, mut was_registered) = (BTreeSet::from([module]), false);
        for (first, run) in met.iter().filter_map(|(first, _)| self.runs.remove_entry(first)) {
            if run.is_registered {
                (self.driver.unregister)(first);
                was_registered = true;
            }
            pages.extend(run.pages);
            owners.extend(run.owners);
        }
        pages.sort_by_key(Reservation::address);
        let (Some(first), Some(last)) = (pages.first(), pages.last()) else { return };
        let (start, end) = (first.address(), last.address() + last.bytes());
        let is_registered = was_registered && (self.driver.register)(start, end - start);
        self.runs.insert(start, Run { end, pages, owners, is_registered });
    }

    /// A module is gone, and the pages where it alone has variables.
    pub fn release(&mut self, module: u64) {
        let unregister = self.driver.unregister;
        self.runs.retain(|&first, run| {
            run.owners.remove(&module);
            if run.owners.is_empty() && run.is_registered {
                unregister(first);
            }
            !run.owners.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// What the driver was told: address, and bytes that were registered or 0.
    static TOLD: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

    fn claims() -> Claims {
        let register = |address, bytes| {
            TOLD.lock().unwrap().push((address, bytes));
            true
        };
        Claims::new(Driver { register, unregister: |address| TOLD.lock().unwrap().push((address, 0)) })
    }

    fn told(base: u64, bytes: u64) -> Vec<(u64, u64)> {
        let mut told = TOLD.lock().unwrap();
        told.extract_if(.., |(address, _)| (base..base + bytes).contains(address)).collect()
    }

    /// Whether nothing is mapped in the page.
    fn is_free(address: u64) -> bool {
        Reservation::fixed(address, page()).is_ok()
    }

    #[test]
    fn pages_belong_to_globals_until_their_modules_are_gone() {
        // Far from where the kernel places mappings by itself.
        let base = 0x2345_6789_0000;
        let mut claims = claims();
        assert!(claims.claim(base + 100, 8, 1));
        assert!(!claims.introduce(base + page()));
        assert!(told(base, 3 * page()).is_empty(), "no graph has named it");
        assert!(claims.introduce(base + 100) && claims.introduce(base + 100));
        assert!(claims.claim(base + 300, 8, 1), "the same page");
        assert!(claims.claim(base + 200, 2 * page(), 2), "shares its first page");
        assert_eq!(
            told(base, 3 * page()),
            [(base, page()), (base, 0), (base, 3 * page())],
            "one registration, so that a copy may cross the border"
        );
        assert!(!is_free(base) && !is_free(base + 2 * page()));
        assert!(is_free(base + 3 * page()));
        claims.release(1);
        assert!(!is_free(base), "the second module has a variable there");
        claims.release(2);
        assert!(is_free(base) && is_free(base + 2 * page()));
        assert_eq!(told(base, 3 * page()), [(base, 0)]);
    }

    #[test]
    fn pages_between_two_runs_connect_them() {
        let base = 0x2345_6889_0000;
        let mut claims = claims();
        assert!(claims.claim(base, 8, 1) && claims.claim(base + 2 * page(), 8, 2));
        claims.introduce(base);
        told(base, 3 * page());
        assert!(claims.claim(base + 8, 2 * page(), 3));
        assert_eq!(told(base, 3 * page()).last(), Some(&(base, 3 * page())));
        assert_eq!(claims.runs.len(), 1);
    }

    #[test]
    fn memory_of_the_program_stays_where_it_is() {
        let base = 0x2345_6799_0000;
        let _own = Reservation::fixed(base + page(), page()).unwrap();
        let mut claims = claims();
        assert!(!claims.claim(base + page(), 4, 1));
        assert!(claims.runs.is_empty());
        assert!(claims.claim(base, 4, 1));
        assert!(claims.claim(base + 2 * page(), 4, 1));
    }
}
