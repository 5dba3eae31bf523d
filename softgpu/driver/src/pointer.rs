//! `cuPointerGetAttribute`: what the driver knows about an address.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::space::{Kind, Range, SPACE};
use crate::vmm;

/// One attribute's value, in the type that CUDA documents for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A handle, address, size or identifier.
    Word(u64),
    /// An enumeration, ordinal, mask or flag word.
    Int(u32),
    /// A C++ bool.
    Bool(bool),
}

impl Value {
    /// Writes the value where the caller asked.
    ///
    /// # Safety
    /// `to` is valid for writing the attribute's type.
    pub unsafe fn write(self, to: *mut c_void) {
        // SAFETY: this function's contract.
        unsafe {
            match self {
                Value::Word(word) => to.cast::<u64>().write_unaligned(word),
                Value::Int(int) => to.cast::<u32>().write_unaligned(int),
                Value::Bool(flag) => to.cast::<u8>().write(u8::from(flag)),
            }
        }
    }
}

/// One attribute of an address.
pub fn attribute(attribute: u32, address: u64) -> Result<Value> {
    let range = SPACE.find(address);
    // The one question that has an answer for any address inside a reservation.
    if attribute == 13 && range.is_none() {
        return vmm::reservation(address).map(|_| Value::Bool(false)).ok_or(Error::INVALID_VALUE);
    }
    of_range(attribute, address, &*range.ok_or(Error::INVALID_VALUE)?)
}

/// The answer of `cuPointerGetAttributes` for an address that CUDA does not know.
pub fn unknown(attribute: u32) -> Value {
    match attribute {
        2 | 14 | 16 => Value::Int(0),
        9 => Value::Int(-2i32 as u32),
        6 | 8 | 10 | 13 | 15 | 21 => Value::Bool(false),
        _ => Value::Word(0),
    }
}

fn of_range(attribute: u32, address: u64, range: &Range) -> Result<Value> {
    let mapped = vmm::mapping(address);
    Ok(match attribute {
        // CONTEXT: mappings and pool memory belong to none.
        1 => match (range.kind, range.context) {
            (Kind::Mapped { .. } | Kind::Pool(..), _) | (_, 0) => return Err(Error::INVALID_VALUE),
            (_, context) => Value::Word(context),
        },
        2 => Value::Int(if range.kind.is_host() { 1 } else { 2 }),
        3 => Value::Word(address),
        4 => match range.kind {
            kind if kind.is_host() => Value::Word(address),
            kind if kind.is_managed() => Value::Word(address),
            _ => return Err(Error::INVALID_VALUE),
        },
        6 => Value::Bool(range.sync_memops.load(Ordering::Relaxed)),
        7 => Value::Word(range.id),
        8 => Value::Bool(range.kind.is_managed()),
        9 => Value::Int(range.device.ordinal() as u32),
        10 => Value::Bool(range.kind == Kind::Device),
        11 => Value::Word(mapped.map_or(range.start, |(start, ..)| start)),
        12 => Value::Word(mapped.map_or(range.bytes, |(_, bytes, _)| bytes)),
        13 => Value::Bool(true),
        14 => Value::Int(mapped.map_or(0, |(.., exportable)| u32::from(exportable))),
        15 | 21 => Value::Bool(false),
        16 => Value::Int(3),
        17 => match range.kind {
            Kind::Pool(pool, _) => Value::Word(pool),
            _ => Value::Word(0),
        },
        18 => Value::Word(mapped.map_or(range.bytes, |(_, bytes, _)| bytes)),
        19 => Value::Word(mapped.map_or(range.start, |(start, ..)| start)),
        20 => Value::Word(range.id),
        _ => return Err(Error::INVALID_VALUE),
    })
}

/// `cuPointerSetAttribute`: only SYNC_MEMOPS can be set.
pub fn set_sync_memops(attribute: u32, address: u64, value: u32) -> Result {
    if attribute != 6 {
        return Err(Error::INVALID_VALUE);
    }
    let range = SPACE.find(address).ok_or(Error::INVALID_VALUE)?;
    range.sync_memops.store(value != 0, Ordering::Relaxed);
    Ok(())
}
