//! Streams: in-order queues, each served by one thread that starts with the first task.
//!
//! A task carries the positions in other streams that it must wait for; they are always earlier submissions, so waits form no
//! cycle. The legacy default stream waits for, and is waited for by, every blocking stream of its context.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use crate::capture;
use crate::context::{self, Context};
use crate::edge;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::work::Task;

/// `CU_STREAM_NON_BLOCKING`.
pub const NON_BLOCKING: u32 = 1;
/// `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`.
pub const LEGACY: u64 = 1;
pub const PER_THREAD: u64 = 2;
/// Stack of a stream's thread, which also runs the program's host functions: as much as a main thread has.
const STACK_BYTES: usize = 8 << 20;
/// Greatest priority; the least is 0.
pub const GREATEST_PRIORITY: i32 = -5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Legacy,
    PerThread,
    Created,
}

/// How far a stream has come: the number of tasks completed.
#[derive(Debug, Default)]
pub struct Timeline {
    completed: Mutex<u64>,
    moved: Condvar,
}

impl Timeline {
    pub fn completed(&self) -> u64 {
        *self.lock()
    }

    fn wait(&self, position: u64) {
        let held = self.lock();
        drop(self.moved.wait_while(held, |completed| *completed < position));
    }

    fn wait_until(&self, position: u64, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let held = self.lock();
        self.moved
            .wait_timeout_while(held, left, |completed| *completed < position)
            .is_ok_and(|(_, t)| !t.timed_out())
    }

    fn advance(&self, position: u64) {
        self.advance_with(position, || ());
    }

    /// Completes a task whose end others can see: who sees `signal` and asks the stream then, finds it as far.
    fn advance_with(&self, position: u64, signal: impl FnOnce()) {
        let mut completed = self.lock();
        signal();
        *completed = position;
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.completed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[derive(Debug)]
struct Item {
    position: u64,
    after: Vec<(Arc<Timeline>, u64)>,
    task: Task,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    submitted: u64,
    served: bool,
    closed: bool,
}

/// One stream.
#[derive(Debug)]
pub struct Stream {
    pub handle: u64,
    /// `cuStreamGetId`: unique for the life of the process.
    pub id: u64,
    pub context: Arc<Context>,
    pub kind: Kind,
    pub flags: u32,
    pub priority: i32,
    /// `CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY` as the program set it.
    pub sync_policy: AtomicU32,
    pub capture: Mutex<Option<capture::Member>>,
    timeline: Arc<Timeline>,
    queue: Mutex<Queue>,
    wake: Condvar,
}

static STREAMS: Table<Stream> = Table::new();

/// The stream that a handle names: NULL is the default stream of the entry point's variant.
pub fn find(handle: u64) -> Result<Arc<Stream>> {
    let context = context::current()?;
    match handle {
        0 if edge::per_thread_default() => Ok(context.thread_stream()),
        0 | LEGACY => Ok(context.legacy_stream()),
        PER_THREAD => Ok(context.thread_stream()),
        _ => STREAMS.get(handle).ok_or(Error::INVALID_HANDLE),
    }
}

/// `cuStreamCreateWithPriority`: priorities are clamped to the range.
pub fn create(flags: u32, priority: i32) -> Result<Arc<Stream>> {
    let context = context::healthy()?;
    if flags & !NON_BLOCKING != 0 {
        return Err(Error::INVALID_VALUE);
    }
    let stream = context.add_stream(flags, priority.clamp(GREATEST_PRIORITY, 0));
    STREAMS.insert(stream.handle, stream.clone());
    Ok(stream)
}

/// `cuStreamDestroy`: queued work still runs. The default streams cannot be destroyed.
pub fn destroy(handle: u64) -> Result {
    context::current()?;
    let stream = STREAMS.get(handle).ok_or(Error::INVALID_HANDLE)?;
    capture::leave(&stream);
    STREAMS.remove(handle);
    stream.close();
    stream.context.forget_ended_streams();
    Ok(())
}

/// Handles of the streams that were not destroyed, of the contexts that `of` accepts.
pub(crate) fn created(of: impl Fn(u64) -> bool) -> Vec<u64> {
    STREAMS.all(|stream| of(stream.context.handle)).iter().map(|stream| stream.handle).collect()
}

impl Stream {
    pub(crate) fn new(context: &Arc<Context>, kind: Kind, flags: u32, priority: i32) -> Arc<Stream> {
        static NEXT: AtomicU64 = AtomicU64::new(3);
        let (handle, id) = match kind {
            Kind::Legacy => (LEGACY, LEGACY),
            _ => (handle::fresh(), NEXT.fetch_add(1, Ordering::Relaxed)),
        };
        Arc::new(Stream {
            handle: if kind == Kind::PerThread { PER_THREAD } else { handle },
            id,
            context: context.clone(),
            kind,
            flags,
            priority,
            sync_policy: AtomicU32::new(1),
            capture: Mutex::new(None),
            timeline: Arc::default(),
            queue: Mutex::default(),
            wake: Condvar::new(),
        })
    }

    /// True where the stream takes part in the legacy default stream's ordering.
    pub fn is_blocking(&self) -> bool {
        self.flags & NON_BLOCKING == 0
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn submitted(&self) -> u64 {
        self.queue().submitted
    }

    /// This stream's newest position, if work up to it is still pending.
    fn pending(&self) -> Option<(Arc<Timeline>, u64)> {
        let submitted = self.submitted();
        (self.timeline.completed() < submitted).then(|| (self.timeline.clone(), submitted))
    }

    /// Queues a task that is not subject to capture; returns its position.
    pub fn enqueue(self: &Arc<Self>, task: Task) -> Result<u64> {
        let after = self.predecessors();
        let mut queue = self.queue();
        if queue.closed {
            return Err(Error::CONTEXT_IS_DESTROYED);
        }
        queue.submitted += 1;
        let position = queue.submitted;
        queue.items.push_back(Item { position, after, task });
        if queue.served {
            self.wake.notify_one();
        } else {
            queue.served = true;
            let stream = self.clone();
            let served = std::thread::Builder::new()
                .name(format!("softgpu-str{}", self.id))
                .stack_size(STACK_BYTES)
                .spawn(move || stream.serve());
            if served.is_err() {
                queue.served = false;
                queue.submitted -= 1;
                queue.items.pop_back();
                return Err(Error::OUT_OF_MEMORY);
            }
        }
        Ok(position)
    }

    /// Runs a task to its end: on the calling thread where nothing is pending before it, else through the queue.
    pub fn run(self: &Arc<Self>, task: Task) -> Result {
        match self.claim() {
            Some(position) => {
                task.run(&self.context);
                self.timeline.advance(position);
            }
            None => {
                let position = self.enqueue(task)?;
                self.timeline.wait(position);
            }
        }
        self.context.flush_output();
        context::poisoned()
    }

    /// Takes the next position for the calling thread, if it need not wait for anything.
    fn claim(self: &Arc<Self>) -> Option<u64> {
        if !self.predecessors().is_empty() {
            return None;
        }
        let mut queue = self.queue();
        if queue.closed || self.timeline.completed() < queue.submitted {
            return None;
        }
        queue.submitted += 1;
        Some(queue.submitted)
    }

    /// What new work of this stream must wait for in other streams.
    fn predecessors(&self) -> Vec<(Arc<Timeline>, u64)> {
        if self.kind == Kind::Legacy {
            let streams = self.context.all_streams();
            let others = streams.iter().filter(|s| s.kind != Kind::Legacy && s.is_blocking());
            others.filter_map(|stream| stream.pending()).collect()
        } else if self.is_blocking() {
            self.context.legacy_stream().pending().into_iter().collect()
        } else {
            Vec::new()
        }
    }

    /// Waits for everything queued so far.
    pub fn drain(&self) {
        self.timeline.wait(self.submitted());
    }

    pub(crate) fn drain_until(&self, deadline: Instant) -> bool {
        self.timeline.wait_until(self.submitted(), deadline)
    }

    /// `cuStreamSynchronize`. The legacy stream's work includes what it would wait for.
    pub fn synchronize(&self) -> Result {
        if self.kind == Kind::Legacy {
            for stream in self.context.all_streams().iter().filter(|stream| stream.is_blocking()) {
                stream.drain();
            }
        }
        self.drain();
        self.context.flush_output();
        context::poisoned()
    }

    /// `cuStreamQuery`: true where nothing is pending.
    pub fn is_idle(&self) -> bool {
        let blockers = || {
            let streams = self.context.all_streams();
            streams.iter().any(|stream| stream.is_blocking() && stream.pending().is_some())
        };
        self.pending().is_none() && !(self.kind == Kind::Legacy && blockers())
    }

    /// True where the stream is closed and all its work is done.
    pub(crate) fn is_over(&self) -> bool {
        self.is_closed() && self.pending().is_none()
    }

    /// True where the stream takes no more work.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue().closed
    }

    /// Lets the thread end once the queue is empty.
    pub(crate) fn close(&self) {
        STREAMS.remove(self.handle);
        self.queue().closed = true;
        self.wake.notify_one();
    }

    fn serve(self: Arc<Self>) {
        context::forbid_calls(true);
        loop {
            let item = {
                let queue = self.queue();
                let empty = |queue: &mut Queue| queue.items.is_empty() && !queue.closed;
                let mut queue =
                    self.wake.wait_while(queue, empty).unwrap_or_else(|poisoned| poisoned.into_inner());
                match queue.items.pop_front() {
                    Some(item) => item,
                    None => return,
                }
            };
            // The position before may be running on a program's thread.
            self.timeline.wait(item.position - 1);
            for (timeline, position) in &item.after {
                timeline.wait(*position);
            }
            match item.task {
                Task::Record(marker) => self.timeline.advance_with(item.position, || marker.pass()),
                task => {
                    task.run(&self.context);
                    self.timeline.advance(item.position);
                }
            }
        }
    }
}
