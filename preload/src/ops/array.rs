//! Arrays and mipmapped arrays: twins, one in the local driver, whose handle the program holds and whose queries, graphs and captures
//! stay native, and one in the executor, which has the contents.
//!
//! Invariant: an array in [`ARRAYS`] exists on both sides. A level or plane is known from the moment the program asks for it.

pub mod shape;

use super::memory::{sidecar, slabs, with_heap};
use super::{capture, context, pool, stream};
use crate::edge::Out;
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;
use crate::session::Session;
use lightos_protocol::request::{ArrayRequest, Request};
use rustc_hash::FxHashMap;
use shape::Shape;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

static ARRAYS: LazyLock<Mutex<Arrays>> = LazyLock::new(Default::default);

#[derive(Debug, Default)]
struct Arrays {
    arrays: FxHashMap<u64, Array>,
    /// Bytes of mipmapped arrays.
    mipmapped: FxHashMap<u64, u64>,
    /// The `CUcontext` with whose end an array or mipmapped array ends.
    contexts: FxHashMap<u64, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Array {
    shape: Shape,
    owner: Owner,
}

/// What an array ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Own,
    /// The mipmapped array that it is a level of.
    Mipmapped(u64),
    /// The array that it is a plane of.
    Array(u64),
}

/// The local driver says what is wrong with the handle.
const UNKNOWN: Outcome = Outcome::PassThrough(Reason::InvalidArgument);

fn arrays() -> MutexGuard<'static, Arrays> {
    ARRAYS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arrays {
    /// Takes an array with its planes out of the table; its bytes.
    fn remove(&mut self, array: u64) -> Option<u64> {
        let Some(&Array { shape, owner: Owner::Own }) = self.arrays.get(&array) else { return None };
        self.arrays.remove(&array);
        self.contexts.remove(&array);
        self.arrays.retain(|_, other| other.owner != Owner::Array(array));
        Some(shape.bytes())
    }

    /// As [`remove`](Self::remove), for a mipmapped array with its levels and their planes.
    fn remove_mipmapped(&mut self, mipmapped: u64) -> Option<u64> {
        let bytes = self.mipmapped.remove(&mipmapped)?;
        self.contexts.remove(&mipmapped);
        let levels = self.arrays.iter().filter(|(_, array)| array.owner == Owner::Mipmapped(mipmapped));
        let levels: Vec<u64> = levels.map(|(level, _)| *level).collect();
        self.arrays.retain(|array, other| {
            !levels.contains(array) && !levels.iter().any(|level| other.owner == Owner::Array(*level))
        });
        Some(bytes)
    }
}

/// What a handle that the program uses stands for.
///
/// # Errors
/// What becomes of a call that names an array which the executor does not have: the local driver says what is wrong with the
/// handle, unless nothing is.
pub fn find(array: u64) -> Result<Shape, Outcome> {
    let known = arrays().arrays.get(&array).map(|array| array.shape);
    known.ok_or_else(|| match Shape::of(array) {
        Ok(_) => Outcome::Refuse(Reason::Arrays),
        Err(_) => UNKNOWN,
    })
}

/// Whether the executor has a mipmapped array.
pub fn is_mipmapped(mipmapped: u64) -> bool {
    arrays().mipmapped.contains_key(&mipmapped)
}

/// The creating functions: the local array first, which also judges the arguments. `destroy` undoes `local`.
fn create(
    out: Out<u64>,
    local: impl Fn(*mut u64) -> CuResult,
    destroy: impl Fn(u64) -> CuResult,
    bytes: impl Fn(u64) -> Result<Option<u64>, CuResult>,
    request: impl Fn(u64) -> Result<ArrayRequest, CuResult>,
) -> Result<Option<(u64, u64)>, CuResult> {
    context::check()?;
    let out = out.required()?;
    let attempt = || {
        let mut handle = 0;
        local(&mut handle).ok()?;
        let known = || {
            let Some(bytes) = bytes(handle)? else { return Ok(None) };
            let request = request(handle)?;
            slabs::charge(bytes)?;
            // The executor's device may be full where the local one was not: native says so at this call.
            sidecar()?.call(&Request::Array(request)).inspect_err(|_| slabs::refund(bytes))?;
            Ok(Some((handle, bytes)))
        };
        let known = known();
        if !matches!(known, Ok(Some(_))) {
            let _ = destroy(handle);
        }
        known
    };
    let made = match attempt() {
        Err(CuResult::OUT_OF_MEMORY) => {
            make_room()?;
            attempt()
        }
        made => made,
    }?;
    if let Some((handle, bytes)) = made {
        sidecar()?.pages().counters().memory_allocated(bytes);
        out.put(handle);
    }
    Ok(made)
}

/// Has memory that is kept for reuse return to the device.
fn make_room() -> Result<(), CuResult> {
    pool::drain()?;
    // Arrays that are being destroyed are gone when the device is idle.
    stream::synchronize_context()?;
    with_heap(|heap| {
        heap.trim(0);
        Ok(())
    })
}

/// cuArrayCreate and cuArray3DCreate.
pub fn create_array(
    out: Out<u64>,
    local: impl Fn(*mut u64) -> CuResult,
    destroy: impl Fn(u64) -> CuResult,
) -> Result<Outcome, CuResult> {
    let shape = |array| Shape::of(array);
    let made = create(
        out,
        local,
        destroy,
        |array| shape(array).map(|shape| (!shape.is_mapped_later()).then(|| shape.bytes())),
        |array| Ok(ArrayRequest::Create { array, descriptor: shape(array)?.into() }),
    )?;
    let Some((array, _)) = made else { return Ok(Outcome::Refuse(Reason::Arrays)) };
    let shape = shape(array)?;
    let mut arrays = arrays();
    arrays.arrays.insert(array, Array { shape, owner: Owner::Own });
    arrays.contexts.insert(array, context::current());
    Ok(Outcome::Done)
}

/// cuMipmappedArrayCreate. `wanted` is the program's descriptor.
pub fn create_mipmapped(
    out: Out<u64>,
    wanted: impl Fn() -> Result<Shape, CuResult>,
    levels: u32,
    local: impl Fn(*mut u64) -> CuResult,
    destroy: impl Fn(u64) -> CuResult,
) -> Result<Outcome, CuResult> {
    let made = create(
        out,
        local,
        destroy,
        |_| wanted().map(|shape| (!shape.is_mapped_later()).then(|| shape.bytes_of_levels(levels))),
        |mipmapped| Ok(ArrayRequest::CreateMipmapped { mipmapped, descriptor: wanted()?.into(), levels }),
    )?;
    let Some((mipmapped, bytes)) = made else { return Ok(Outcome::Refuse(Reason::Arrays)) };
    let mut arrays = arrays();
    arrays.mipmapped.insert(mipmapped, bytes);
    arrays.contexts.insert(mipmapped, context::current());
    Ok(Outcome::Done)
}

/// Device memory of an array has returned, or will before the executor creates the next one.
fn give_back(bytes: u64) {
    slabs::refund(bytes);
    if let Ok(session) = sidecar() {
        session.pages().counters().memory_freed(bytes);
    }
}

/// cuArrayDestroy. The executor's driver may wait for the device, as natively, so the program waits first.
pub fn destroy_array(array: u64, local: impl FnOnce() -> CuResult) -> Result<Outcome, CuResult> {
    context::check()?;
    capture::permits_unsafe()?;
    let removed = arrays().remove(array);
    leave(removed, ArrayRequest::Destroy { array }, local)
}

/// cuMipmappedArrayDestroy, as [`destroy_array`].
pub fn destroy_mipmapped(mipmapped: u64, local: impl FnOnce() -> CuResult) -> Result<Outcome, CuResult> {
    context::check()?;
    capture::permits_unsafe()?;
    let removed = arrays().remove_mipmapped(mipmapped);
    leave(removed, ArrayRequest::DestroyMipmapped { mipmapped }, local)
}

fn leave(
    removed: Option<u64>,
    request: ArrayRequest,
    local: impl FnOnce() -> CuResult,
) -> Result<Outcome, CuResult> {
    let Some(bytes) = removed else { return Ok(UNKNOWN) };
    stream::synchronize_context()?;
    // The executor first: as soon as the local handle is free, another thread may be given the same value.
    let sent = sidecar()?.cast(&Request::Array(request));
    give_back(bytes);
    local().ok().and(sent)?;
    Ok(Outcome::Done)
}

/// The arrays of a context that has ended.
pub fn end_of_context(session: &Session, context: u64) {
    let mut arrays = arrays();
    let of_it = arrays.contexts.iter().filter(|(_, owner)| **owner == context);
    let handles: Vec<u64> = of_it.map(|(handle, _)| *handle).collect();
    for handle in handles {
        let (bytes, request) = match arrays.remove(handle) {
            Some(bytes) => (Some(bytes), ArrayRequest::Destroy { array: handle }),
            None => (arrays.remove_mipmapped(handle), ArrayRequest::DestroyMipmapped { mipmapped: handle }),
        };
        if let Some(bytes) = bytes {
            let _ = session.cast(&Request::Array(request));
            give_back(bytes);
        }
    }
}

/// Makes a level or plane that the local driver has told known to the executor.
fn part(
    out: Out<u64>,
    owner: Owner,
    local: impl FnOnce(*mut u64) -> CuResult,
    request: impl FnOnce(u64) -> ArrayRequest,
) -> Result<Outcome, CuResult> {
    let out = out.required()?;
    let mut array = 0;
    local(&mut array).ok()?;
    let shape = Shape::of(array)?;
    if arrays().arrays.get(&array).is_none_or(|known| known.owner != owner) {
        sidecar()?.call(&Request::Array(request(array)))?;
        arrays().arrays.insert(array, Array { shape, owner });
    }
    out.put(array);
    Ok(Outcome::Done)
}

/// cuMipmappedArrayGetLevel.
pub fn level(
    out: Out<u64>,
    mipmapped: u64,
    level: u32,
    local: impl FnOnce(*mut u64) -> CuResult,
) -> Result<Outcome, CuResult> {
    if !is_mipmapped(mipmapped) {
        return Ok(UNKNOWN);
    }
    let request = |array| ArrayRequest::Level { array, mipmapped, level };
    part(out, Owner::Mipmapped(mipmapped), local, request)
}

/// cuArrayGetPlane.
pub fn plane(
    out: Out<u64>,
    parent: u64,
    plane: u32,
    local: impl FnOnce(*mut u64) -> CuResult,
) -> Result<Outcome, CuResult> {
    if !arrays().arrays.contains_key(&parent) {
        return Ok(UNKNOWN);
    }
    let request = |array| ArrayRequest::Plane { array, parent, plane };
    part(out, Owner::Array(parent), local, request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_with_what_they_are_parts_of() {
        let shape = Shape { width: 16, height: 16, depth: 0, format: 1, channels: 1, flags: 0 };
        let mut arrays = Arrays::default();
        arrays.mipmapped.insert(100, 320);
        for (array, owner) in [
            (1, Owner::Own),
            (2, Owner::Array(1)),
            (3, Owner::Mipmapped(100)),
            (4, Owner::Array(3)),
            (5, Owner::Own),
        ] {
            arrays.arrays.insert(array, Array { shape, owner });
        }
        assert_eq!(arrays.remove(2), None, "a plane is not destroyed by itself");
        assert_eq!(arrays.remove(3), None, "nor a level");
        assert_eq!(arrays.remove(1), Some(256));
        assert_eq!(arrays.remove(1), None);
        assert_eq!(arrays.remove_mipmapped(100), Some(320));
        assert_eq!(arrays.arrays.keys().collect::<Vec<_>>(), [&5]);
    }
}
