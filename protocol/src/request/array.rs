//! Cold calls about arrays (`CUarray`, `CUmipmappedArray`) and the copies that have one at either end. Handles are the client's.

use serde::{Deserialize, Serialize};

use super::CopyDescriptor;

/// A call about arrays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ArrayRequest {
    /// cuArrayCreate or cuArray3DCreate.
    Create {
        /// The client's `CUarray`.
        array: u64,
        /// What it is made of.
        descriptor: ArrayDescriptor,
    },
    /// cuArrayDestroy, after the work submitted so far.
    Destroy {
        /// The client's `CUarray`.
        array: u64,
    },
    /// cuMipmappedArrayCreate.
    CreateMipmapped {
        /// The client's `CUmipmappedArray`.
        mipmapped: u64,
        /// What its first level is made of.
        descriptor: ArrayDescriptor,
        /// How many levels, as the program gave it.
        levels: u32,
    },
    /// cuMipmappedArrayDestroy, after the work submitted so far. Its levels end with it.
    DestroyMipmapped {
        /// The client's `CUmipmappedArray`.
        mipmapped: u64,
    },
    /// cuMipmappedArrayGetLevel: know the level under the client's handle.
    Level {
        /// The client's `CUarray`.
        array: u64,
        /// The client's `CUmipmappedArray`.
        mipmapped: u64,
        /// Which level.
        level: u32,
    },
    /// cuArrayGetPlane: know the plane under the client's handle.
    Plane {
        /// The client's `CUarray` for the plane.
        array: u64,
        /// The client's `CUarray` with several planes.
        parent: u64,
        /// Which plane.
        plane: u32,
    },
    /// Any copy with an array at either end.
    Copy {
        /// What is copied.
        copy: CopyDescriptor,
        /// `CUstream`.
        stream: u64,
        /// Timeline slot written by the stream when the copy is done; 0 for none.
        release_slot: u32,
        /// The value written to it.
        release_value: u32,
    },
}

/// `CUDA_ARRAY3D_DESCRIPTOR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayDescriptor {
    /// In elements.
    pub width: u64,
    /// In elements; 0 for one dimension.
    pub height: u64,
    /// In elements or layers; 0 for one and two dimensions.
    pub depth: u64,
    /// `CUarray_format`.
    pub format: u32,
    /// Channels by element.
    pub channels: u32,
    /// `CUDA_ARRAY3D_*`.
    pub flags: u32,
}

/// Where in an array a box begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayPlace {
    /// The client's `CUarray`.
    pub array: u64,
    /// Bytes from the start of the row.
    pub x_bytes: u64,
    /// Row.
    pub y: u64,
    /// Slice or layer.
    pub z: u64,
}
