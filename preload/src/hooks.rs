//! The FFI edge: one table of all hooked functions, generated area by area with [`hooks!`].
//!
//! An entry of an area reads
//!
//! ```text
//! hooks! {
//!     area launch;
//!     /// Optional documentation.
//!     fn cuEventDestroy_v2(event: u64) => ops::event::destroy(event);
//!     [always] fn cuInit(flags: u32) => ops::init::init(flags);
//!     [graph_launch] fn cuGraphLaunch(exec: u64, stream: u64) => ops::graph::launch(exec, stream);
//!     fn cuStreamQuery(stream: u64) ptsz cuStreamQuery_ptsz[stream] => ops::stream::query(stream);
//!     fn cuMemcpyHtoD_v2(dst: u64, src: *const c_void, bytes: usize) ptds cuMemcpyHtoD_v2_ptds[stream]
//!         => ops::copy::to_device(dst, src, bytes, stream);
//! }
//! ```
//!
//! and generates the exported `extern "C"` function, its frame ([`crate::guard`]: re-entrancy, `catch_unwind`, counters), its
//! slot for the real pointer, its entry in the name look-up, and a typed caller of the real function,
//! `real::cuEventDestroy_v2(event)` (all areas' callers are re-exported by [`crate::real`]). The expression runs inside `unsafe` and yields anything that
//! converts into [`crate::outcome::Outcome`]: `Outcome`, `Result<(), CuResult>`, `Result<Outcome, CuResult>`, `CuResult`.
//!
//! - `[always]`: the logic also runs without a session.
//! - `[launch]`, `[graph_launch]`: a call that runs natively is counted and obeys the verdict ([`crate::dispatch::local`]).
//! - `ptsz name[stream]`: a second entry point for the per-thread default stream, in which the parameter `stream` reads 2
//!   (`CU_STREAM_PER_THREAD`) where the program passed 0.
//! - `ptds name[stream]`: the same for functions without a stream parameter: the expression sees an extra variable `stream`, 0 in
//!   the plain function and 2 in the per-thread one.
//!
//! Every name that libcuda exports is in exactly one of: an area, [`refuse`], [`local`]. A test compares them with the export
//! list of a real driver, because in this field the failure mode is silence.

use crate::{guard::When, real::Slot};
use std::ffi::{CStr, c_void};

pub mod cupti;
pub mod local;
pub mod refuse;
pub mod unknown;

/// One hooked function.
#[derive(Debug)]
pub struct Hook {
    /// The real function.
    pub slot: Slot,
    /// Row of the counters in the shared pages.
    pub row: u16,
    entry: Entry,
}

#[derive(Debug)]
struct Entry(*const c_void);

// SAFETY: the address of a function in this library; never dereferenced as data.
unsafe impl Sync for Entry {}

impl Hook {
    pub const fn new(name: &'static CStr, row: usize, entry: *const c_void) -> Self {
        assert!(row < ROWS, "more hooks than counter rows");
        Self { slot: Slot::new(name), row: row as u16, entry: Entry(entry) }
    }

    /// Our entry point.
    pub fn entry(&self) -> *const c_void {
        self.entry.0
    }
}

/// Counter rows in the shared pages.
const ROWS: usize = 1024;

macro_rules! areas {
    ($($area:ident,)*) => {
        $(pub mod $area;)*

        /// The areas, in row order.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug)]
        pub enum Area { $($area,)* refuse }

        /// All classified names: the hooks in row order, then the local ones.
        const NAMES: &[&[&str]] = &[$($area::NAMES,)* refuse::NAMES, local::NAMES];

        static TABLE: [&[Hook]; NAMES.len() - 1] = [$(&$area::HOOKS,)* &refuse::HOOKS];

        /// The typed callers of all hooked real functions.
        pub mod callers {
            $(#[allow(unused_imports)] pub use super::$area::real::*;)*
        }
    };
}

areas! {
    init, context, procaddr,
    launch, module, library, function, stream, event, hostfn, capture, graph,
    memory, managed, vmm, copy, batch, memset, host, pointer, global, pool, device, ipc,
    array, texture,
}

/// First counter row of an area.
pub const fn base(area: Area) -> usize {
    let (mut rows, mut at) = (0, 0);
    while at < area as usize {
        rows += NAMES[at].len();
        at += 1;
    }
    rows
}

/// All hooks in row order.
pub fn all() -> impl Iterator<Item = &'static Hook> {
    TABLE.iter().flat_map(|area| area.iter())
}

/// What the table says about a name.
#[derive(Clone, Copy, Debug)]
pub enum Class {
    /// Hooked.
    Hook(&'static Hook),
    /// Stays with the local driver.
    Local,
    /// A function that this build has never heard of.
    Unknown,
}

/// Classifies exactly this exported name. Allocates nothing and takes no lock.
pub fn classify(name: &[u8]) -> Class {
    let mut at = hash(name) % BUCKETS;
    loop {
        let (area, row) = INDEX[at];
        match NAMES.get(usize::from(area)) {
            None => return Class::Unknown,
            Some(names) if names[usize::from(row)].as_bytes() == name => {
                let hook = TABLE.get(usize::from(area)).map(|hooks| &hooks[usize::from(row)]);
                return hook.map_or(Class::Local, Class::Hook);
            }
            Some(_) => at = (at + 1) % BUCKETS,
        }
    }
}

const BUCKETS: usize = 4096;

/// Open-addressed index of [`NAMES`]: (list, place in it), (255, _) where empty. Built at compile time.
static INDEX: [(u8, u16); BUCKETS] = {
    let mut index = [(u8::MAX, 0); BUCKETS];
    let mut area = 0;
    while area < NAMES.len() {
        let mut row = 0;
        while row < NAMES[area].len() {
            let mut at = hash(NAMES[area][row].as_bytes()) % BUCKETS;
            while index[at].0 != u8::MAX {
                at = (at + 1) % BUCKETS;
            }
            index[at] = (area as u8, row as u16);
            row += 1;
        }
        area += 1;
    }
    index
};

/// FNV-1a.
const fn hash(name: &[u8]) -> usize {
    let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
    while at < name.len() {
        hash = (hash ^ name[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ (hash >> 15)) as usize
}

/// `CU_STREAM_PER_THREAD`.
pub const PER_THREAD_STREAM: u64 = 2;

/// The stream that a per-thread (`_ptsz`) entry point means.
pub const fn per_thread(stream: u64) -> u64 {
    if stream == 0 { PER_THREAD_STREAM } else { stream }
}

/// Reads the marker of an entry.
macro_rules! when {
    () => {
        $crate::guard::When::Session
    };
    (always) => {
        $crate::guard::When::Always
    };
    (launch) => {
        $crate::guard::When::Launch($crate::dispatch::local::Launch::Kernel)
    };
    (graph_launch) => {
        $crate::guard::When::Launch($crate::dispatch::local::Launch::Graph)
    };
}

const _: When = when!();

/// Defines the hooks of one area; see the module documentation.
macro_rules! hooks {
    (area $area:ident; $(
        $(#[$meta:meta])*
        $([$when:ident])? fn $name:ident $args:tt $($mode:ident $variant:ident [$stream:ident])? => $body:expr;
    )*) => {
        #[allow(non_camel_case_types, dead_code, clippy::enum_variant_names)]
        #[derive(Clone, Copy)]
        enum Row { $($name, $($variant,)?)* }

        /// Names of this area in row order.
        pub const NAMES: &[&str] = &[$(stringify!($name), $(stringify!($variant),)?)*];

        /// The hooks of this area.
        pub static HOOKS: [$crate::hooks::Hook; NAMES.len()] = [$(
            $crate::hooks::hook!(@row $area $name),
            $($crate::hooks::hook!(@row $area $variant),)?
        )*];

        $($crate::hooks::hook!(@entry [$(#[$meta])*] [$($when)?] $name $args [$($mode $variant $stream)?] $body);)*

        /// Typed callers of the real functions of this area.
        #[allow(non_snake_case, dead_code, unused_imports, clippy::missing_safety_doc, clippy::too_many_arguments)]
        pub mod real {
            use super::*;
            $($crate::hooks::hook!(@real $name $args [$($variant)?]);)*
        }
    };
}

/// One entry of [`hooks!`].
macro_rules! hook {
    (@row $area:ident $name:ident) => {
        $crate::hooks::Hook::new(
            $crate::real::c_name(concat!(stringify!($name), "\0")),
            $crate::hooks::base($crate::hooks::Area::$area) + Row::$name as usize,
            $name as *const ::std::ffi::c_void,
        )
    };
    (@entry [$($meta:tt)*] [$($when:ident)?] $name:ident $args:tt [] $body:expr) => {
        $crate::hooks::hook!(@fn [$($meta)*] [$($when)?] $name $args {} $body);
    };
    (@entry [$($meta:tt)*] [$($when:ident)?] $name:ident $args:tt [ptsz $variant:ident $stream:ident] $body:expr) => {
        $crate::hooks::hook!(@fn [$($meta)*] [$($when)?] $name $args {} $body);
        $crate::hooks::hook!(@fn [] [$($when)?] $variant $args { let $stream = $crate::hooks::per_thread($stream); } $body);
    };
    (@entry [$($meta:tt)*] [$($when:ident)?] $name:ident $args:tt [ptds $variant:ident $stream:ident] $body:expr) => {
        $crate::hooks::hook!(@fn [$($meta)*] [$($when)?] $name $args { let $stream: u64 = 0; } $body);
        $crate::hooks::hook!(@fn [] [$($when)?] $variant $args { let $stream = $crate::hooks::PER_THREAD_STREAM; } $body);
    };
    (@fn [$($meta:tt)*] [$($when:ident)?] $name:ident ($($arg:ident: $type:ty),* $(,)?) {$($prelude:tt)*} $body:expr) => {
        $($meta)*
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[allow(non_snake_case, unused_unsafe, unused_variables, clippy::missing_safety_doc, clippy::too_many_arguments)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> $crate::result::CuResult {
            $crate::guard::enter(
                &HOOKS[Row::$name as usize],
                $crate::hooks::when!($($when)?),
                move || {
                    $($prelude)*
                    // SAFETY: the arguments are the program's own, under the contract of the driver function of this name.
                    $crate::outcome::Outcome::from(unsafe { $body })
                },
                // SAFETY: as above: the program called this function with these arguments.
                move || unsafe { real::$name($($arg),*) },
            )
        }
    };
    (@real $name:ident $args:tt []) => {
        $crate::hooks::hook!(@caller $name $args);
    };
    (@real $name:ident $args:tt [$variant:ident]) => {
        $crate::hooks::hook!(@caller $name $args);
        $crate::hooks::hook!(@caller $variant $args);
    };
    (@caller $name:ident ($($arg:ident: $type:ty),* $(,)?)) => {
        #[inline]
        pub unsafe fn $name($($arg: $type),*) -> $crate::result::CuResult {
            $crate::real::call!(&HOOKS[Row::$name as usize].slot, ($($arg: $type),*))
        }
    };
}

pub(crate) use {hook, hooks, when};

#[cfg(test)]
mod tests;
