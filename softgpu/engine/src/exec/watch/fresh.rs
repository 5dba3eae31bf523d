//! Memory that has not been written: shared memory since the block began, local memory since its frame was entered, device
//! memory since it was allocated.

use std::sync::Arc;

use crate::check::{Region, Written};

#[derive(Debug, Default)]
pub struct Fresh {
    /// One flag a byte: has been written.
    shared: Vec<bool>,
    /// For each warp and byte of local memory, the lanes that have written theirs.
    locals: Vec<Vec<u32>>,
    /// The allocation used last, and the table's epoch when it was looked up.
    recent: Option<(u64, Arc<Region>)>,
}

impl Fresh {
    pub fn start(&mut self, warps: usize, shared_bytes: usize) {
        self.shared.clear();
        // Shared memory is allocated in units of 16 bytes.
        self.shared.resize(shared_bytes.next_multiple_of(16), false);
        self.locals.resize_with(warps, Vec::new);
        self.locals.iter_mut().for_each(Vec::clear);
    }

    /// True where none of the bytes has been written.
    pub fn shared(&self, offset: u64, bytes: u32) -> bool {
        let range = offset as usize..offset as usize + bytes as usize;
        self.shared.get(range).is_some_and(|written| !written.contains(&true))
    }

    pub fn write_shared(&mut self, offset: u64, bytes: u32) {
        let range = offset as usize..offset as usize + bytes as usize;
        if let Some(written) = self.shared.get_mut(range) {
            written.fill(true);
        }
    }

    /// As [`Fresh::shared`], for a lane's local memory.
    pub fn local(&self, warp: u32, lane: usize, offset: u64, bytes: u32) -> bool {
        let written = self.locals[warp as usize].iter().skip(offset as usize).take(bytes as usize);
        written.fold(0, |lanes, byte| lanes | byte) >> lane & 1 == 0
    }

    pub fn write_local(&mut self, warp: u32, lanes: u32, offset: u64, bytes: u32) {
        self.local_bytes(warp, offset, bytes).iter_mut().for_each(|written| *written |= lanes);
    }

    /// The lanes enter a frame, of which they have written nothing.
    pub fn enter_frame(&mut self, warp: u32, lanes: u32, offset: u64, bytes: u32) {
        self.local_bytes(warp, offset, bytes).iter_mut().for_each(|written| *written &= !lanes);
    }

    fn local_bytes(&mut self, warp: u32, offset: u64, bytes: u32) -> &mut [u32] {
        let written = &mut self.locals[warp as usize];
        let end = offset as usize + bytes as usize;
        if written.len() < end {
            written.resize(end, 0);
        }
        &mut written[offset as usize..end]
    }

    /// Start and size of the allocation where none of the bytes has been written.
    pub fn global(&mut self, memory: &Written, address: u64, bytes: u32) -> Option<(u64, u64)> {
        let region = self.region(memory, address, bytes)?;
        region.is_fresh(address, u64::from(bytes)).then_some((region.start, region.bytes))
    }

    pub fn write_global(&mut self, memory: &Written, address: u64, bytes: u32) {
        if let Some(region) = self.region(memory, address, bytes) {
            region.mark(address, u64::from(bytes));
        }
    }

    fn region(&mut self, memory: &Written, address: u64, bytes: u32) -> Option<&Region> {
        let epoch = memory.epoch();
        let known = |recent: &Option<(u64, Arc<Region>)>| {
            recent
                .as_ref()
                .is_some_and(|(at, region)| *at == epoch && region.holds(address, u64::from(bytes)))
        };
        if !known(&self.recent) {
            self.recent = memory.find(address).map(|region| (epoch, region));
        }
        if known(&self.recent) { self.recent.as_ref().map(|(_, region)| &**region) } else { None }
    }
}
