//! The constant table while a module is being decoded.

use rustc_hash::FxHashMap;

use super::lanes::{CONSTANT, Constants, LANES};

/// The constant table under construction: each value once.
#[derive(Default)]
pub struct ConstantPool {
    pub table: Constants,
    words: FxHashMap<u32, u32>,
    longs: FxHashMap<u64, u32>,
}

impl ConstantPool {
    pub fn word(&mut self, value: u32) -> u32 {
        let table = &mut self.table.words;
        CONSTANT
            | *self.words.entry(value).or_insert_with(|| {
                table.push([value; LANES]);
                table.len() as u32 - 1
            })
    }

    pub fn long(&mut self, value: u64) -> u32 {
        let table = &mut self.table.longs;
        CONSTANT
            | *self.longs.entry(value).or_insert_with(|| {
                table.push([value; LANES]);
                table.len() as u32 - 1
            })
    }
}
