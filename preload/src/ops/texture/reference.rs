//! Texture and surface references of modules, which CUDA has replaced by objects and still exports.
//!
//! Twins: the local reference answers the queries, the executor's is what kernels read through. A setting is made on both, in
//! program order with the launches. The one thing that the local driver may not know is memory, so an address is judged
//! by the executor's driver and kept here.

use super::{UNKNOWN, array};
use crate::edge::{In, Name, Out};
use crate::ops::memory::sidecar;
use crate::ops::{context, module};
use crate::outcome::{Outcome, Reason};
use crate::result::CuResult;
use lightos_protocol::request::{ArrayDescriptor, ReferenceState, Reply, Request, TextureRequest};
use rustc_hash::FxHashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// `CUDA_ARRAY_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    width: usize,
    height: usize,
    format: u32,
    channels: u32,
}

/// What is known of a reference.
#[derive(Clone, Copy, Debug, Default)]
struct Reference {
    surface: bool,
    /// Where the linear memory that it reads begins.
    address: Option<u64>,
}

static REFERENCES: LazyLock<Mutex<FxHashMap<u64, Reference>>> = LazyLock::new(Default::default);

fn references() -> MutexGuard<'static, FxHashMap<u64, Reference>> {
    REFERENCES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_known(reference: u64, surface: bool) -> bool {
    references().get(&reference).is_some_and(|known| known.surface == surface)
}

fn call(request: TextureRequest) -> Result<Reply, CuResult> {
    sidecar()?.call(&Request::Texture(request))
}

/// Makes a reference that the local driver has given known to the executor.
fn announce(
    out: Out<u64>,
    surface: bool,
    local: impl FnOnce(*mut u64) -> CuResult,
    request: impl FnOnce(u64) -> Result<TextureRequest, CuResult>,
) -> Result<Outcome, CuResult> {
    context::check()?;
    let out = out.required()?;
    let mut reference = 0;
    local(&mut reference).ok()?;
    call(request(reference)?)?;
    // A second look-up changes no setting.
    let mut references = references();
    if references.get(&reference).is_none_or(|known| known.surface != surface) {
        references.insert(reference, Reference { surface, address: None });
    }
    out.put(reference);
    Ok(Outcome::Done)
}

/// cuModuleGetTexRef and cuModuleGetSurfRef.
pub fn of_module(
    out: Out<u64>,
    module: u64,
    name: Name,
    surface: bool,
    local: impl FnOnce(*mut u64) -> CuResult,
) -> Result<Outcome, CuResult> {
    if !module::knows(module) {
        return Ok(UNKNOWN);
    }
    announce(out, surface, local, |reference| {
        let name = name.get()?.to_str().map_err(|_| CuResult::NOT_FOUND)?.to_owned();
        Ok(TextureRequest::ModuleReference { reference, module, name, surface })
    })
}

/// cuTexRefCreate.
pub fn create(out: Out<u64>, local: impl FnOnce(*mut u64) -> CuResult) -> Result<Outcome, CuResult> {
    announce(out, false, local, |reference| Ok(TextureRequest::CreateReference { reference }))
}

/// cuTexRefDestroy. Those of modules end with their module.
pub fn destroy(reference: u64, local: impl FnOnce() -> CuResult) -> Result<Outcome, CuResult> {
    if !is_known(reference, false) {
        return Ok(UNKNOWN);
    }
    // The executor first: as soon as the local handle is free, another thread may be given the same value.
    call(TextureRequest::DestroyReference { reference })?;
    references().remove(&reference);
    local().ok()?;
    Ok(Outcome::Done)
}

/// What becomes of a setting that names an array which the executor does not have.
fn obstacle(state: &ReferenceState) -> Option<Outcome> {
    match *state {
        ReferenceState::Array { array, .. } => array::find(array).err(),
        ReferenceState::MipmappedArray { mipmapped, .. } => {
            (!array::is_mipmapped(mipmapped)).then_some(UNKNOWN)
        }
        _ => None,
    }
}

/// The setters: the local reference first, which also judges the arguments.
pub fn set(
    reference: u64,
    state: ReferenceState,
    local: impl FnOnce() -> CuResult,
) -> Result<Outcome, CuResult> {
    if !is_known(reference, false) {
        return Ok(UNKNOWN);
    }
    if let Some(outcome) = obstacle(&state) {
        return Ok(outcome);
    }
    local().ok()?;
    call(TextureRequest::SetReference { reference, state })?;
    if matches!(state, ReferenceState::Array { .. } | ReferenceState::MipmappedArray { .. }) {
        keep_address(reference, None);
    }
    Ok(Outcome::Done)
}

fn keep_address(reference: u64, address: Option<u64>) {
    if let Some(known) = references().get_mut(&reference) {
        known.address = address;
    }
}

/// cuTexRefSetAddress: the byte offset is what the executor's driver says, and goes to `offset`.
pub fn set_address(
    reference: u64,
    offset: Out<usize>,
    address: u64,
    bytes: usize,
    local: impl FnOnce(*mut usize) -> CuResult,
) -> Result<Outcome, CuResult> {
    if !is_known(reference, false) {
        return Ok(UNKNOWN);
    }
    let takes_offset = !offset.as_ptr().is_null();
    let state = ReferenceState::Address { address, bytes: bytes as u64, takes_offset };
    let Reply::U64(found) = call(TextureRequest::SetReference { reference, state })? else {
        return Err(CuResult::UNKNOWN);
    };
    // The local driver does not know all memory; nothing reads through its reference.
    let mut ignored = 0;
    let _ = local(&mut ignored);
    keep_address(reference, Some(address));
    offset.put(found as usize);
    Ok(Outcome::Done)
}

/// cuTexRefSetAddress2D, as [`set_address`].
pub fn set_rows(
    reference: u64,
    rows: In<Rows>,
    address: u64,
    pitch: usize,
    local: impl FnOnce() -> CuResult,
) -> Result<Outcome, CuResult> {
    if !is_known(reference, false) {
        return Ok(UNKNOWN);
    }
    let Rows { width, height, format, channels } = rows.get()?;
    let (width, height) = (width as u64, height as u64);
    let descriptor = ArrayDescriptor { width, height, depth: 0, format, channels, flags: 0 };
    let state = ReferenceState::Address2D { descriptor, address, pitch: pitch as u64 };
    call(TextureRequest::SetReference { reference, state })?;
    let _ = local();
    keep_address(reference, Some(address));
    Ok(Outcome::Done)
}

/// cuTexRefGetAddress.
pub fn address(out: Out<u64>, reference: u64) -> Result<Outcome, CuResult> {
    let known = references().get(&reference).and_then(|known| known.address);
    let Some(address) = known else { return Ok(Outcome::PassThrough(Reason::LocalQuery)) };
    out.required()?.put(address);
    Ok(Outcome::Done)
}

/// cuTexRefSetBorderColor.
pub fn set_border(
    reference: u64,
    color: In<[f32; 4]>,
    local: impl FnOnce() -> CuResult,
) -> Result<Outcome, CuResult> {
    set(reference, ReferenceState::BorderColor(color.get()?), local)
}

/// cuSurfRefSetArray.
pub fn set_surface(
    reference: u64,
    array: u64,
    flags: u32,
    local: impl FnOnce() -> CuResult,
) -> Result<Outcome, CuResult> {
    if !is_known(reference, true) {
        return Ok(UNKNOWN);
    }
    if let Err(outcome) = array::find(array) {
        return Ok(outcome);
    }
    local().ok()?;
    call(TextureRequest::SetSurfaceReference { reference, array, flags })?;
    Ok(Outcome::Done)
}
