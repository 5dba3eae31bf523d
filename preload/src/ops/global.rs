//! Module and library globals: they live where the executor's driver put them.
//!
//! Such an address is outside the arenas and means nothing to the local driver. It counts as device memory from the moment the program asks for it
//! until the module is unloaded.
//!
//! For as long its pages are claimed in this process ([`claims`]): no memory of the program's own may come to lie at the same address, since
//! copies and pointer queries tell the two apart by address alone, and the local driver must know the address in graphs.

mod claims;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lightos_protocol::request::{MemoryRequest, Reply, Request};

use super::memory::{LIVE, sidecar};
use super::{capture, context, host};
use crate::alloc::live::Kind;
use crate::edge::{Name, Out};
use crate::outcome::{Outcome, Reason};
use crate::real;
use crate::result::CuResult;
use claims::{Claims, Driver};

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
        ANY.store(true, Relaxed);
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

/// Has the local driver know the variables that a graph is about to name; whether there are any.
pub fn introduce(addresses: [u64; 2]) -> bool {
    if !ANY.load(Relaxed) {
        return false;
    }
    let mut claims = claims();
    let [first, second] = addresses.map(|address| claims.introduce(address));
    first || second
}

/// The module or library is unloaded.
pub fn forget(module: u64) {
    let _ = LIVE.remove_all(|known| known.kind == Kind::Global { module });
    claims().release(module);
}

/// `CU_MEMHOSTREGISTER_PORTABLE` | `_DEVICEMAP`.
const REGISTER_FLAGS: u32 = 3;

/// Set once the program has asked for a variable.
static ANY: AtomicBool = AtomicBool::new(false);
static CLAIMS: Mutex<Claims> = Mutex::new(Claims::new(Driver { register, unregister: host::unpin }));

fn claims() -> MutexGuard<'static, Claims> {
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Without a registration the variable works everywhere but in copies and fills of graphs. It takes as much memory of the host as the variable has.
fn register(address: u64, bytes: u64) -> bool {
    if host::available_bytes().is_some_and(|available| bytes > available) {
        return false;
    }
    // SAFETY: freshly mapped, and unregistered before it is unmapped.
    let call =
        || unsafe { real::cuMemHostRegister_v2(host::pointer(address), bytes as usize, REGISTER_FLAGS) };
    capture::relaxed(call) == CuResult::SUCCESS
}
