//! User objects: resources of the program that live as long as the graphs that refer to them.
//!
//! The object's destructor runs on a thread of its own once the last reference is gone, whoever drops it: like other host
//! functions it may not call CUDA.

use std::sync::{Arc, Mutex};

use crate::abi::HostFn;
use crate::context;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::work::UserData;

/// A resource with its destructor.
#[derive(Debug)]
pub struct UserObject {
    pub handle: u64,
    destroy: HostFn,
    data: UserData,
}

impl Drop for UserObject {
    fn drop(&mut self) {
        let (destroy, data) = (self.destroy, self.data);
        let run = move || {
            // The whole of `data` moves to the thread, not the bare pointer in it.
            let data: UserData = data;
            context::forbid_calls(true);
            if let Some(destroy) = destroy {
                // SAFETY: the program passed function and data for exactly this call.
                unsafe { destroy(data.0) };
            }
        };
        let _ = std::thread::Builder::new().name("softgpu-user".to_owned()).spawn(run);
    }
}

/// The references that the program itself owns.
#[derive(Debug)]
struct Owned(Mutex<Vec<Arc<UserObject>>>);

static OBJECTS: Table<Owned> = Table::new();

/// `cuUserObjectCreate`; the only flag, which must be set, is NO_DESTRUCTOR_SYNC.
pub fn create(destroy: HostFn, data: UserData, count: u32, flags: u32) -> Result<u64> {
    if destroy.is_none() || count == 0 || count > i32::MAX as u32 || flags != 1 {
        return Err(Error::INVALID_VALUE);
    }
    let handle = handle::fresh();
    let object = Arc::new(UserObject { handle, destroy, data });
    OBJECTS.insert(handle, Arc::new(Owned(Mutex::new(vec![object; count as usize]))));
    Ok(handle)
}

/// `cuUserObjectRetain`.
pub fn retain(handle: u64, count: u32) -> Result {
    let owned = OBJECTS.get(handle).ok_or(Error::INVALID_VALUE)?;
    let mut references = owned.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let object = references.first().cloned().ok_or(Error::INVALID_VALUE)?;
    references.extend(std::iter::repeat_n(object, count as usize));
    Ok(())
}

/// Takes references from the program: to drop them, or to give them to a graph.
pub fn take(handle: u64, count: u32) -> Result<Arc<UserObject>> {
    let owned = OBJECTS.get(handle).ok_or(Error::INVALID_VALUE)?;
    let mut references = owned.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let left =
        references.len().checked_sub(count as usize).filter(|_| count > 0).ok_or(Error::INVALID_VALUE)?;
    let object = references[0].clone();
    references.truncate(left);
    if left == 0 {
        OBJECTS.remove(handle);
    }
    Ok(object)
}

/// One more reference, for a graph.
pub fn share(handle: u64) -> Result<Arc<UserObject>> {
    let owned = OBJECTS.get(handle).ok_or(Error::INVALID_VALUE)?;
    let references = owned.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    references.first().cloned().ok_or(Error::INVALID_VALUE)
}
