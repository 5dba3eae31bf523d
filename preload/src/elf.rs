//! Finds the next definition of a symbol behind ours without calling `dlsym` or `dlvsym`: both are our own here, and
//! glibc offers no third way.
//!
//! Reads the loaded objects' own symbol tables (System V gABI, GNU hash section) in load order, which is the order in which
//! the loader searches: another interposer behind us stays in the chain, and no symbol version has to be guessed.

use std::{
    ffi::{CStr, c_int, c_void},
    slice,
};

// Tags of the dynamic section.
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_GNU_HASH: i64 = 0x6fff_fef5;
const DT_VERSYM: i64 = 0x6fff_fff0;
/// Set in a version index whose symbol is not the default one of its name.
const HIDDEN: u16 = 0x8000;

#[repr(C)]
struct Dynamic {
    tag: i64,
    value: usize,
}

struct Search<'a> {
    name: &'a CStr,
    /// Load address of this library, whose definitions are skipped.
    ours: usize,
    /// Load address of the object behind which to look; none: from the start.
    behind: Option<usize>,
    found: Next,
}

/// What follows an object in load order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Next {
    /// The definition, if there is one.
    pub address: Option<usize>,
    /// Whether this library lies between.
    pub passed_ours: bool,
}

/// The definition of `name` that follows the object loaded at `behind` (none: the first one), ours left out.
pub fn next_definition(name: &CStr, behind: Option<usize>) -> Next {
    let Some(ours) = crate::resolver::library_of(next_definition as *const c_void) else {
        return Next::default();
    };
    let mut search = Search { name, ours: ours.base, behind, found: Next::default() };
    // SAFETY: the callback gets the pointer to `search`, which outlives the call, and returns without unwinding.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}

/// The definition of a loader function that ours hides: the next one, or any if this library was opened late.
pub fn hidden_definition(name: &CStr) -> Option<usize> {
    let ours = crate::resolver::library_of(next_definition as *const c_void)?;
    next_definition(name, Some(ours.base)).address.or_else(|| next_definition(name, None).address)
}

unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _bytes: usize, data: *mut c_void) -> c_int {
    // SAFETY: `data` is the search passed to `dl_iterate_phdr`, `info` is valid during the callback.
    let (search, info) = unsafe { (&mut *data.cast::<Search<'_>>(), &*info) };
    let base = info.dlpi_addr as usize;
    // SAFETY: a loaded object's program headers.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    if let Some(behind) = search.behind {
        // The loader reports where the first byte lies, which is not the offset of an executable linked at a fixed address.
        let first =
            headers.iter().find(|header| header.p_type == libc::PT_LOAD).map_or(0, |header| header.p_vaddr);
        if behind == base || behind == base + first as usize {
            search.behind = None;
        }
        return 0;
    }
    if base == search.ours {
        search.found.passed_ours = true;
        return 0;
    }
    let dynamic = headers.iter().find(|header| header.p_type == libc::PT_DYNAMIC);
    // SAFETY: the dynamic section of a loaded object, at its load address.
    search.found.address =
        dynamic.and_then(|header| unsafe { find(base, header.p_vaddr as usize, search.name) });
    c_int::from(search.found.address.is_some())
}

/// Looks `name` up in one object.
///
/// # Safety
/// `base` + `dynamic_offset` is the dynamic section of an object that is loaded at `base`.
unsafe fn find(base: usize, dynamic_offset: usize, name: &CStr) -> Option<usize> {
    let (mut strings, mut symbols, mut gnu_hash, mut versions) = (0, 0, 0, 0);
    let mut entry = (base + dynamic_offset) as *const Dynamic;
    // SAFETY: the section ends with a null tag.
    while let Dynamic { tag, value } = unsafe { &*entry }
        && *tag != 0
    {
        // glibc stores addresses in place of offsets, except in objects whose dynamic section is read-only (the vDSO).
        let address = if *value < base { base + value } else { *value };
        match *tag {
            DT_STRTAB => strings = address,
            DT_SYMTAB => symbols = address,
            DT_GNU_HASH => gnu_hash = address,
            DT_VERSYM => versions = address,
            _ => {}
        }
        // SAFETY: the entry was not the last one.
        entry = unsafe { entry.add(1) };
    }
    if strings == 0 || symbols == 0 || gnu_hash == 0 {
        return None;
    }
    let hash = name
        .to_bytes()
        .iter()
        .fold(5381_u32, |hash, byte| hash.wrapping_mul(33).wrapping_add((*byte).into()));
    // SAFETY: the layout of the GNU hash section: four words, the bloom filter (64-bit words), the buckets, the chains; the
    // symbol, string and version tables are parallel to it. All lie in a loaded object.
    unsafe {
        let header = gnu_hash as *const u32;
        let (buckets, first, bloom_words) = (*header, *header.add(1), *header.add(2));
        if buckets == 0 {
            return None;
        }
        let bucket_words = header.add(4 + 2 * bloom_words as usize);
        let chains = bucket_words.add(buckets as usize);
        let mut index = *bucket_words.add((hash % buckets) as usize);
        if index < first {
            return None;
        }
        loop {
            let chain = *chains.add((index - first) as usize);
            if chain | 1 == hash | 1 {
                let symbol = &*(symbols as *const libc::Elf64_Sym).add(index as usize);
                let defined = symbol.st_shndx != 0 && symbol.st_value != 0;
                let default = versions == 0 || *(versions as *const u16).add(index as usize) & HIDDEN == 0;
                let same = CStr::from_ptr((strings + symbol.st_name as usize) as *const _) == name;
                if defined && default && same {
                    return Some(base + symbol.st_value as usize);
                }
            }
            if chain & 1 == 1 {
                return None;
            }
            index += 1;
        }
    }
}
