//! Module and library globals: they live where the executor's driver put them.
//!
//! Such an address is outside the arenas and means nothing to the local driver. It counts as device memory from the moment the program asks for it
//! until the module is unloaded.

use lightos_protocol::request::{MemoryRequest, Reply, Request};

use super::context;
use super::memory::{LIVE, sidecar};
use crate::alloc::live::Kind;
use crate::edge::{Name, Out};
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
        LIVE.insert(address, bytes, kind);
    }
    address_out.put(address);
    bytes_out.put(bytes as usize);
    Ok(())
}

/// The module or library is unloaded.
pub fn forget(module: u64) {
    LIVE.remove_all(|known| known.kind == Kind::Global { module });
}
