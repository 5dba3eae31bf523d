//! Address resolution: from what a program names to host addresses, checked.
//!
//! Global and constant addresses are host addresses. Shared, local, parameter and code addresses live in windows with
//! bits above the canonical user range set, so that a generic address says by itself where it points.

use super::Fault;
use super::lanes::LANES;
use super::op::{Flow, Machine, NONE, Op};

pub const SHARED_WINDOW: u64 = 0x0100_0000_0000_0000;
pub const LOCAL_WINDOW: u64 = 0x0200_0000_0000_0000;
pub const PARAM_WINDOW: u64 = 0x0300_0000_0000_0000;
pub const CODE_WINDOW: u64 = 0x0400_0000_0000_0000;
const WINDOW_MASK: u64 = 0xff00_0000_0000_0000;

/// Most bytes of local memory per thread, all frames together.
pub const LOCAL_LIMIT_BYTES: u32 = 512 << 10;

/// The space of a memory instruction, in the low bits of its `flags`.
pub mod space {
    pub const GENERIC: u32 = 0;
    pub const GLOBAL: u32 = 1;
    pub const SHARED: u32 = 2;
    pub const LOCAL: u32 = 3;
    /// The kernel's parameter buffer.
    pub const PARAM: u32 = 4;
    /// Local memory, relative to the running frame.
    pub const FRAME: u32 = 5;
    pub const MASK: u32 = 7;
}
/// In `flags`: the address register is a 32-bit word.
pub const NARROW: u32 = 1 << 3;
/// In `flags`: a fence belongs to the access (`.acquire`, `.release`).
pub const FENCE: u32 = 1 << 4;
/// In `flags`: number of vector elements less one.
pub const COUNT_SHIFT: u32 = 8;

/// Device-accessible ranges that this warp has used, by the low bits of the program counter: an instruction tends to
/// stay in one allocation.
#[derive(Debug, Default)]
pub struct RangeCache {
    entries: [(u64, u64); 8],
    epoch: u64,
}

/// Each lane's local memory: 32 equal regions, lane by lane.
#[derive(Debug, Default)]
pub struct LocalMemory {
    store: Vec<u128>,
    /// Bytes per lane, a multiple of 16.
    stride: u32,
}

impl LocalMemory {
    /// Makes room for `bytes` per lane; contents stay.
    pub fn reserve(&mut self, bytes: u32) {
        if bytes <= self.stride {
            return;
        }
        let stride = if self.stride == 0 { bytes } else { bytes.max(self.stride * 2) }.next_multiple_of(16);
        let (old, new) = (self.stride as usize / 16, stride as usize / 16);
        let mut store = vec![0; new * LANES];
        for lane in 0..LANES {
            store[lane * new..][..old].copy_from_slice(&self.store[lane * old..][..old]);
        }
        *self = LocalMemory { store, stride };
    }

    /// Bytes that fit behind `offset` in a lane's region.
    fn room(&self, offset: u64) -> usize {
        u64::from(self.stride).saturating_sub(offset) as usize
    }

    /// Reads what fits; the caller has reserved the frame that it reads from.
    pub fn read(&self, lane: usize, offset: u64, into: &mut [u8]) {
        let length = into.len().min(self.room(offset));
        let from = self.store.as_ptr().cast::<u8>().wrapping_add(lane * self.stride as usize);
        if length > 0 {
            // SAFETY: `room` keeps the range inside this lane's region of the store, which `&self` keeps alive.
            unsafe { std::ptr::copy_nonoverlapping(from.add(offset as usize), into.as_mut_ptr(), length) };
        }
    }

    /// Writes what fits.
    pub fn write(&mut self, lane: usize, offset: u64, from: &[u8]) {
        let length = from.len().min(self.room(offset));
        let to = self.store.as_mut_ptr().cast::<u8>();
        let at = lane * self.stride as usize + offset as usize;
        if length > 0 {
            // SAFETY: `room` keeps the range inside this lane's region of the store, which is borrowed exclusively.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.add(at), length) };
        }
    }

    /// Copies within a lane's region.
    pub fn copy(&mut self, lane: usize, from: u64, to: u64, bytes: u32) {
        let length = (bytes as usize).min(self.room(from)).min(self.room(to));
        let base = self.store.as_mut_ptr().cast::<u8>().wrapping_add(lane * self.stride as usize);
        if length > 0 {
            // SAFETY: `room` keeps both ranges inside this lane's region of the store, which is borrowed exclusively.
            unsafe { std::ptr::copy(base.add(from as usize), base.add(to as usize), length) };
        }
    }

    /// Offset in its lane's region of the byte at a host address, if it lies in the store.
    pub fn offset_of(&self, host: u64) -> Option<u64> {
        let at = host.wrapping_sub(self.store.as_ptr() as u64);
        (at < self.store.len() as u64 * 16).then(|| at % u64::from(self.stride))
    }

    /// Host address of byte `offset` of `lane`, if `bytes` fit.
    pub fn resolve(&mut self, lane: usize, offset: u64, bytes: u64) -> Option<u64> {
        let end = offset.checked_add(bytes)?;
        let base = self.store.as_mut_ptr() as u64;
        (end <= u64::from(self.stride)).then(|| base + lane as u64 * u64::from(self.stride) + offset)
    }
}

fn space_name(space: u32) -> &'static str {
    match space {
        space::SHARED => "shared",
        space::LOCAL | space::FRAME => "local",
        space::PARAM => "param",
        _ => "global",
    }
}

impl Machine<'_> {
    /// The 32 addresses that `op` names, in its space.
    #[inline(always)]
    fn addresses(&self, op: &Op) -> [u64; LANES] {
        if op.a == NONE {
            [op.extra; LANES]
        } else if op.flags & NARROW != 0 {
            self.words(op.a).map(|base| u64::from(base.wrapping_add(op.extra as u32)))
        } else {
            self.longs(op.a).map(|base| base.wrapping_add(op.extra))
        }
    }

    /// Host addresses of `bytes` bytes for the lanes in `mask`; other lanes' entries mean nothing.
    #[inline(always)]
    pub fn resolve(&mut self, op: &Op, mask: u32, bytes: u32) -> Result<[u64; LANES], Flow> {
        let addresses = self.addresses(op);
        let (mut low, mut high, mut misaligned) = (u64::MAX, 0, 0);
        for (i, &address) in addresses.iter().enumerate() {
            let active = 0u64.wrapping_sub(u64::from(mask >> i & 1));
            low = low.min(address | !active);
            high = high.max(address & active);
            misaligned |= address & active;
        }
        if misaligned & u64::from(bytes - 1) != 0 {
            return Err(self.misaligned(op, &addresses, mask, bytes));
        }
        let space = op.flags & space::MASK;
        if space == space::GLOBAL || space == space::GENERIC && high & WINDOW_MASK == 0 {
            let length = u64::from(bytes);
            let slot = self.warp.path.pc as usize & 7;
            self.warp.stats.global_bytes += length * u64::from(mask.count_ones());
            let (start, end) = self.warp.ranges.entries[slot];
            let known = self.warp.ranges.epoch == self.grid.environment.memory.epoch();
            if known && start <= low && high < end && end - high >= length {
                return Ok(addresses);
            }
            return self.resolve_global(op, addresses, mask, bytes, slot);
        }
        if space == space::SHARED {
            let limit = self.block.shared_bytes();
            if high < limit && limit - high >= u64::from(bytes) {
                let base = self.block.shared.as_mut_ptr() as u64;
                return Ok(addresses.map(|offset| offset.wrapping_add(base)));
            }
        }
        if let space::LOCAL | space::FRAME = space {
            let frame = if space == space::FRAME { u64::from(self.warp.path.local) } else { 0 };
            let stride = u64::from(self.warp.local.stride);
            if high.saturating_add(frame).saturating_add(u64::from(bytes)) <= stride {
                let mut next = (self.warp.local.store.as_mut_ptr() as u64).wrapping_add(frame);
                return Ok(addresses.map(|offset| {
                    let host = next.wrapping_add(offset);
                    next = next.wrapping_add(stride);
                    host
                }));
            }
        }
        self.resolve_each(op, addresses, mask, bytes)
    }

    /// Host address of `bytes` bytes of the parameter buffer from `op.extra`.
    #[inline(always)]
    pub fn resolve_param(&mut self, op: &Op, mask: u32, bytes: u32) -> Result<u64, Flow> {
        let length = self.grid.params.len() as u64 * 8;
        if op.extra & u64::from(bytes - 1) == 0 && op.extra < length && length - op.extra >= u64::from(bytes)
        {
            return Ok(self.grid.params.as_ptr() as u64 + op.extra);
        }
        self.resolve(op, mask, bytes).map(|hosts| hosts[mask.trailing_zeros() as usize])
    }

    /// The way for lanes in several ranges, and for ranges not seen yet.
    #[cold]
    fn resolve_global(
        &mut self,
        op: &Op,
        addresses: [u64; LANES],
        mask: u32,
        bytes: u32,
        slot: usize,
    ) -> Result<[u64; LANES], Flow> {
        for (lane, &address) in addresses.iter().enumerate() {
            if mask >> lane & 1 != 0 && !self.in_global(address, bytes, slot) {
                return Err(self.illegal(op, address, bytes, "global", lane));
            }
        }
        Ok(addresses)
    }

    fn in_global(&mut self, address: u64, bytes: u32, slot: usize) -> bool {
        let memory = self.grid.environment.memory;
        let ranges = &mut self.warp.ranges;
        let epoch = memory.epoch();
        if ranges.epoch != epoch {
            *ranges = RangeCache { epoch, ..RangeCache::default() };
        }
        let holds =
            |(start, end): (u64, u64)| start <= address && address < end && end - address >= u64::from(bytes);
        if holds(ranges.entries[slot]) {
            return true;
        }
        match memory.range(address) {
            Some(range) if holds(range) => {
                ranges.entries[slot] = range;
                true
            }
            _ => false,
        }
    }

    /// Lane by lane, whatever the space.
    fn resolve_each(
        &mut self,
        op: &Op,
        mut addresses: [u64; LANES],
        mask: u32,
        bytes: u32,
    ) -> Result<[u64; LANES], Flow> {
        let named = op.flags & space::MASK;
        for (lane, entry) in addresses.iter_mut().enumerate() {
            if mask >> lane & 1 == 0 {
                continue;
            }
            let address = *entry;
            let (space, offset) = match named {
                space::GENERIC => match address & WINDOW_MASK {
                    SHARED_WINDOW => (space::SHARED, address & !WINDOW_MASK),
                    LOCAL_WINDOW => (space::LOCAL, address & !WINDOW_MASK),
                    PARAM_WINDOW => (space::PARAM, address & !WINDOW_MASK),
                    _ => (space::GLOBAL, address),
                },
                // Addresses of parameters that were converted to generic keep their window.
                space::PARAM if address & WINDOW_MASK == LOCAL_WINDOW => {
                    (space::LOCAL, address & !WINDOW_MASK)
                }
                space::PARAM => (space::PARAM, address & !WINDOW_MASK),
                _ => (named, address),
            };
            let host = self.host_address(space, lane, offset, bytes);
            *entry = match host {
                Some(host) => host,
                None => return Err(self.illegal(op, address, bytes, space_name(space), lane)),
            };
        }
        Ok(addresses)
    }

    fn host_address(&mut self, space: u32, lane: usize, offset: u64, bytes: u32) -> Option<u64> {
        let length = u64::from(bytes);
        match space {
            space::SHARED => {
                let end = offset.checked_add(length)?;
                let base = self.block.shared.as_mut_ptr() as u64;
                (end <= self.block.shared_bytes()).then(|| base + offset)
            }
            space::LOCAL => self.warp.local.resolve(lane, offset, length),
            space::FRAME => {
                let frame = u64::from(self.warp.path.local);
                self.warp.local.resolve(lane, frame.checked_add(offset)?, length)
            }
            space::PARAM => {
                let end = offset.checked_add(length)?;
                let base = self.grid.params.as_ptr() as u64;
                (end <= self.grid.params.len() as u64 * 8).then(|| base + offset)
            }
            _ => self.in_global(offset, bytes, 0).then_some(offset),
        }
    }

    /// Host address of one lane's generic address, for built-ins. `None` where it may not be accessed.
    pub fn generic(&mut self, lane: usize, address: u64, bytes: u32) -> Option<u64> {
        let offset = address & !WINDOW_MASK;
        match address & WINDOW_MASK {
            SHARED_WINDOW => self.host_address(space::SHARED, lane, offset, bytes),
            LOCAL_WINDOW => self.host_address(space::LOCAL, lane, offset, bytes),
            PARAM_WINDOW => self.host_address(space::PARAM, lane, offset, bytes),
            _ => self.host_address(space::GLOBAL, lane, address, bytes),
        }
    }

    #[cold]
    fn misaligned(&mut self, op: &Op, addresses: &[u64; LANES], mask: u32, bytes: u32) -> Flow {
        let odd = |lane: &usize| mask >> lane & 1 != 0 && addresses[*lane] & u64::from(bytes - 1) != 0;
        let lane = (0..LANES).find(odd).unwrap_or(0);
        let place = self.place(op, lane as u32);
        self.fail(Fault::MisalignedAddress { address: addresses[lane], bytes, place })
    }

    #[cold]
    fn illegal(&mut self, op: &Op, address: u64, bytes: u32, space: &'static str, lane: usize) -> Flow {
        let place = self.place(op, lane as u32);
        self.fail(Fault::IllegalAddress { address, bytes, space, place })
    }
}
