//! Code images: what the program hands to a module load, and the PTX in it.
//!
//! PTX text and fat binaries that hold PTX (plain, LZ4 or Zstandard) are served. Machine code is not: there is no such
//! machine, so an image with nothing else answers NO_BINARY_FOR_GPU, as a GPU of another architecture would.

use std::ffi::{CStr, c_char, c_void};
use std::io::Read;

use crate::error::{Error, Result};

const ELF: [u8; 4] = *b"\x7fELF";
/// `__fatBinC_Wrapper_t`: magic, version, pointer to the fat binary, file name.
const WRAPPER: [u8; 4] = 0x4662_43b1_u32.to_le_bytes();
const FAT_BINARY: [u8; 4] = 0xba55_ed50_u32.to_le_bytes();
const FAT_HEADER_BYTES: u64 = 16;
const ENTRY_HEADER_BYTES: usize = 64;
const KIND_PTX: u16 = 1;
const FLAG_LZ4: u64 = 0x2000;
const FLAG_ZSTD: u64 = 0x8000;
/// No PTX text is as large as this; a larger claim is a broken header.
const MAX_TEXT_BYTES: u64 = 1 << 30;

/// The PTX of an image for a device of compute capability `sm` (90 for 9.0).
///
/// # Safety
/// `image` is null or points to PTX text that ends with NUL, a cubin, a fat binary, or a fat binary's wrapper, complete.
pub unsafe fn ptx(image: *const c_void, sm: u32) -> Result<String> {
    if image.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: every accepted form has four bytes, except text that ends earlier, where reading stops at its NUL.
    let start = unsafe { first_four(image.cast()) };
    match start {
        ELF => Err(Error::NO_BINARY_FOR_GPU),
        WRAPPER => {
            // SAFETY: the wrapper's third word is at byte 8 and points to a fat binary or to PTX text.
            let inner = unsafe { image.byte_add(8).cast::<*const c_void>().read_unaligned() };
            // SAFETY: as above.
            match (!inner.is_null()).then(|| unsafe { first_four(inner.cast()) }) {
                // SAFETY: the wrapped fat binary is complete by this function's contract.
                Some(FAT_BINARY) => unsafe { ptx_of_fat_binary(inner.cast(), sm) },
                _ => Err(Error::INVALID_IMAGE),
            }
        }
        // SAFETY: the fat binary is complete by this function's contract.
        FAT_BINARY => unsafe { ptx_of_fat_binary(image.cast(), sm) },
        [0, ..] => Err(Error::INVALID_IMAGE),
        _ => {
            // SAFETY: what is neither of the binary forms is NUL-terminated text.
            let text = unsafe { CStr::from_ptr(image.cast::<c_char>()) };
            let text = text.to_str().map_err(|_| Error::INVALID_IMAGE)?;
            // Text without it is no PTX to the driver, and no error of its compiler.
            if text.contains(".version") { Ok(text.to_owned()) } else { Err(Error::INVALID_IMAGE) }
        }
    }
}

unsafe fn first_four(at: *const u8) -> [u8; 4] {
    let mut bytes = [0; 4];
    for (i, byte) in bytes.iter_mut().enumerate() {
        // SAFETY: reading goes on only while no NUL was met, so it stays inside the image.
        *byte = unsafe { at.add(i).read() };
        if *byte == 0 {
            break;
        }
    }
    bytes
}

unsafe fn ptx_of_fat_binary(at: *const u8, sm: u32) -> Result<String> {
    // SAFETY: a complete fat binary has a header of 16 bytes, with the size of what follows at byte 8.
    let payload_bytes = unsafe { at.add(8).cast::<u64>().read_unaligned() };
    if payload_bytes > MAX_TEXT_BYTES {
        return Err(Error::INVALID_IMAGE);
    }
    // SAFETY: the header states the size of the complete fat binary.
    let all = unsafe { std::slice::from_raw_parts(at, (FAT_HEADER_BYTES + payload_bytes) as usize) };
    ptx_of_entries(all, sm)
}

/// Picks the newest PTX that the device can run.
fn ptx_of_entries(all: &[u8], sm: u32) -> Result<String> {
    let header = usize::from(u16::from_le_bytes([all[6], all[7]])).max(FAT_HEADER_BYTES as usize);
    let mut rest = all.get(header..).ok_or(Error::INVALID_IMAGE)?;
    let mut best: Option<(u32, Entry)> = None;
    while rest.len() >= ENTRY_HEADER_BYTES {
        let (entry, length) = Entry::parse(rest)?;
        if entry.kind == KIND_PTX && entry.arch <= sm && best.is_none_or(|(arch, _)| arch < entry.arch) {
            best = Some((entry.arch, entry));
        }
        rest = &rest[length..];
    }
    best.ok_or(Error::NO_BINARY_FOR_GPU)?.1.text()
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    kind: u16,
    arch: u32,
    flags: u64,
    text_bytes: u64,
    payload: &'a [u8],
}

impl<'a> Entry<'a> {
    fn parse(from: &'a [u8]) -> Result<(Entry<'a>, usize)> {
        let word = |at: usize| u64::from_le_bytes(from[at..at + 8].try_into().unwrap_or_default());
        let half = |at: usize| u32::from_le_bytes(from[at..at + 4].try_into().unwrap_or_default());
        let (header, padded, packed) = (half(4) as usize, word(8), half(16) as usize);
        let end =
            usize::try_from(padded).ok().and_then(|n| n.checked_add(header)).ok_or(Error::INVALID_IMAGE)?;
        if header < ENTRY_HEADER_BYTES {
            return Err(Error::INVALID_IMAGE);
        }
        let payload = from.get(header..end).ok_or(Error::INVALID_IMAGE)?;
        let flags = word(40);
        let payload = match flags & (FLAG_LZ4 | FLAG_ZSTD) {
            0 => payload,
            _ => payload.get(..packed).ok_or(Error::INVALID_IMAGE)?,
        };
        let entry = Entry {
            kind: u16::from_le_bytes([from[0], from[1]]),
            arch: half(28),
            flags,
            text_bytes: word(56),
            payload,
        };
        Ok((entry, end))
    }

    fn text(&self) -> Result<String> {
        if self.text_bytes > MAX_TEXT_BYTES {
            return Err(Error::INVALID_IMAGE);
        }
        let mut bytes = if self.flags & FLAG_LZ4 != 0 {
            lz4_flex::block::decompress(self.payload, self.text_bytes as usize)
                .map_err(|_| Error::INVALID_IMAGE)?
        } else if self.flags & FLAG_ZSTD != 0 {
            let mut bytes = Vec::new();
            let decoder =
                ruzstd::decoding::StreamingDecoder::new(self.payload).map_err(|_| Error::INVALID_IMAGE)?;
            decoder.take(self.text_bytes).read_to_end(&mut bytes).map_err(|_| Error::INVALID_IMAGE)?;
            bytes
        } else {
            self.payload.to_vec()
        };
        bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
        String::from_utf8(bytes).map_err(|_| Error::INVALID_IMAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u16, arch: u32, flags: u64, text_bytes: usize, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0u8; ENTRY_HEADER_BYTES];
        let padded = payload.len().next_multiple_of(8);
        out[..2].copy_from_slice(&kind.to_le_bytes());
        out[4..8].copy_from_slice(&(ENTRY_HEADER_BYTES as u32).to_le_bytes());
        out[8..16].copy_from_slice(&(padded as u64).to_le_bytes());
        out[16..20].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        out[28..32].copy_from_slice(&arch.to_le_bytes());
        out[40..48].copy_from_slice(&flags.to_le_bytes());
        out[56..64].copy_from_slice(&(text_bytes as u64).to_le_bytes());
        out.extend_from_slice(payload);
        out.resize(ENTRY_HEADER_BYTES + padded, 0);
        out
    }

    fn fat(entries: &[Vec<u8>]) -> Vec<u8> {
        let body = entries.concat();
        let mut out = FAT_BINARY.to_vec();
        out.extend_from_slice(&[1, 0, 16, 0]);
        out.extend_from_slice(&(body.len() as u64).to_le_bytes());
        [out, body].concat()
    }

    fn load(image: &[u8]) -> Result<String> {
        // SAFETY: each test passes a complete image.
        unsafe { ptx(image.as_ptr().cast(), 90) }
    }

    #[test]
    fn text_and_machine_code_are_told_apart() {
        assert_eq!(load(b".version 8.0\0").unwrap(), ".version 8.0");
        assert_eq!(load(b"\x7fELF\x02"), Err(Error::NO_BINARY_FOR_GPU));
        assert_eq!(load(b"\0"), Err(Error::INVALID_IMAGE));
    }

    #[test]
    fn the_newest_ptx_that_runs_is_taken() {
        let image = fat(&[
            entry(2, 90, 0, 0, b"machine code"),
            entry(KIND_PTX, 80, 0, 0, b"ptx for 80"),
            entry(KIND_PTX, 90, 0, 0, b"ptx for 90"),
            entry(KIND_PTX, 100, 0, 0, b"ptx for 100"),
        ]);
        assert_eq!(load(&image).unwrap(), "ptx for 90");
        assert_eq!(load(&fat(&[entry(2, 90, 0, 0, b"code")])), Err(Error::NO_BINARY_FOR_GPU));
    }

    #[test]
    fn compressed_ptx_is_unpacked() {
        let text = ".version 8.0 ".repeat(50);
        let packed = lz4_flex::block::compress(text.as_bytes());
        let image = fat(&[entry(KIND_PTX, 90, FLAG_LZ4, text.len(), &packed)]);
        assert_eq!(load(&image).unwrap(), text);
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let packed = ruzstd::encoding::compress_to_vec(text.as_bytes(), level);
        let image = fat(&[entry(KIND_PTX, 90, FLAG_ZSTD, text.len(), &packed)]);
        assert_eq!(load(&image).unwrap(), text);
    }

    #[test]
    fn a_broken_entry_is_an_invalid_image() {
        let mut image = fat(&[entry(KIND_PTX, 90, 0, 0, b"text")]);
        image[16 + 8..16 + 16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(load(&image), Err(Error::INVALID_IMAGE));
    }
}
