//! The decoded form: functions as flat lists of [`Op`], and what a handler sees when it runs.

use std::sync::atomic::AtomicU64;

use super::access::Access;
use super::block::Block;
use super::lanes::Bases;
use super::program::Program;
use super::warp::Warp;
use super::{Environment, Fault, Place};

/// Executes one instruction for the lanes in the mask (never empty).
pub type Handler = fn(&mut Machine<'_>, &Op, u32) -> Flow;

/// No guard, no slot, no reconvergence point.
pub const NONE: u32 = u32::MAX;
/// The reconvergence point of lanes that meet again only by leaving the function.
pub const END: u32 = u32::MAX;
/// Set in [`Op::guard`] for `@!p`.
pub const NEGATED: u32 = 1 << 30;

/// What the warp does after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Next,
    /// The handler has set the path and its program counter.
    Jump,
    /// Nothing of this warp can run now; `Warp::fault` says whether a fault is the reason.
    Stop,
}

/// What control flow analysis must know of an instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Plain,
    /// A place that is jumped to.
    Label,
    Branch,
    /// Over the targets in the side table from `b`, `c` of them.
    BranchIndexed,
    /// No lane goes on (`ret`, `exit`, `trap`).
    End,
}

/// One decoded instruction. What `a` to `d`, `flags` and `extra` mean is the handler's affair; for lifted functions
/// they are source slots.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub run: Handler,
    /// Predicate slot, with [`NEGATED`], or [`NONE`].
    pub guard: u32,
    pub dst: u32,
    pub a: u32,
    pub b: u32,
    pub c: u32,
    pub d: u32,
    pub flags: u32,
    pub kind: Kind,
    /// What the checks must know of it.
    pub access: Access,
    /// Source line, for faults.
    pub line: u32,
    pub extra: u64,
}

/// What the checks must know fits into what alignment leaves over.
const _: () = assert!(size_of::<Op>() == 56);

impl Op {
    pub fn new(run: Handler) -> Op {
        Op::of(Kind::Plain, run)
    }

    pub fn of(kind: Kind, run: Handler) -> Op {
        Op {
            run,
            guard: NONE,
            dst: NONE,
            a: NONE,
            b: NONE,
            c: NONE,
            d: NONE,
            flags: 0,
            kind,
            access: Access::NONE,
            line: 0,
            extra: 0,
        }
    }
}

/// A byte range in a frame's local memory that holds a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub offset: u32,
    pub bytes: u32,
}

/// One argument or result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// In the caller's local memory, at this offset in its frame.
    Memory(u32),
    Word(u32),
    Long(u32),
    Sink,
}

/// The argument and result lists of one call.
#[derive(Clone, Debug, Default)]
pub struct CallSite {
    pub results: Vec<Argument>,
    pub arguments: Vec<Argument>,
    /// The functions that an indirect call may reach; empty where the program does not list them.
    pub targets: Vec<u32>,
}

/// A decoded function body.
#[derive(Debug, Default)]
pub struct Function {
    pub name: String,
    pub ops: Vec<Op>,
    /// Side table: vector operands and branch targets.
    pub lists: Vec<u32>,
    pub calls: Vec<CallSite>,
    pub frame: Bases,
    /// Local memory of one thread's frame, parameters of a device function included.
    pub local_bytes: u32,
    pub params: Vec<Slot>,
    pub returns: Vec<Slot>,
    /// True for a kernel, which cannot be called.
    pub entry: bool,
    /// Declared without a body; calls go to the built-in of that name.
    pub builtin: Option<super::builtin::Builtin>,
}

/// What `%envreg1` and `%envreg2` of a cooperative grid point to: a length and the counter of the grid barrier.
pub const WORKSPACE_BYTES: usize = 64;

/// One launch, shared by all its workers.
pub struct GridRun<'a> {
    pub program: &'a Program,
    /// Index of the kernel in the program's functions.
    pub function: u32,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// The parameter buffer, and behind it the [`WORKSPACE_BYTES`] that a cooperative grid synchronises on.
    pub params: &'a [AtomicU64],
    /// Generic address of that workspace; 0 for an ordinary grid.
    pub workspace: u64,
    pub shared_bytes: u32,
    pub dynamic_shared_bytes: u32,
    pub environment: &'a Environment<'a>,
    pub id: u64,
}

/// What an instruction can reach: its warp, its block, its grid.
pub struct Machine<'a> {
    pub warp: &'a mut Warp,
    pub block: &'a mut Block,
    pub grid: &'a GridRun<'a>,
}

impl Machine<'_> {
    /// Where `lane` stands, for a fault.
    pub fn place(&self, op: &Op, lane: u32) -> Place {
        let lane = lane as usize;
        Place {
            kernel: self.grid.program.functions[self.grid.function as usize].name.clone(),
            line: op.line,
            block: self.block.index,
            thread: self.warp.thread.map(|axis| axis[lane]),
        }
    }

    /// Stops the grid.
    #[cold]
    pub fn fail(&mut self, fault: Fault) -> Flow {
        self.warp.fault = Some(Box::new(fault));
        Flow::Stop
    }
}
