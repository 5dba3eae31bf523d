//! Whether a code image declares managed variables (`__managed__`), which one address names on the processor and on the device.
//!
//! The driver chooses that address in the process that loads the image, so LightOS does not carry such variables. PTX says it in words,
//! `.attribute(.managed)`; in a cubin the symbol has a flag. Both are read without what surrounds them: this runs in each load.

use super::{ELF_MAGIC, FATBIN_MAGIC};
use zerocopy::FromBytes;

/// `FATBIN_FLAG`s of an entry that is compressed, with LZ4 and with Zstandard.
const COMPRESSED: u64 = 0x2000 | 0x8000;
/// An entry's header up to the size of its text, which is there in every version.
const ENTRY_HEADER_BYTES: usize = 64;
/// An entry of PTX text.
const KIND_PTX: u16 = 1;

const SHT_SYMTAB: u32 = 2;
const SECTION_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
/// `STT_OBJECT`, and `STT_CUDA_OBJECT` of images that are not linked yet: variables.
const VARIABLES: [u8; 2] = [1, 13];
/// `STO_CUDA_MANAGED`, a bit of `st_other`.
const STO_CUDA_MANAGED: u8 = 4;

/// Whether `image`, a whole one, declares managed variables. What is compressed is not read, and counts as if it had none.
pub fn declares_managed(image: &[u8]) -> bool {
    match number(image, 0) {
        Some(FATBIN_MAGIC) => of_fat_binary(image),
        Some(ELF_MAGIC) => of_elf(image).unwrap_or(false),
        _ => of_ptx(image),
    }
}

/// The entries of a fat binary are one source, compiled for several devices: the first that can be read tells.
fn of_fat_binary(image: &[u8]) -> bool {
    let mut at = number::<u16>(image, 6).map_or(0, usize::from);
    while let Some(entry) = image.get(at..).filter(|rest| rest.len() >= ENTRY_HEADER_BYTES) {
        let words = || Some((number::<u16>(entry, 0)?, number::<u32>(entry, 4)?, number::<u64>(entry, 8)?));
        let Some((kind, header, bytes)) = words() else { return false };
        let (header, bytes) = (header as usize, usize::try_from(bytes).unwrap_or(usize::MAX));
        let end = header.saturating_add(bytes);
        if header < ENTRY_HEADER_BYTES || end > entry.len() {
            return false;
        }
        let payload = &entry[header..end];
        if number::<u64>(entry, 40).is_some_and(|flags| flags & COMPRESSED == 0) {
            if number(payload, 0) == Some(ELF_MAGIC) {
                return of_elf(payload).unwrap_or(false);
            }
            if kind == KIND_PTX {
                return of_ptx(payload);
            }
        }
        at += end;
    }
    false
}

/// `None` where the tables do not lie in the file.
fn of_elf(image: &[u8]) -> Option<bool> {
    let sections = usize::try_from(number::<u64>(image, 0x28)?).ok()?;
    let count = match number::<u16>(image, 0x3c)? {
        // Too many for the header's field: the first section's size field has the count.
        0 if sections != 0 => usize::try_from(number::<u64>(image, sections.checked_add(32)?)?).ok()?,
        count => count.into(),
    };
    let table = image.get(sections..)?.chunks_exact(SECTION_BYTES).take(count);
    for section in table.filter(|section| number(section, 4) == Some(SHT_SYMTAB)) {
        let [offset, bytes] = [24, 32].map(|at| number::<u64>(section, at));
        let (start, bytes) = (usize::try_from(offset?).ok()?, usize::try_from(bytes?).ok()?);
        let symbols = image.get(start..start.checked_add(bytes)?)?;
        if symbols.chunks_exact(SYMBOL_BYTES).any(is_managed) {
            return Some(true);
        }
    }
    Some(false)
}

/// Whether an `Elf64_Sym` is a managed variable.
fn is_managed(symbol: &[u8]) -> bool {
    let (info, other) = (symbol[4], symbol[5]);
    VARIABLES.contains(&(info & 0xf)) && other & STO_CUDA_MANAGED != 0
}

/// Looks for `.attribute( … .managed … )` outside of comments.
fn of_ptx(text: &[u8]) -> bool {
    const DIRECTIVE: &[u8] = b".attribute";
    let mut at = 0;
    while let Some(found) = find(&text[at..], DIRECTIVE) {
        let begin = at + found;
        at = begin + DIRECTIVE.len();
        let rest = text[at..].trim_ascii_start();
        let list = rest.strip_prefix(b"(").and_then(|rest| Some(&rest[..find(rest, b";")?]));
        if list.is_some_and(names_managed) && !is_commented(&text[..begin]) {
            return true;
        }
    }
    false
}

/// Whether `.managed` is a word of `list`, and no part of a longer one.
fn names_managed(list: &[u8]) -> bool {
    const WORD: &[u8] = b".managed";
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b':');
    // Attributes of PTX have at most one pair of brackets in theirs, `.unified(a, b)`; what follows the list is no attribute.
    find(list, WORD).is_some_and(|at| !list.get(at + WORD.len()).is_some_and(goes_on))
}

/// Whether the text behind `before` is part of a comment.
fn is_commented(before: &[u8]) -> bool {
    let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or(before);
    let last = |mark: &[u8]| before.windows(2).rposition(|pair| pair == mark);
    find(line, b"//").is_some() || last(b"/*") > last(b"*/")
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

/// A number of the image, little-endian as the processors that CUDA runs on; `None` past its end.
fn number<T: FromBytes>(image: &[u8], at: usize) -> Option<T> {
    T::read_from_prefix(image.get(at..)?).ok().map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cubin with these symbols, given as `st_info` and `st_other`.
    fn cubin(symbols: &[(u8, u8)]) -> Vec<u8> {
        const SYMBOLS_AT: usize = 64;
        let mut image = vec![0; SYMBOLS_AT];
        image[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        for (info, other) in symbols {
            image.extend([0, 0, 0, 0, *info, *other]);
            image.resize(image.len() + SYMBOL_BYTES - 6, 0xff);
        }
        let (table, bytes) = (image.len() as u64, (symbols.len() * SYMBOL_BYTES) as u64);
        image[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        image[0x3c..0x3e].copy_from_slice(&2u16.to_le_bytes());
        for (kind, at, bytes) in [(0u32, 0, 0), (SHT_SYMTAB, SYMBOLS_AT as u64, bytes)] {
            let mut section = [0; SECTION_BYTES];
            section[4..8].copy_from_slice(&kind.to_le_bytes());
            section[24..32].copy_from_slice(&at.to_le_bytes());
            section[32..40].copy_from_slice(&bytes.to_le_bytes());
            image.extend(section);
        }
        image
    }

    /// A fat binary of entries, given as kind, flags and payload.
    fn fat_binary(entries: &[(u16, u64, &[u8])]) -> Vec<u8> {
        let mut image = vec![0; 16];
        image[..4].copy_from_slice(&FATBIN_MAGIC.to_le_bytes());
        image[6..8].copy_from_slice(&16u16.to_le_bytes());
        for (kind, flags, payload) in entries {
            let mut header = [0; 80];
            header[..2].copy_from_slice(&kind.to_le_bytes());
            header[4..8].copy_from_slice(&80u32.to_le_bytes());
            header[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
            header[40..48].copy_from_slice(&flags.to_le_bytes());
            image.extend(header);
            image.extend(*payload);
        }
        image
    }

    const PLAIN: &[u8] = b".version 8.0\n.global .align 4 .u32 managed; .func f() { ret; }\0";
    const MANAGED: &[u8] = b".version 8.0\n.global .attribute(.managed) .align 4 .u32 counter = 5;\0";

    #[test]
    fn ptx_says_it_in_words() {
        let declares = |text: &str| declares_managed(text.as_bytes());
        assert!(declares_managed(MANAGED) && !declares_managed(PLAIN) && !declares(""));
        assert!(declares(".global .attribute ( .managed ) .f32 a;"));
        assert!(declares(".global .attribute(.managed, .unified(19, 95)) .f32 a;"));
        assert!(declares(".global .attribute(.unified(19,95),\n  .managed) .f32 a;"));
        assert!(declares("// .attribute of another line\n/* done */ .global .attribute(.managed) .f32 a;"));
        assert!(declares(
            ".visible .global .attribute(.unified(1,2)) .u32 a; .global .attribute(.managed) .u32 b;"
        ));
        assert!(!declares(".global .attribute(.unified(19,95)) .f32 a; .global .f32 b;"));
        assert!(!declares(".global .attribute(.managed_by_another) .f32 a;"));
        assert!(!declares("// .global .attribute(.managed) .f32 a;\n.global .f32 b;"));
        assert!(!declares("/* .global\n .attribute(.managed) .f32 a; */ .global .f32 b;"));
        assert!(!declares(".attribute") && !declares(".attribute(.managed"));
    }

    #[test]
    fn cubins_say_it_in_their_symbols() {
        let (object, function, cuda_object) = (0x01, 0x12, 0x1d);
        assert!(declares_managed(&cubin(&[(0, 0), (object, 0), (object, 4)])));
        assert!(declares_managed(&cubin(&[(cuda_object, 0x24)])), "with the address space of global memory");
        assert!(!declares_managed(&cubin(&[(0, 0), (object, 0), (cuda_object, 0x20), (function, 0x10)])));
        assert!(!declares_managed(&cubin(&[(function, 0x14)])), "no variable");
        assert!(!declares_managed(&cubin(&[])));
    }

    #[test]
    fn the_first_readable_entry_of_a_fat_binary_tells() {
        let (with, without) = (cubin(&[(1, 4)]), cubin(&[(1, 0)]));
        assert!(declares_managed(&fat_binary(&[(2, 0x11, &with)])));
        assert!(declares_managed(&fat_binary(&[(1, 0x11, MANAGED)])));
        assert!(!declares_managed(&fat_binary(&[(2, 0x11, &without), (1, 0x11, PLAIN)])));
        assert!(declares_managed(&fat_binary(&[
            (1, 0x8011, b"packed"),
            (1, 0x2011, b"packed"),
            (2, 0x11, &with)
        ])));
        assert!(declares_managed(&fat_binary(&[(64, 0x11, b"of a kind to come"), (2, 0x11, &with)])));
        assert!(
            !declares_managed(&fat_binary(&[(1, 0x8011, MANAGED), (2, 0x2011, &with)])),
            "not to be read"
        );
        assert!(!declares_managed(&fat_binary(&[])));
    }

    #[test]
    fn broken_images_declare_nothing_and_end() {
        for image in [cubin(&[(1, 4)]), fat_binary(&[(2, 0, &cubin(&[(1, 4)]))])] {
            for end in 0..image.len() {
                assert!(!declares_managed(&image[..end]), "cut at {end}");
            }
            for at in 0..image.len() {
                let mut broken = image.clone();
                broken[at] = !broken[at];
                let _ = declares_managed(&broken);
            }
        }
        let mut endless = fat_binary(&[(64, 0, b"")]);
        endless[16 + 4..16 + 8].copy_from_slice(&0u32.to_le_bytes());
        assert!(!declares_managed(&endless), "an entry of no length");
    }
}
