//! Handles: numbers that name driver objects, checked at every use.
//!
//! A handle is never a pointer that the driver follows, so a stale or invented one is an error code and not a crash. Numbers
//! are not reused within a process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, RwLock};

use rustc_hash::FxHashMap;

static NEXT: AtomicU64 = AtomicU64::new(0x5047_5500_0000);

/// A fresh handle value: non-null, above every special stream value, 16-aligned like a heap pointer.
pub fn fresh() -> u64 {
    NEXT.fetch_add(16, Ordering::Relaxed)
}

/// The live objects of one kind.
#[derive(Debug)]
pub struct Table<T>(LazyLock<RwLock<FxHashMap<u64, Arc<T>>>>);

impl<T> Table<T> {
    pub const fn new() -> Table<T> {
        Table(LazyLock::new(Default::default))
    }

    /// Enters an object under a handle from [`fresh`].
    pub fn insert(&self, handle: u64, object: Arc<T>) {
        self.write().insert(handle, object);
    }

    pub fn get(&self, handle: u64) -> Option<Arc<T>> {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&handle).cloned()
    }

    pub fn remove(&self, handle: u64) -> Option<Arc<T>> {
        self.write().remove(&handle)
    }

    /// Removes every object that `keep` refuses.
    pub fn retain(&self, mut keep: impl FnMut(&Arc<T>) -> bool) {
        self.write().retain(|_, object| keep(object));
    }

    /// Every object for which `which` holds, in the order of their handles.
    pub fn all(&self, which: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let table = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut found: Vec<_> = table.iter().filter(|(_, object)| which(object)).collect();
        found.sort_unstable_by_key(|(handle, _)| **handle);
        found.into_iter().map(|(_, object)| object.clone()).collect()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, FxHashMap<u64, Arc<T>>> {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
