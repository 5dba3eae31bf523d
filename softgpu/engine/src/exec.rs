//! Execution of PTX: the interface between the driver face and the interpreter.
//!
//! A device address is a host virtual address of this process, so the interpreter reads and writes memory directly
//! after asking [`Memory`] whether the range is device-accessible. Shared and local windows are generic addresses
//! outside every host mapping.
//!
//! [`Program::load`] turns each function into a flat list of instructions, each with the handler that executes it for a
//! whole warp (`decode`, `operand`, `cfg`, and one file per family of instructions). [`Program::run`] spreads the blocks
//! of a grid over the cores (`grid`), lets the warps of a block take turns (`block`, `warp`) and follows the lanes of a
//! warp where they part and meet (`path`). Registers are arrays of 32 lanes (`lanes`); `memory` checks every address; `image`
//! does so for texture and surface objects.
//! A grid that is checked runs through `watch`, which knows each instruction by its `access`.
//!
//! Threads: a grid runs on the thread that calls `run` and on scoped helpers that end with it; nothing outlives a call.
//! A program is shared by any number of concurrent runs. No panic leaves `run`; what is not supported is a [`LoadError`],
//! never a wrong result.

mod access;
mod alu_bits;
mod alu_int;
mod atomics;
mod block;
mod builtin;
mod bulk;
mod call;
mod cfg;
mod cluster;
mod collective;
mod compare;
mod constants;
mod control;
mod convert;
mod decode;
mod describe;
mod float;
mod fragment;
mod grace;
mod grid;
mod half_float;
mod heap;
mod hints;
pub mod image;
mod lanes;
mod layout;
mod matrix;
mod mbarrier;
mod memory;
mod moves;
mod narrow;
mod op;
mod operand;
mod packed;
mod path;
mod pressure;
mod program;
mod rounding;
mod scope;
mod special;
mod stack;
mod surface;
mod texture;
mod transfer;
mod video;
mod warp;
mod watch;
mod wide;
mod wmma;
mod words;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use grace::quiesce;
pub use program::Program;

use crate::check::Checker;

/// Which addresses device code may touch. Asked on the hot path: implementations hand out snapshots, and the
/// interpreter caches the last range per warp.
pub trait Memory: Send + Sync {
    /// The device-accessible range `[start, end)` that contains `address`, if any.
    fn range(&self, address: u64) -> Option<(u64, u64)>;
    /// Bumped whenever a range is added or removed; a cached range of an older epoch must be asked for again.
    fn epoch(&self) -> u64;
    /// The texture object of that handle. Its memory is looked up by [`Memory::range`], and a warp keeps the object for as long
    /// as the epoch stays the same.
    fn texture(&self, _handle: u64) -> Option<Arc<image::Texture>> {
        None
    }
    /// The surface object of that handle; as [`Memory::texture`].
    fn surface(&self, _handle: u64) -> Option<Arc<image::Surface>> {
        None
    }
}

/// Why a grid stopped. The driver face maps each to the CUresult that real hardware gives.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("illegal address {address:#x} ({bytes} bytes, {space}) at {place}")]
    IllegalAddress { address: u64, bytes: u32, space: &'static str, place: Place },
    #[error("misaligned address {address:#x} ({bytes} bytes) at {place}")]
    MisalignedAddress { address: u64, bytes: u32, place: Place },
    #[error("invalid {kind} object {handle:#x}, or its memory is gone, at {place}")]
    InvalidObject { kind: &'static str, handle: u64, place: Place },
    #[error("illegal instruction at {place}: {what}")]
    IllegalInstruction { what: String, place: Place },
    #[error("trap at {place}")]
    Trap { place: Place },
    #[error("device assertion failed: {message} at {place}")]
    Assert { message: String, place: Place },
    #[error("call stack or local memory exhausted at {place}")]
    StackOverflow { place: Place },
    #[error("deadlock: no warp of block {block:?} can make progress at {place}")]
    Deadlock { block: [u32; 3], place: Place },
    #[error("cancelled")]
    Cancelled,
}

/// Where in the program a fault arose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub kernel: String,
    pub line: u32,
    pub block: [u32; 3],
    pub thread: [u32; 3],
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kernel {} line {} block {:?} thread {:?}", self.kernel, self.line, self.block, self.thread)
    }
}

/// A module load that failed: the JIT log names line, column and opcode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{log}")]
pub struct LoadError {
    pub log: String,
    /// True where the text is PTX but holds an instruction that the machine does not carry, false where it is not PTX. Both
    /// are CUDA_ERROR_INVALID_PTX.
    pub unsupported: bool,
    /// The text's `.version`, 8.3 as `(8, 3)`; `None` where the text could not be read.
    pub version: Option<(u32, u32)>,
}

/// One kernel parameter as `cuFuncGetParamInfo` reports it. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    pub offset: usize,
    pub size: usize,
}

/// What `cuFuncGetAttribute` answers for a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelInfo {
    pub name: String,
    pub params: Vec<ParamInfo>,
    /// Bytes of the parameter buffer, all padding included.
    pub param_bytes: usize,
    pub static_shared_bytes: u32,
    pub const_bytes: u32,
    pub local_bytes: u32,
    /// 32-bit registers of a thread: what the PTX needs at once, under the limits of its directives.
    pub registers: u32,
    /// From `.maxntid` / `.reqntid`, else 1024.
    pub max_threads_per_block: u32,
    /// `.reqntid`, where present.
    pub required_block: Option<[u32; 3]>,
    /// The SM version of the PTX target, 90 for sm_90.
    pub target_sm: u32,
}

/// One grid.
#[derive(Clone, Debug)]
pub struct Grid<'a> {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared_bytes: u32,
    /// The packed parameter buffer, `KernelInfo::param_bytes` long.
    pub params: &'a [u8],
    /// All blocks must be resident together and may meet at a grid barrier.
    pub cooperative: bool,
}

/// What a run did, for utilisation and power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    pub warp_instructions: u64,
    pub lane_instructions: u64,
    pub global_bytes: u64,
}

/// What the device offers to the program: memory, and the machine's fixed figures for special registers.
pub struct Environment<'a> {
    pub memory: &'a dyn Memory,
    pub sm_count: u32,
    /// Set by context destruction; the interpreter looks at it at least once per block and every few thousand warp
    /// instructions.
    pub cancel: &'a AtomicBool,
    /// Device-side printf output.
    pub print: &'a (dyn Fn(&str) + Sync),
    /// Watches the grid for what the checker asks for; `None` costs nothing.
    pub check: Option<&'a Checker>,
}

impl std::fmt::Debug for Environment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("sm_count", &self.sm_count).finish_non_exhaustive()
    }
}
