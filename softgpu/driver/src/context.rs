//! Contexts: creation, the per-thread stack of current contexts, primary contexts, and the sticky device error.
//!
//! A device fault breaks the process: the error of the first fault is returned by every later call that needs a context, new
//! contexts included, as on hardware. Teardown waits for queued work, then cancels what does not end.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use lightos_softgpu_engine::profile::MAX_DEVICES;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::handle::{self, Table};
use crate::stream::{Kind, Stream};
use crate::thread;

/// Flags of `cuCtxCreate` and the primary context that mean something on CUDA 13.
pub const VALID_FLAGS: u32 = 0x7f | 0x80;

/// How long teardown lets queued work run before it cancels it.
const TEARDOWN_PATIENCE: Duration = Duration::from_secs(2);

/// One context.
#[derive(Debug)]
pub struct Context {
    pub handle: u64,
    /// `cuCtxGetId`: unique for the life of the process.
    pub id: u64,
    pub device: Device,
    pub primary: bool,
    pub flags: AtomicU32,
    pub api_version: u32,
    /// Tells running kernels and waits to stop.
    pub cancel: AtomicBool,
    pub cache_config: AtomicU32,
    pub shared_config: AtomicU32,
    limits: Mutex<[usize; LIMITS.len()]>,
    streams: Mutex<Streams>,
    /// Handles of the contexts that peer access was enabled to.
    peers: Mutex<Vec<u64>>,
    /// Device printf output that no synchronising call has shown yet.
    output: Mutex<String>,
}

#[derive(Debug, Default)]
struct Streams {
    legacy: Option<Arc<Stream>>,
    per_thread: Vec<(thread::Id, Arc<Stream>)>,
    created: Vec<Arc<Stream>>,
}

/// `CUlimit` number and initial value: stack, printf FIFO, heap, sync depth, pending launches, L2 fetch, persisting L2.
const LIMITS: [(u32, usize); 7] =
    [(0, 1024), (1, 7_340_032), (2, 8_388_608), (3, 2), (4, 2048), (5, 64), (6, 0)];

static CONTEXTS: Table<Context> = Table::new();
static STICKY: AtomicU32 = AtomicU32::new(0);

struct Primary {
    context: Option<Arc<Context>>,
    references: usize,
    flags: u32,
    /// The same value for every incarnation, as on hardware.
    handle: u64,
}

static PRIMARY: [Mutex<Primary>; MAX_DEVICES] =
    [const { Mutex::new(Primary { context: None, references: 0, flags: 0, handle: 0 }) }; MAX_DEVICES];

/// The default streams of one thread; they end with it, once their work is done.
#[derive(Debug, Default)]
struct ThreadStreams(Vec<Weak<Stream>>);

impl Drop for ThreadStreams {
    fn drop(&mut self) {
        self.0.iter().filter_map(Weak::upgrade).for_each(|stream| stream.close());
    }
}

thread_local! {
    static THREAD_STREAMS: RefCell<ThreadStreams> = RefCell::default();
    /// Without a destructor: exit handlers and those of thread-specific data run after the thread's objects are gone, and may call CUDA.
    static STACK: RefCell<ManuallyDrop<Vec<u64>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one that runs the program's host functions, which may not call CUDA.
pub fn forbid_calls(forbidden: bool) {
    IN_CALLBACK.set(forbidden);
}

/// The sticky error, if a kernel has faulted.
pub fn poisoned() -> Result {
    match STICKY.load(Ordering::Acquire) {
        0 => Ok(()),
        code => Err(Error(code)),
    }
}

/// Makes `error` the process's sticky error, unless there is one.
pub fn poison(error: Error) {
    let _ = STICKY.compare_exchange(0, error.0, Ordering::AcqRel, Ordering::Acquire);
}

/// The handle of this thread's current context, 0 for none.
pub fn current_handle() -> u64 {
    STACK.with_borrow(|stack| stack.last().copied().unwrap_or(0))
}

/// This thread's current context.
pub fn current() -> Result<Arc<Context>> {
    if IN_CALLBACK.get() {
        return Err(Error::NOT_PERMITTED);
    }
    match current_handle() {
        0 => Err(Error::INVALID_CONTEXT),
        handle => CONTEXTS.get(handle).ok_or(Error::CONTEXT_IS_DESTROYED),
    }
}

/// This thread's current context, in a process without a device fault.
pub fn healthy() -> Result<Arc<Context>> {
    let context = current()?;
    poisoned()?;
    Ok(context)
}

/// A context by handle; 0 means the current one.
pub fn find(handle: u64) -> Result<Arc<Context>> {
    if handle == 0 { current() } else { CONTEXTS.get(handle).ok_or(Error::INVALID_CONTEXT) }
}

/// Replaces the top of this thread's stack; 0 pops it.
pub fn set_current(handle: u64) -> Result {
    if handle != 0 && CONTEXTS.get(handle).is_none() {
        return Err(Error::INVALID_CONTEXT);
    }
    STACK.with_borrow_mut(|stack| {
        stack.pop();
        if handle != 0 {
            stack.push(handle);
        }
    });
    Ok(())
}

pub fn push(handle: u64) -> Result {
    if CONTEXTS.get(handle).is_none() {
        return Err(Error::INVALID_CONTEXT);
    }
    STACK.with_borrow_mut(|stack| stack.push(handle));
    Ok(())
}

pub fn pop() -> Result<u64> {
    STACK.with_borrow_mut(|stack| stack.pop()).ok_or(Error::INVALID_CONTEXT)
}

/// `cuCtxCreate`: the new context becomes current.
pub fn create(device: Device, flags: u32, api_version: u32) -> Result<Arc<Context>> {
    if flags & !VALID_FLAGS != 0 || flags & 7 == 3 || flags & 7 > 4 {
        return Err(Error::INVALID_VALUE);
    }
    poisoned()?;
    let context = Context::new(handle::fresh(), device, flags, false, api_version);
    STACK.with_borrow_mut(|stack| stack.push(context.handle));
    Ok(context)
}

/// Handles of the contexts that the program has created and not destroyed.
pub(crate) fn created() -> Vec<u64> {
    CONTEXTS.all(|context| !context.primary).iter().map(|context| context.handle).collect()
}

/// `cuCtxDestroy`: pops it where it is this thread's current context.
pub fn destroy(handle: u64) -> Result {
    let context = CONTEXTS.get(handle).ok_or(Error::INVALID_CONTEXT)?;
    if context.primary {
        return Err(Error::INVALID_CONTEXT);
    }
    if current_handle() == handle {
        pop()?;
    }
    context.tear_down();
    Ok(())
}

fn primary(device: Device) -> MutexGuard<'static, Primary> {
    PRIMARY[device.index()].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// `cuDevicePrimaryCtxRetain`.
pub fn retain_primary(device: Device) -> Result<u64> {
    let mut primary = primary(device);
    if primary.context.is_none() {
        poisoned()?;
        if primary.handle == 0 {
            primary.handle = handle::fresh();
        }
        primary.context = Some(Context::new(primary.handle, device, primary.flags, true, 3020));
    }
    primary.references += 1;
    Ok(primary.handle)
}

/// `cuDevicePrimaryCtxRelease`.
pub fn release_primary(device: Device) -> Result {
    let mut primary = primary(device);
    if primary.references == 0 {
        return Err(Error::INVALID_CONTEXT);
    }
    primary.references -= 1;
    if primary.references == 0
        && let Some(context) = primary.context.take()
    {
        context.tear_down();
    }
    Ok(())
}

/// `cuDevicePrimaryCtxReset`: destroys the state whatever the number of references.
pub fn reset_primary(device: Device) {
    let mut primary = primary(device);
    primary.references = 0;
    if let Some(context) = primary.context.take() {
        context.tear_down();
    }
}

/// `cuDevicePrimaryCtxGetState`: flags, and whether the context is active.
pub fn primary_state(device: Device) -> (u32, bool) {
    let primary = primary(device);
    match &primary.context {
        Some(context) => (context.flags.load(Ordering::Relaxed), true),
        None => (primary.flags, false),
    }
}

/// `cuDevicePrimaryCtxSetFlags`.
pub fn set_primary_flags(device: Device, flags: u32) -> Result {
    if flags & !VALID_FLAGS != 0 || flags & 7 == 3 || flags & 7 > 4 {
        return Err(Error::INVALID_VALUE);
    }
    let mut primary = primary(device);
    primary.flags = flags;
    if let Some(context) = &primary.context {
        context.flags.store(flags, Ordering::Relaxed);
    }
    Ok(())
}

impl Context {
    fn new(handle: u64, device: Device, flags: u32, primary: bool, api_version: u32) -> Arc<Context> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let context = Arc::new(Context {
            handle,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            device,
            primary,
            flags: AtomicU32::new(flags),
            api_version,
            cancel: AtomicBool::new(false),
            cache_config: AtomicU32::new(0),
            shared_config: AtomicU32::new(1),
            limits: Mutex::new(LIMITS.map(|(_, initial)| initial)),
            streams: Mutex::default(),
            peers: Mutex::default(),
            output: Mutex::default(),
        });
        CONTEXTS.insert(handle, context.clone());
        context
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The legacy default stream.
    pub fn legacy_stream(self: &Arc<Self>) -> Arc<Stream> {
        self.streams().legacy.get_or_insert_with(|| Stream::new(self, Kind::Legacy, 0, 0)).clone()
    }

    /// This thread's default stream.
    pub fn thread_stream(self: &Arc<Self>) -> Arc<Stream> {
        let me = thread::me();
        let mut streams = self.streams();
        if let Some((_, stream)) =
            streams.per_thread.iter().find(|(thread, stream)| *thread == me && !stream.is_closed())
        {
            return stream.clone();
        }
        let stream = Stream::new(self, Kind::PerThread, 0, 0);
        // A thread past the end of its objects has nobody to close the stream: that goes with the context.
        let _ = THREAD_STREAMS.try_with(|own| own.borrow_mut().0.push(Arc::downgrade(&stream)));
        streams.per_thread.retain(|(_, stream)| !stream.is_over());
        streams.per_thread.push((me, stream.clone()));
        stream
    }

    /// Adds a stream that the program created.
    pub fn add_stream(self: &Arc<Self>, flags: u32, priority: i32) -> Arc<Stream> {
        let stream = Stream::new(self, Kind::Created, flags, priority);
        self.forget_ended_streams();
        self.streams().created.push(stream.clone());
        stream
    }

    /// Drops destroyed streams whose work is done; until then the context waits for them and orders against them.
    pub fn forget_ended_streams(&self) {
        self.streams().created.retain(|stream| !stream.is_over());
    }

    /// Every stream that has been used.
    pub fn all_streams(&self) -> Vec<Arc<Stream>> {
        let streams = self.streams();
        let per_thread = streams.per_thread.iter().map(|(_, stream)| stream);
        streams.legacy.iter().chain(per_thread).chain(&streams.created).cloned().collect()
    }

    /// Waits for all work queued so far; then the sticky error, if any.
    pub fn synchronize(&self) -> Result {
        for stream in self.all_streams() {
            stream.drain();
        }
        self.flush_output();
        poisoned()
    }

    /// Waits for all work queued so far, but no longer than `patience`: for calls that hardware does not make wait, while
    /// memory that a running task uses must not vanish under it.
    pub fn settle(&self, patience: Duration) {
        let deadline = std::time::Instant::now() + patience;
        self.all_streams().iter().all(|stream| stream.drain_until(deadline));
    }

    /// Keeps device printf output for the next synchronisation.
    pub fn print(&self, text: &str) {
        self.output.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push_str(text);
    }

    /// Shows the device printf output gathered so far on the process's standard output.
    pub fn flush_output(&self) {
        let text = std::mem::take(&mut *self.output.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // SAFETY: the slice is live; descriptor 1 is the process's own, and a closed one is an error, not a fault.
            let written = unsafe { libc::write(1, rest.as_ptr().cast(), rest.len()) };
            match usize::try_from(written) {
                Ok(n) if n > 0 => rest = &rest[n..],
                _ => return,
            }
        }
    }

    /// `cuCtxEnablePeerAccess`. All memory is the process's own, so access itself is always there.
    pub fn enable_peer(&self, peer: u64) -> Result {
        let mut peers = self.peers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if peers.contains(&peer) {
            return Err(Error::PEER_ACCESS_ALREADY_ENABLED);
        }
        peers.push(peer);
        Ok(())
    }

    /// `cuCtxDisablePeerAccess`.
    pub fn disable_peer(&self, peer: u64) -> Result {
        let mut peers = self.peers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let at = peers.iter().position(|known| *known == peer).ok_or(Error::PEER_ACCESS_NOT_ENABLED)?;
        peers.remove(at);
        Ok(())
    }

    pub fn limit(&self, limit: u32) -> Result<usize> {
        let index = LIMITS.iter().position(|(id, _)| *id == limit).ok_or(Error::INVALID_VALUE)?;
        Ok(self.limits.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[index])
    }

    pub fn set_limit(&self, limit: u32, value: usize) -> Result {
        let index = LIMITS.iter().position(|(id, _)| *id == limit).ok_or(Error::INVALID_VALUE)?;
        self.limits.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[index] = value;
        Ok(())
    }

    fn tear_down(&self) {
        let streams = self.all_streams();
        let deadline = std::time::Instant::now() + TEARDOWN_PATIENCE;
        let idle = streams.iter().all(|stream| stream.drain_until(deadline));
        self.cancel.store(true, Ordering::Release);
        if !idle {
            streams.iter().for_each(|stream| stream.drain());
        }
        self.flush_output();
        crate::check::context_ends(self.handle);
        CONTEXTS.remove(self.handle);
        for stream in streams {
            stream.close();
        }
        *self.streams() = Streams::default();
        crate::event::forget_context(self.handle);
        crate::module::forget_context(self.handle);
        if self.primary {
            crate::library::forget_device(self.device);
        }
        crate::texture::forget_context(self.handle);
        crate::array::forget_context(self.handle);
        crate::memory::forget_context(self.handle);
    }
}
