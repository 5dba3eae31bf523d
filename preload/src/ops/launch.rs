//! Kernel launches: validated as native validates them, parameters copied into the record, pushed.
//!
//! The way of an ordinary launch takes no lock and allocates nothing: one look-up of the function, one of the stream, one copy of
//! the parameters, one push.
//!
//! Native reports some errors at the launch itself. What may fail there is sent as a question, and the call returns what the executor's
//! driver answers: a launch that looks impossible from here, and the first of each kind (function, and attributes where there
//! are any), because images are loaded and resources set aside at first use; and each that records an event. The local driver is never asked: should it know better,
//! the kernel would run on the wrong side.

mod config;
pub mod legacy;
mod limits;
pub mod params;

use super::capture::{self, captures};
use super::function::{self, Function};
use super::{context, stream};
use crate::life;
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;
use crate::session::session;
use lightos_protocol::record::{LAUNCH_COOPERATIVE, LAUNCH_EX, Launch};
use params::{Arguments, with_packed};
use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;

pub use config::{Config, ex};

/// Blocks, threads and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
}

/// Among a launch's flags here, not in its record: it records an event, whose handle says nothing about how it was made.
const RECORDS_EVENT: u32 = 1 << 31;

/// What is wrong shows before anything could run, so the local driver may say it.
const INVALID: Outcome = Outcome::PassThrough(Reason::InvalidArgument);

/// cuLaunchKernel.
#[inline]
pub fn kernel(function: u64, shape: Shape, stream: u64, arguments: Arguments) -> Outcome {
    launch(function, shape, stream, arguments, 0, &[])
}

/// cuLaunchCooperativeKernel.
pub fn cooperative(function: u64, shape: Shape, stream: u64, arguments: Arguments) -> Outcome {
    launch(function, shape, stream, arguments, LAUNCH_COOPERATIVE | LAUNCH_EX, &[])
}

/// `attributes` are `CUlaunchAttribute`s, as bytes.
#[inline]
fn launch(
    handle: u64,
    shape: Shape,
    stream: u64,
    arguments: Arguments,
    flags: u32,
    attributes: &[u8],
) -> Outcome {
    if captures(stream) {
        return capture::PASS;
    }
    let Some(session) = session() else { return INVALID };
    if let Err(error) = context::check() {
        return Outcome::Fail(error);
    }
    let function = match function::find(handle) {
        Ok(function) => function,
        Err(unusable) => return unusable.into(),
    };
    let layout = function.layout();
    let kind = kind(&shape, flags, attributes);
    let in_question =
        flags & RECORDS_EVENT != 0 || !function.was_accepted(kind) || !is_possible(function, &shape);
    let stream = match stream::find(stream) {
        Ok(stream) => stream,
        Err(error) => return Outcome::Fail(error),
    };
    let run = |params: &[u8]| {
        let launch = Launch {
            function: handle,
            stream: stream.wire(),
            grid: shape.grid,
            block: shape.block,
            shared_bytes: shape.shared_bytes,
            // Given as an attribute, it is among them already.
            flags: if attributes.is_empty() { flags } else { LAUNCH_EX },
            attribute_count: (attributes.len() / config::ATTRIBUTE_BYTES) as u32,
            param_bytes: params.len() as u32,
        };
        if in_question || params.len() != layout.bytes as usize {
            session.ask(&launch, &[attributes, params])?;
            if flags & RECORDS_EVENT == 0 {
                function.accept(kind);
            }
        } else {
            session.send(&launch, &[attributes, params])?;
        }
        // After the push, so that whoever sees the stream as used finds the launch in the ring.
        stream.touch();
        if life::settings().launch_blocking { stream.synchronize(session) } else { Ok(()) }
    };
    with_packed(layout, arguments, run).into()
}

/// Whether native accepts the launch, as far as that can be told here.
#[inline]
fn is_possible(function: &Function, shape: &Shape) -> bool {
    limits::device().allows(shape)
        && limits::threads(shape) <= u64::from(function.max_threads())
        && function.allows_shared(shape.shared_bytes)
}

/// Launches of a kind succeed or fail alike at the call: all ordinary ones, and those with the same attributes and shape.
#[inline]
fn kind(shape: &Shape, flags: u32, attributes: &[u8]) -> NonZeroU64 {
    if flags == 0 { NonZeroU64::MIN } else { kind_of_attributes(shape, flags, attributes) }
}

fn kind_of_attributes(shape: &Shape, flags: u32, attributes: &[u8]) -> NonZeroU64 {
    let mut hasher = FxHasher::default();
    (shape, flags, attributes).hash(&mut hasher);
    NonZeroU64::MIN.saturating_add(hasher.finish())
}

/// What goes wrong while the parameters are read.
pub(super) fn bad_parameters<T>() -> Result<T, CuResult> {
    Err(CuResult::INVALID_VALUE)
}
