//! How long a code image is: the loading functions take a pointer without a size. What it declares is read in [`managed`].
//!
//! A cubin is an ELF file: its tables say where its last byte is. A fat binary states its size, and a compiler's wrapper
//! points at one. Anything else that begins like text is PTX and ends with a NUL.

mod managed;

use std::ffi::{CStr, c_char};

pub use managed::declares_managed;

/// `__fatBinC_Wrapper_t::magic`.
const WRAPPER_MAGIC: u32 = 0x4662_43b1;
/// `fatBinaryHeader::magic`.
const FATBIN_MAGIC: u32 = 0xba55_ed50;
const ELF_MAGIC: u32 = u32::from_le_bytes(*b"\x7fELF");
/// `SHT_NOBITS`: a section without bytes in the file.
const SHT_NOBITS: u32 = 8;

/// Reads numbers at offsets from an address.
#[derive(Clone, Copy)]
struct Reader(*const u8);

impl Reader {
    /// # Safety
    /// `size_of::<T>()` bytes at `offset` are readable, and any bytes are a valid `T`.
    unsafe fn get<T: Copy>(self, offset: u64) -> T {
        // SAFETY: the caller vouches for the bytes; the read needs no alignment.
        unsafe { self.0.add(offset as usize).cast::<T>().read_unaligned() }
    }
}

/// The bytes of the image at `address`, without a compiler's wrapper around them; `None` for a kind that is not known.
///
/// # Safety
/// `address` points at an image that the driver has accepted; the bytes outlive `'a`.
pub unsafe fn bytes<'a>(address: *const u8) -> Option<&'a [u8]> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the driver accepts no image of less than four bytes; past that, the kind says what is readable.
    unsafe {
        let reader = Reader(address);
        let length = match reader.get::<u32>(0) {
            WRAPPER_MAGIC => {
                // magic, version, data, filename or list of prelinked fat binaries.
                let data = reader.get::<*const u8>(8);
                return if data.is_null() { None } else { bytes(data) };
            }
            FATBIN_MAGIC => fatbin(reader)?,
            ELF_MAGIC => elf(reader)?,
            _ => {
                let text = reader.get::<u8>(0);
                let is_text = text.is_ascii_graphic() || text.is_ascii_whitespace();
                return is_text.then(|| CStr::from_ptr(address.cast::<c_char>()).to_bytes_with_nul());
            }
        };
        Some(std::slice::from_raw_parts(address, usize::try_from(length).ok()?))
    }
}

/// # Safety
/// A whole fat binary header is readable.
unsafe fn fatbin(reader: Reader) -> Option<u64> {
    // magic u32, version u16, header_size u16, size of what follows u64.
    // SAFETY: as the caller vouches.
    let (header, follows) = unsafe { (reader.get::<u16>(6), reader.get::<u64>(8)) };
    u64::from(header).checked_add(follows)
}

/// # Safety
/// A whole ELF file is readable.
unsafe fn elf(reader: Reader) -> Option<u64> {
    const CLASS_64: u8 = 2;
    // SAFETY: as the caller vouches; the tables lie inside the file.
    unsafe {
        if reader.get::<u8>(4) != CLASS_64 {
            return None;
        }
        let (segments, sections) = (reader.get::<u64>(0x20), reader.get::<u64>(0x28));
        let segment_bytes = u64::from(reader.get::<u16>(0x36));
        let segment_count = u64::from(reader.get::<u16>(0x38));
        let section_bytes = u64::from(reader.get::<u16>(0x3a));
        let section_count = match reader.get::<u16>(0x3c) {
            // Too many for the header's field: the first section's size field has the count.
            0 if sections != 0 => reader.get::<u64>(sections.checked_add(32)?),
            count => u64::from(count),
        };
        let mut end = 64.max(segments.checked_add(segment_bytes * segment_count)?);
        end = end.max(sections.checked_add(section_bytes.checked_mul(section_count)?)?);
        for segment in 0..segment_count {
            let at = segments + segment * segment_bytes;
            end = end.max(reader.get::<u64>(at + 8).checked_add(reader.get::<u64>(at + 32))?);
        }
        for section in 0..section_count {
            let at = sections + section * section_bytes;
            if reader.get::<u32>(at + 4) != SHT_NOBITS {
                end = end.max(reader.get::<u64>(at + 24).checked_add(reader.get::<u64>(at + 32))?);
            }
        }
        Some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(image: &mut [u8], offset: usize, bytes: &[u8]) {
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn length(image: &[u8]) -> Option<usize> {
        // SAFETY: the tests' images are complete, and end in bytes enough for every read.
        unsafe { bytes(image.as_ptr()) }.map(<[u8]>::len)
    }

    #[test]
    fn ptx_ends_with_its_nul() {
        assert_eq!(length(b".version 8.0\0garbage"), Some(13));
        assert_eq!(length(b"\n// comment\n.version 8.0\0"), Some(25));
        assert_eq!(length(b"\0\0\0\0\0\0\0\0"), None);
    }

    fn fat(follows: u64) -> Vec<u8> {
        let mut image = vec![0; 16];
        put(&mut image, 0, &FATBIN_MAGIC.to_le_bytes());
        put(&mut image, 4, &1u16.to_le_bytes());
        put(&mut image, 6, &16u16.to_le_bytes());
        put(&mut image, 8, &follows.to_le_bytes());
        image.resize(16 + follows as usize + 8, 0xcc);
        image
    }

    #[test]
    fn fat_binaries_state_their_size() {
        assert_eq!(length(&fat(40)), Some(56));
    }

    #[test]
    fn wrappers_point_at_fat_binaries() {
        let inner = fat(8);
        let mut wrapper = vec![0; 24];
        put(&mut wrapper, 0, &WRAPPER_MAGIC.to_le_bytes());
        put(&mut wrapper, 4, &1u32.to_le_bytes());
        put(&mut wrapper, 8, &(inner.as_ptr() as u64).to_le_bytes());
        // SAFETY: both images are complete.
        let found = unsafe { bytes(wrapper.as_ptr()) }.unwrap();
        assert_eq!((found.as_ptr(), found.len()), (inner.as_ptr(), 24));
        put(&mut wrapper, 8, &[0; 8]);
        assert_eq!(length(&wrapper), None);
    }

    /// A 64-bit ELF header with one section table of `sections` (type, offset, size) at `table`.
    fn elf(table: u64, sections: &[(u32, u64, u64)]) -> Vec<u8> {
        let mut image = vec![0; 4096];
        put(&mut image, 0, b"\x7fELF\x02\x01\x01");
        put(&mut image, 0x28, &table.to_le_bytes());
        put(&mut image, 0x3a, &64u16.to_le_bytes());
        put(&mut image, 0x3c, &(sections.len() as u16).to_le_bytes());
        for (index, (kind, offset, size)) in sections.iter().enumerate() {
            let at = table as usize + index * 64;
            put(&mut image, at + 4, &kind.to_le_bytes());
            put(&mut image, at + 24, &offset.to_le_bytes());
            put(&mut image, at + 32, &size.to_le_bytes());
        }
        image
    }

    #[test]
    fn elf_files_end_with_their_last_table_or_section() {
        assert_eq!(length(&elf(128, &[(1, 64, 32)])), Some(192), "the section table is last");
        assert_eq!(length(&elf(128, &[(1, 300, 500)])), Some(800), "a section is last");
        assert_eq!(
            length(&elf(128, &[(SHT_NOBITS, 300, 5000)])),
            Some(192),
            "uninitialised data has no bytes"
        );
        let mut segments = elf(0, &[]);
        put(&mut segments, 0x20, &64u64.to_le_bytes());
        put(&mut segments, 0x36, &56u16.to_le_bytes());
        put(&mut segments, 0x38, &1u16.to_le_bytes());
        put(&mut segments, 64 + 8, &256u64.to_le_bytes());
        put(&mut segments, 64 + 32, &100u64.to_le_bytes());
        assert_eq!(length(&segments), Some(356), "a segment is last");
    }

    #[test]
    fn elf_files_may_have_more_sections_than_their_header_can_say() {
        let mut image = elf(128, &[(0, 0, 3), (1, 300, 500), (1, 900, 10)]);
        put(&mut image, 0x3c, &0u16.to_le_bytes());
        assert_eq!(length(&image), Some(910));
        assert_eq!(length(&elf(0, &[])), Some(64), "no table, no sections");
    }

    #[test]
    fn a_real_elf_file_has_its_own_size_or_less() {
        let image = std::fs::read("/proc/self/exe").unwrap();
        let found = length(&image).unwrap();
        // What a linker or a debug compressor appends after the last section is not part of the image.
        assert!(found <= image.len() && found > image.len() / 2, "{found} of {}", image.len());
    }

    #[test]
    fn other_bytes_are_not_an_image() {
        assert_eq!(length(&[0xff, 1, 2, 3, 4, 5, 6, 7, 0]), None);
    }
}
