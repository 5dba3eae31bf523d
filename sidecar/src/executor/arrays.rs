//! Arrays, mipmapped arrays, their levels and planes, under the program's own handle values.
//!
//! Owned by the ring thread. The driver may wait for the device when it destroys an array. The program has waited for its work by
//! then, but another of its threads may have gone on: an array is destroyed once the device is idle, and no record waits for that.

use lightos_protocol::request::{ArrayDescriptor, ArrayRequest, Reply};
use rustc_hash::FxHashMap;

use super::Executor;
use super::driver::{CuError, check, sys};

/// The program's arrays.
#[derive(Debug, Default)]
pub(crate) struct Arrays {
    arrays: FxHashMap<u64, Array>,
    mipmapped: FxHashMap<u64, sys::CUmipmappedArray>,
    /// No longer the program's, and not destroyed yet.
    leaving: Vec<Storage>,
}

#[derive(Debug, Clone, Copy)]
struct Array {
    raw: sys::CUarray,
    owner: Owner,
}

/// What an array ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Itself.
    Own,
    /// The mipmapped array that it is a level of.
    Mipmapped(u64),
    /// The array that it is a plane of.
    Array(u64),
}

/// What the driver destroys.
#[derive(Debug, Clone, Copy)]
enum Storage {
    Array(sys::CUarray),
    Mipmapped(sys::CUmipmappedArray),
}

/// `CUDA_ARRAY3D_DESCRIPTOR`, whose format stays a number: the program chose it.
#[repr(C)]
struct Descriptor {
    width: usize,
    height: usize,
    depth: usize,
    format: u32,
    channels: u32,
    flags: u32,
}

const _: () = assert!(size_of::<Descriptor>() == size_of::<sys::CUDA_ARRAY3D_DESCRIPTOR>());

impl From<ArrayDescriptor> for Descriptor {
    fn from(from: ArrayDescriptor) -> Self {
        let ArrayDescriptor { width, height, depth, format, channels, flags } = from;
        let (width, height, depth) = (width as usize, height as usize, depth as usize);
        Self { width, height, depth, format, channels, flags }
    }
}

impl Storage {
    fn destroy(self) -> Result<(), CuError> {
        // SAFETY: the handle was ours, and has left the tables with its levels and planes.
        check(unsafe {
            match self {
                Self::Array(raw) => sys::cuArrayDestroy(raw),
                Self::Mipmapped(raw) => sys::cuMipmappedArrayDestroy(raw),
            }
        })
    }
}

impl Arrays {
    /// The driver's array for the program's handle.
    pub(crate) fn raw(&self, handle: u64) -> Result<sys::CUarray, CuError> {
        self.arrays.get(&handle).map(|array| array.raw).ok_or(CuError::INVALID_HANDLE)
    }

    /// The driver's mipmapped array for the program's handle.
    pub(crate) fn raw_mipmapped(&self, handle: u64) -> Result<sys::CUmipmappedArray, CuError> {
        self.mipmapped.get(&handle).copied().ok_or(CuError::INVALID_HANDLE)
    }

    fn create(&mut self, handle: u64, descriptor: ArrayDescriptor) -> Result<(), CuError> {
        let (mut raw, descriptor) = (std::ptr::null_mut(), Descriptor::from(descriptor));
        // SAFETY: the out-pointer is valid, the descriptor has the C layout; the driver judges its content.
        check(unsafe { sys::cuArray3DCreate_v2(&mut raw, (&raw const descriptor).cast()) })?;
        // A handle that is known already belongs to a context of the program that was reset, which ended its array without a call.
        self.leave(handle);
        self.arrays.insert(handle, Array { raw, owner: Owner::Own });
        Ok(())
    }

    fn create_mipmapped(
        &mut self,
        handle: u64,
        descriptor: ArrayDescriptor,
        levels: u32,
    ) -> Result<(), CuError> {
        let (mut raw, descriptor) = (std::ptr::null_mut(), Descriptor::from(descriptor));
        // SAFETY: as in `create`.
        check(unsafe { sys::cuMipmappedArrayCreate(&mut raw, (&raw const descriptor).cast(), levels) })?;
        self.leave_mipmapped(handle);
        self.mipmapped.insert(handle, raw);
        Ok(())
    }

    fn level(&mut self, handle: u64, mipmapped: u64, level: u32) -> Result<(), CuError> {
        let (parent, mut raw) = (self.raw_mipmapped(mipmapped)?, std::ptr::null_mut());
        // SAFETY: the mipmapped array is live and the out-pointer valid.
        check(unsafe { sys::cuMipmappedArrayGetLevel(&mut raw, parent, level) })?;
        self.part(handle, raw, Owner::Mipmapped(mipmapped))
    }

    fn plane(&mut self, handle: u64, parent: u64, plane: u32) -> Result<(), CuError> {
        let (array, mut raw) = (self.raw(parent)?, std::ptr::null_mut());
        // SAFETY: the array is live and the out-pointer valid.
        check(unsafe { sys::cuArrayGetPlane(&mut raw, array, plane) })?;
        self.part(handle, raw, Owner::Array(parent))
    }

    /// Makes a part of something known. A handle of the program's that stands for an array of its own keeps doing so.
    fn part(&mut self, handle: u64, raw: sys::CUarray, owner: Owner) -> Result<(), CuError> {
        if self.arrays.get(&handle).is_some_and(|known| known.owner == Owner::Own) {
            return Err(CuError::INVALID_VALUE);
        }
        self.arrays.insert(handle, Array { raw, owner });
        Ok(())
    }

    /// Takes an array with its planes out of the table; whether there was one.
    fn leave(&mut self, handle: u64) -> bool {
        let Some(&Array { raw, owner: Owner::Own }) = self.arrays.get(&handle) else { return false };
        self.arrays.remove(&handle);
        self.arrays.retain(|_, array| array.owner != Owner::Array(handle));
        self.leaving.push(Storage::Array(raw));
        true
    }

    /// As [`leave`](Self::leave), for a mipmapped array with its levels and their planes.
    fn leave_mipmapped(&mut self, handle: u64) -> bool {
        let Some(raw) = self.mipmapped.remove(&handle) else { return false };
        let is_level = |array: &Array| array.owner == Owner::Mipmapped(handle);
        let levels = self.arrays.iter().filter(|(_, array)| is_level(array));
        let levels: Vec<u64> = levels.map(|(level, _)| *level).collect();
        self.arrays.retain(|_, array| match array.owner {
            Owner::Own => true,
            Owner::Mipmapped(owner) => owner != handle,
            Owner::Array(owner) => !levels.contains(&owner),
        });
        self.leaving.push(Storage::Mipmapped(raw));
        true
    }
}

impl Executor {
    /// Executes a cold call about arrays.
    pub(crate) fn array_request(&mut self, request: ArrayRequest) -> Result<Reply, CuError> {
        match request {
            ArrayRequest::Create { array, descriptor } => {
                self.destroy_left_arrays()?;
                self.arrays.create(array, descriptor)?;
            }
            ArrayRequest::CreateMipmapped { mipmapped, descriptor, levels } => {
                self.destroy_left_arrays()?;
                self.arrays.create_mipmapped(mipmapped, descriptor, levels)?;
            }
            ArrayRequest::Destroy { array } => {
                let was_known = self.arrays.leave(array);
                self.destroy_left_arrays()?;
                return if was_known { Ok(Reply::Done) } else { Err(CuError::INVALID_HANDLE) };
            }
            ArrayRequest::DestroyMipmapped { mipmapped } => {
                let was_known = self.arrays.leave_mipmapped(mipmapped);
                self.destroy_left_arrays()?;
                return if was_known { Ok(Reply::Done) } else { Err(CuError::INVALID_HANDLE) };
            }
            ArrayRequest::Level { array, mipmapped, level } => self.arrays.level(array, mipmapped, level)?,
            ArrayRequest::Plane { array, parent, plane } => self.arrays.plane(array, parent, plane)?,
            ArrayRequest::Copy { copy, stream, release_slot, release_value } => {
                let copy = self.box_copy(&copy)?;
                let stream = self.streams.raw(stream)?;
                // SAFETY: memory ends lie in what the program shares and array ends are live (`box_copy`); the driver checks the box
                // against the arrays.
                check(unsafe { sys::cuMemcpy3DAsync_v2(&copy, stream) })?;
                self.write_timeline(stream, release_slot, release_value)?;
            }
        }
        Ok(Reply::Done)
    }

    /// Destroys what the program has left, if the device is idle. This thread alone gives it work, so the driver does not wait then.
    pub(super) fn destroy_left_arrays(&mut self) -> Result<(), CuError> {
        if self.arrays.leaving.is_empty() || !self.streams.is_idle()? {
            return Ok(());
        }
        self.arrays.leaving.drain(..).try_for_each(Storage::destroy)
    }
}
