//! The driver's part of the checks (`SOFTGPU_CHECK`): which memory exists and what the host writes of it, and what is left
//! over when a context or the process ends.
//!
//! Only memory of `cuMemAlloc` and of pools is followed byte by byte. The host can write pinned, registered and managed
//! memory, and other processes mappings, without the driver's knowledge; module variables start with a value.

use std::sync::Once;

use lightos_softgpu_engine::check::{self, Checker};

use crate::space::{Kind, Place, Range, SPACE};
use crate::{context, event, library, memory, module, stream};

/// Objects that a report names one by one.
const NAMED: usize = 4;

/// Called by `cuInit`: the end of the process will be reported.
pub fn start() {
    static START: Once = Once::new();
    START.call_once(|| {
        if check::get().is_some() {
            // SAFETY: the handler is a function of this library, which stays loaded: it has threads and exit handlers.
            unsafe { libc::atexit(process_ends) };
        }
    });
}

type IsKind = fn(Kind) -> bool;

fn follows(range: &Range) -> bool {
    matches!(range.kind, Kind::Device | Kind::Pool(_, Place::Device))
}

fn init() -> Option<&'static Checker> {
    check::get().filter(|checker| checker.checks.init)
}

/// A range has entered the address space.
pub fn entered(range: &Range) {
    if let Some(checker) = init().filter(|_| follows(range)) {
        checker.memory.allocate(range.start, range.bytes);
    }
}

/// A range has left the address space.
pub fn left(range: &Range) {
    if let Some(checker) = init().filter(|_| follows(range)) {
        checker.memory.forget(range.start);
    }
}

/// A copy, a fill or a stream operation has written these bytes.
pub fn wrote(address: u64, bytes: u64) {
    if let Some(checker) = init() {
        checker.memory.mark(address, bytes);
    }
}

/// A context is about to be destroyed with all that belongs to it.
pub fn context_ends(handle: u64) {
    if let Some(checker) = check::get().filter(|checker| checker.checks.leak) {
        let when = format!("when context {handle:#x} was destroyed");
        report(checker, &when, |context| context == handle);
    }
}

extern "C" fn process_ends() {
    // A forked child that ends has not used the driver.
    if crate::device::ready().is_err() {
        return;
    }
    let Some(checker) = check::get() else { return };
    if checker.checks.leak {
        let when = "at the end of the process";
        report(checker, when, |_| true);
        objects(checker, when, "library", "libraries", library::all());
        objects(checker, when, "memory pool", "memory pools", memory::created_pools());
        // The primary contexts are the driver's; programs keep them to the end.
        objects(checker, when, "context", "contexts", context::created());
    }
    checker.finish();
}

/// Reports what belongs to the contexts that `of` accepts.
fn report(checker: &Checker, when: &str, of: impl Fn(u64) -> bool) {
    let is_left =
        |range: &Range| of(range.context) && !range.is_freed.load(std::sync::atomic::Ordering::Relaxed);
    let ranges = SPACE.all();
    let kinds: [(&str, IsKind); 5] = [
        ("device memory", |kind| kind == Kind::Device),
        ("managed memory", |kind| kind == Kind::Managed),
        ("pool memory", |kind| matches!(kind, Kind::Pool(..))),
        ("pinned host memory", |kind| matches!(kind, Kind::Host(_))),
        ("registered host memory", |kind| matches!(kind, Kind::Registered(_))),
    ];
    for (name, is_kind) in kinds {
        let left: Vec<_> = ranges.iter().filter(|range| is_kind(range.kind) && is_left(range)).collect();
        let bytes: u64 = left.iter().map(|range| range.bytes).sum();
        let count = left.len();
        let allocations = if count == 1 { "allocation" } else { "allocations" };
        let named = left.iter().map(|range| format!("{:#x} ({} bytes)", range.start, range.bytes));
        leak(checker, count, &format!("{count} {allocations} of {name}, {bytes} bytes, {when}"), named);
    }
    objects(checker, when, "stream", "streams", stream::created(&of));
    objects(checker, when, "event", "events", event::created(&of));
    objects(checker, when, "module", "modules", module::loaded(&of));
}

/// Reports handles of one kind.
fn objects(checker: &Checker, when: &str, one: &str, many: &str, handles: Vec<u64>) {
    let count = handles.len();
    let kind = if count == 1 { one } else { many };
    let named = handles.iter().map(|handle| format!("{handle:#x}"));
    leak(checker, count, &format!("{count} {kind} {when}"), named);
}

fn leak(checker: &Checker, count: usize, what: &str, named: impl Iterator<Item = String>) {
    if count == 0 {
        return;
    }
    let mut list: Vec<String> = named.take(NAMED).collect();
    if count > NAMED {
        list.push(format!("and {} more", count - NAMED));
    }
    checker.leak(count as u64, &format!("{what}: {}", list.join(", ")));
}
