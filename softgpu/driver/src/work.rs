//! What streams do: the payload of graph nodes ([`Work`]) and the tasks of a queue ([`Task`]), and how they run.
//!
//! Tasks run on the stream's thread. After a device fault nothing runs any more, but events are still passed, so no waiter
//! hangs.

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use crate::abi::{HostFn, MemOp, Memcpy3d, Memset, StreamCallback};
use crate::capture;
use crate::check;
use crate::context::{self, Context};
use crate::copy::{self, Plan};
use crate::device;
use crate::error::{Error, Result};
use crate::event::{Event, Marker};
use crate::graph::Graph;
use crate::graph::memory::Allocation;
use crate::launch::KernelCall;
use crate::memory;
use crate::space::SPACE;
use crate::stream::Stream;
use crate::userobject::UserObject;

/// The program's pointer, passed back to it untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserData(pub *mut c_void);

// SAFETY: the driver never follows the pointer; CUDA hands it to a function that runs on a driver thread by contract.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

/// A host function and its argument.
#[derive(Clone, Copy, Debug)]
pub struct HostCall {
    pub function: HostFn,
    pub data: UserData,
}

/// Something a stream can do and a graph node can hold.
#[derive(Clone, Debug)]
pub enum Work {
    Kernel(Arc<KernelCall>),
    /// The parameters as given.
    Copy(Memcpy3d),
    Fill(Memset),
    Host(HostCall),
    Child(Arc<Graph>),
    Empty,
    WaitEvent(Arc<Event>),
    RecordEvent(Arc<Event>),
    MemOps(Vec<MemOp>),
    Allocate(Arc<Allocation>),
    /// Of the allocation that starts there.
    Free(u64),
}

/// One entry of a stream's queue.
#[derive(Debug)]
pub enum Task {
    Kernel(Arc<KernelCall>),
    Copy(Plan),
    Fill(Memset),
    Host(HostCall),
    Callback {
        function: StreamCallback,
        stream: u64,
        data: UserData,
    },
    Record(Arc<Marker>),
    Await(Arc<Marker>),
    MemOps(Vec<MemOp>),
    /// A stream-ordered free of the allocation that starts there.
    FreeAt(u64),
    /// Memory of a graph that the tasks before need.
    Hold(Vec<Arc<Allocation>>),
    /// User objects of a graph, kept until its launch is done.
    Keep(Vec<Arc<UserObject>>),
    /// A graph's tasks, in order.
    Sequence(Vec<Task>),
}

impl Stream {
    /// Gives the stream work to do, or the graph that it captures into a node.
    pub fn submit(self: &Arc<Self>, work: Work) -> Result {
        if capture::add(self, &work)? {
            return Ok(());
        }
        capture::forbid_implicit(self)?;
        let mut tasks = Vec::new();
        prepare(work, &mut tasks)?;
        tasks.into_iter().try_for_each(|task| self.enqueue(task).map(drop))
    }
}

/// Turns work into tasks. Copies and fills are checked against the address space here.
pub fn prepare(work: Work, tasks: &mut Vec<Task>) -> Result {
    match work {
        Work::Kernel(call) => tasks.push(Task::Kernel(call)),
        Work::Copy(parameters) => tasks.extend(copy::plan(&parameters)?.map(Task::Copy)),
        Work::Fill(fill) => {
            if copy::check_fill(&fill)? {
                tasks.push(Task::Fill(fill));
            }
        }
        Work::Host(call) => tasks.push(Task::Host(call)),
        Work::Empty => {}
        Work::WaitEvent(event) => tasks.extend(event.marker()?.map(Task::Await)),
        Work::RecordEvent(event) => tasks.push(Task::Record(event.renew())),
        Work::MemOps(ops) => tasks.push(Task::MemOps(ops)),
        // The launch has done what is to be done.
        Work::Allocate(_) | Work::Free(_) => {}
        Work::Child(graph) => {
            for node in graph.ordered()? {
                prepare(node.work(), tasks)?;
            }
        }
    }
    Ok(())
}

impl Task {
    /// Runs the task; a fault or a panic becomes the sticky error.
    pub fn run(self, context: &Context) {
        if catch_unwind(AssertUnwindSafe(|| self.perform(context))).is_err() {
            context::poison(Error::LAUNCH_FAILED);
        }
    }

    fn perform(self, context: &Context) {
        let healthy = context::poisoned().is_ok();
        match self {
            Task::Record(marker) => marker.pass(),
            Task::Await(marker) => marker.wait(),
            Task::FreeAt(start) => memory::finish_free(start),
            Task::Hold(allocations) => drop(allocations),
            Task::Keep(objects) => drop(objects),
            Task::Sequence(tasks) => tasks.into_iter().for_each(|task| task.perform(context)),
            Task::Callback { function: Some(function), stream, data } => {
                let status = context::poisoned().err().map_or(0, |error| error.0);
                // SAFETY: the program passed function and data for exactly this call.
                unsafe { function(stream, status, data.0) };
            }
            _ if !healthy => {}
            Task::Kernel(call) => busy(context, || {
                if let Err(fault) = call.run(context) {
                    context::poison(fault);
                }
            }),
            Task::Copy(plan) => busy(context, || plan.run()),
            Task::Fill(fill) => busy(context, || copy::run_fill(&fill)),
            Task::Host(HostCall { function: Some(function), data }) => {
                // SAFETY: the program passed function and data for exactly this call.
                unsafe { function(data.0) };
            }
            Task::MemOps(ops) => ops.iter().for_each(|op| perform_mem_op(op, context)),
            Task::Host(_) | Task::Callback { .. } => {}
        }
    }
}

fn busy(context: &Context, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    device::state().add_busy(context.device.index(), ns);
}

/// `CUstreamBatchMemOpType`.
pub const WAIT_VALUE_32: u32 = 1;
pub const WRITE_VALUE_32: u32 = 2;
pub const FLUSH_REMOTE_WRITES: u32 = 3;
pub const WAIT_VALUE_64: u32 = 4;
pub const WRITE_VALUE_64: u32 = 5;
pub const BARRIER: u32 = 6;

/// Checks an operation of `cuStreamBatchMemOp`.
pub fn check_mem_op(op: &MemOp) -> Result {
    let bytes = match op.operation {
        WAIT_VALUE_32 | WRITE_VALUE_32 => 4,
        WAIT_VALUE_64 | WRITE_VALUE_64 => 8,
        BARRIER => return Ok(()),
        FLUSH_REMOTE_WRITES => return Err(Error::NOT_SUPPORTED),
        _ => return Err(Error::INVALID_VALUE),
    };
    let is_wait = matches!(op.operation, WAIT_VALUE_32 | WAIT_VALUE_64);
    // Waits: comparison in the low two bits, bit 30 flushes remote writes. Writes: bit 0 drops the memory barrier.
    let known = if is_wait { 3 } else { 1 };
    if op.flags & !known != 0 {
        return Err(if is_wait && op.flags & !3 == 1 << 30 {
            Error::NOT_SUPPORTED
        } else {
            Error::INVALID_VALUE
        });
    }
    if !op.address.is_multiple_of(bytes) {
        return Err(Error::INVALID_VALUE);
    }
    SPACE.require(op.address, bytes)
}

fn perform_mem_op(op: &MemOp, context: &Context) {
    // SAFETY: `check_mem_op` found four bytes accessible and aligned; freeing memory waits for queued work.
    let word32 = || unsafe { AtomicU32::from_ptr(op.address as *mut u32) };
    // SAFETY: as above, for the eight bytes of a 64-bit operation.
    let word64 = || unsafe { AtomicU64::from_ptr(op.address as *mut u64) };
    match op.operation {
        WRITE_VALUE_32 => {
            check::wrote(op.address, 4);
            word32().store(op.value as u32, Ordering::SeqCst);
        }
        WRITE_VALUE_64 => {
            check::wrote(op.address, 8);
            word64().store(op.value, Ordering::SeqCst);
        }
        WAIT_VALUE_32 => wait_for(context, || {
            let (now, value) = (word32().load(Ordering::SeqCst), op.value as u32);
            match op.flags & 3 {
                0 => now.wrapping_sub(value).cast_signed() >= 0,
                1 => now == value,
                2 => now & value != 0,
                _ => !(now | value) != 0,
            }
        }),
        WAIT_VALUE_64 => wait_for(context, || {
            let (now, value) = (word64().load(Ordering::SeqCst), op.value);
            match op.flags & 3 {
                0 => now.wrapping_sub(value).cast_signed() >= 0,
                1 => now == value,
                2 => now & value != 0,
                _ => !(now | value) != 0,
            }
        }),
        _ => fence(Ordering::SeqCst),
    }
}

/// Polls: the writer may be another process or a store of the program, so there is nobody to wake us.
fn wait_for(context: &Context, reached: impl Fn() -> bool) {
    let mut turns = 0u32;
    while !reached() && !context.cancel.load(Ordering::Acquire) && context::poisoned().is_ok() {
        turns = turns.saturating_add(1);
        match turns {
            0..64 => std::hint::spin_loop(),
            64..256 => std::thread::yield_now(),
            _ => std::thread::sleep(Duration::from_micros(20)),
        }
    }
}
