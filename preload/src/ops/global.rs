//! Module and library globals: they live where the executor's driver put them.
//!
//! Such an address is outside the arenas and means nothing to the local driver. It counts as device memory from the moment the program asks for it
//! until the module is unloaded.
//!
//! For as long its pages are reserved in this process, so that no memory of the program's own comes to lie at the same address: copies and
//! pointer queries tell the two apart by address alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightos_protocol::mapping::Reservation;
use lightos_protocol::request::{MemoryRequest, Reply, Request};

use super::context;
use super::memory::{LIVE, sidecar};
use crate::alloc::live::Kind;
use crate::edge::{Name, Out};
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;

/// cuModuleGetGlobal, and cuLibraryGetGlobal with `library`. Either out-parameter may be null.
pub fn get(
    address_out: Out<u64>,
    bytes_out: Out<usize>,
    module: u64,
    name: Name,
    library: bool,
) -> Result<(), CuResult> {
    context::check()?;
    let name = name.get()?.to_str().map_err(|_| CuResult::NOT_FOUND)?.to_owned();
    let request = MemoryRequest::GlobalAddress { module, name, library };
    let Reply::Address { address, bytes } = sidecar()?.call(&Request::Memory(request))? else {
        return Err(CuResult::UNKNOWN);
    };
    let kind = Kind::Global { module };
    // A second look-up of the same variable must not change its buffer id.
    if LIVE.find(address).is_none_or(|known| (known.base, known.kind) != (address, kind)) {
        if !claims().claim(address, bytes, module) {
            // The program's own memory is there already. It can have both, only not tell them apart in a copy.
            sidecar()?.pages().counters().count_reason(Reason::GlobalOverlap as usize);
        }
        LIVE.insert(address, bytes, kind);
    }
    address_out.put(address);
    bytes_out.put(bytes as usize);
    Ok(())
}

/// cuLibraryGetManaged and cuLibraryGetUnifiedFunction: what the local driver has not, it says; what it has is at an address that means nothing to
/// the executor.
pub fn absent(local: CuResult) -> Outcome {
    match local {
        CuResult::SUCCESS => Outcome::Refuse(Reason::ManagedMemory),
        error => Outcome::Fail(error),
    }
}

/// The module or library is unloaded.
pub fn forget(module: u64) {
    let _ = LIVE.remove_all(|known| known.kind == Kind::Global { module });
    claims().release(module);
}

const PAGE_BYTES: u64 = 4096;

/// Pages reserved for globals, by first address. They never overlap; variables of several modules may share a page.
#[derive(Debug)]
struct Claims(BTreeMap<u64, (Reservation, BTreeSet<u64>)>);

static CLAIMS: Mutex<Claims> = Mutex::new(Claims(BTreeMap::new()));

fn claims() -> MutexGuard<'static, Claims> {
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claims {
    /// Reserves the pages of `[address, address + bytes)` that are not reserved yet, for `module`; false when something else lies in them.
    fn claim(&mut self, address: u64, bytes: u64, module: u64) -> bool {
        let mut at = address - address % PAGE_BYTES;
        let Some(end) = address.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(PAGE_BYTES))
        else {
            return false;
        };
        let mut complete = true;
        while at < end {
            let owned = self.0.range_mut(..=at).next_back().filter(|(_, (pages, _))| pages.contains(at, 1));
            if let Some((_, (pages, owners))) = owned {
                owners.insert(module);
                at = pages.address() + pages.bytes();
                continue;
            }
            let gap_end = self.0.range(at..end).next().map_or(end, |(&next, _)| next);
            match Reservation::fixed(at, gap_end - at) {
                Ok(pages) => {
                    self.0.insert(at, (pages, BTreeSet::from([module])));
                }
                Err(_) => complete = false,
            }
            at = gap_end;
        }
        complete
    }

    fn release(&mut self, module: u64) {
        self.0.retain(|_, (_, owners)| {
            owners.remove(&module);
            !owners.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether nothing is mapped in the page.
    fn is_free(address: u64) -> bool {
        Reservation::fixed(address, PAGE_BYTES).is_ok()
    }

    #[test]
    fn pages_belong_to_globals_until_their_modules_are_gone() {
        // Far from where the kernel places mappings by itself.
        let base = 0x2345_6789_0000;
        let mut claims = Claims(BTreeMap::new());
        assert!(claims.claim(base + 100, 8, 1));
        assert!(claims.claim(base + 200, 2 * PAGE_BYTES, 2), "shares its first page");
        assert!(!is_free(base) && !is_free(base + 2 * PAGE_BYTES));
        assert!(is_free(base + 3 * PAGE_BYTES));
        claims.release(1);
        assert!(!is_free(base), "the second module has a variable there");
        claims.release(2);
        assert!(is_free(base) && is_free(base + 2 * PAGE_BYTES));
    }

    #[test]
    fn memory_of_the_program_stays_where_it_is() {
        let base = 0x2345_6799_0000;
        let _own = Reservation::fixed(base + PAGE_BYTES, PAGE_BYTES).unwrap();
        let mut claims = Claims(BTreeMap::new());
        assert!(!claims.claim(base + PAGE_BYTES, 4, 1));
        assert!(claims.0.is_empty());
        assert!(claims.claim(base, 4, 1));
        assert!(claims.claim(base + 2 * PAGE_BYTES, 4, 1));
    }
}
