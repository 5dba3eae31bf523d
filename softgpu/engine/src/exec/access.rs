//! What an instruction does to memory, or to the order of threads, as the checks (`watch`) must know it.
//!
//! Whoever decodes an instruction that reads or writes memory, or that threads wait at, says so in [`Op::access`]; what is
//! not said is not watched, and memory that was written unsaid would be reported as never written.
//!
//! [`Op::access`]: super::op::Op::access

/// How an instruction touches memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Touch {
    #[default]
    None,
    /// `ld`, `st`, `atom`, `red`: elements at the address of each lane.
    Elements,
    /// `atom` of 128 bits.
    Wide,
    /// `cp.async`.
    CopyAsync,
    /// `cp.async.bulk`.
    CopyBulk,
    /// `ldmatrix`, `stmatrix`.
    Rows,
    /// `wmma.load`, `wmma.store`.
    Matrix,
    /// An operation on an `mbarrier` that does not wait.
    Mbarrier,
    /// `mbarrier.test_wait`, `mbarrier.try_wait`.
    MbarrierWait,
    /// A collective of the lanes in the slot `d`, or of those that are active.
    Collective,
    /// `bar.warp.sync` of the lanes in the slot `a`.
    WarpBarrier,
    /// `bar.sync`, `bar.red`: arrives and waits.
    Barrier,
    /// `bar.arrive`.
    BarrierArrive,
    Call,
}

pub const READS: u8 = 1;
pub const WRITES: u8 = 2;
/// Atomic, or `.volatile`, `.relaxed`, `.acquire`, `.release`: two of them on the same byte are no race.
pub const STRONG: u8 = 4;
/// Whatever is read is not used for what is written (`atom.exch`).
pub const BLIND: u8 = 8;

/// Of a barrier: the cluster's. Its arrival counts as waiting too, so that what comes behind the wait is ordered.
pub const CLUSTER: u8 = 16;

/// Three bytes, which the decoded instruction has to spare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub touch: Touch,
    /// Bytes of one element.
    pub bytes: u8,
    pub flags: u8,
}

impl Access {
    pub const NONE: Access = Access { touch: Touch::None, bytes: 0, flags: 0 };

    pub const fn of(touch: Touch) -> Access {
        Access { touch, bytes: 0, flags: 0 }
    }

    pub const fn elements(bytes: u32, flags: u8) -> Access {
        Access { touch: Touch::Elements, bytes: bytes as u8, flags }
    }
}

/// [`STRONG`] if one of the dotted words makes an access strong.
pub fn strength(words: &[String]) -> u8 {
    let strong = ["volatile", "relaxed", "acquire", "release", "mmio"];
    if words.iter().any(|word| strong.contains(&word.as_str())) { STRONG } else { 0 }
}
