//! Addresses of module and library globals. They are where this process's driver put them, outside the arenas, so copies
//! accept them only after the program has asked for them.

use std::collections::BTreeMap;
use std::ffi::CString;

use lightos_protocol::request::Reply;

use super::Executor;
use super::driver::{CuError, check, sys};
use super::modules::Loaded;

/// Globals handed out so far: size in bytes and the program's module or library, by address.
#[derive(Debug, Default)]
pub(crate) struct Globals {
    ranges: BTreeMap<u64, (u64, u64)>,
}

impl Globals {
    /// Whether all of `[address, address + bytes)` lies in one global.
    pub(super) fn contains(&self, address: u64, bytes: u64) -> bool {
        self.ranges.range(..=address).next_back().is_some_and(|(base, (length, _))| {
            let offset = address - base;
            offset < *length && bytes <= length - offset
        })
    }

    /// The module or library is being unloaded: its globals are no longer memory.
    pub(super) fn forget(&mut self, module: u64) {
        self.ranges.retain(|_, (_, owner)| *owner != module);
    }
}

impl Executor {
    pub(super) fn global_address(
        &mut self,
        module: u64,
        name: String,
        library: bool,
    ) -> Result<Reply, CuError> {
        let name = CString::new(name).map_err(|_| CuError::INVALID_VALUE)?;
        let (mut address, mut bytes) = (0, 0);
        // SAFETY: a loaded image of the kind that each function takes, two out-pointers and a C string, valid for the call.
        check(unsafe {
            match self.modules.loaded(module, library)? {
                Loaded::Module(raw) => {
                    sys::cuModuleGetGlobal_v2(&mut address, &mut bytes, raw, name.as_ptr())
                }
                Loaded::Library(raw) => sys::cuLibraryGetGlobal(&mut address, &mut bytes, raw, name.as_ptr()),
            }
        })?;
        let bytes = bytes as u64;
        self.globals.ranges.insert(address, (bytes, module));
        Ok(Reply::Address { address, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::Globals;

    #[test]
    fn unloading_ends_the_range() {
        let mut globals = Globals::default();
        globals.ranges.insert(0x1000, (16, 7));
        assert!(globals.contains(0x1008, 8));
        assert!(!globals.contains(0x1008, 9));
        globals.forget(7);
        assert!(!globals.contains(0x1000, 1));
    }
}
