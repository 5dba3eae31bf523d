//! The dotted words of an opcode, taken one by one. What nobody has taken is what the machine does not support.

use std::cell::Cell;

use lightos_kernels::ptx::ast::Type;

/// Words of one instruction; each can be taken once.
pub struct Words<'a> {
    list: &'a [String],
    taken: Cell<u64>,
}

impl<'a> Words<'a> {
    pub fn new(list: &'a [String]) -> Words<'a> {
        Words { list, taken: Cell::new(0) }
    }

    fn take(&self, wanted: impl Fn(&str) -> bool) -> Option<&'a str> {
        let found = |(i, word): &(usize, &'a String)| self.taken.get() >> (i & 63) & 1 == 0 && wanted(word);
        let (index, word) = self.list.iter().enumerate().find(found)?;
        self.taken.set(self.taken.get() | 1 << (index & 63));
        Some(word)
    }

    /// Takes `word` if it is there.
    pub fn has(&self, word: &str) -> bool {
        self.take(|w| w == word).is_some()
    }

    /// Takes the first word that is one of `words`.
    pub fn one_of(&self, words: &[&str]) -> Option<&'a str> {
        self.take(|w| words.contains(&w))
    }

    pub fn starting(&self, prefix: &str) -> Option<&'a str> {
        self.take(|w| w.starts_with(prefix))
    }

    /// Takes the first type.
    pub fn ty(&self) -> Option<Type> {
        self.take(|w| parse_type(w).is_some()).and_then(parse_type)
    }

    /// Takes `words` wherever they stand: hints that mean nothing here.
    pub fn ignore(&self, words: &[&str]) {
        while self.one_of(words).is_some() {}
    }

    /// The first word that nobody took.
    pub fn left(&self) -> Option<&'a str> {
        self.take(|_| true)
    }
}

pub fn parse_type(word: &str) -> Option<Type> {
    Some(match word {
        "b8" => Type::B8,
        "b16" => Type::B16,
        "b32" => Type::B32,
        "b64" => Type::B64,
        "b128" => Type::B128,
        "u8" => Type::U8,
        "u16" => Type::U16,
        "u32" => Type::U32,
        "u64" => Type::U64,
        "s8" => Type::S8,
        "s16" => Type::S16,
        "s32" => Type::S32,
        "s64" => Type::S64,
        "f16" => Type::F16,
        "f16x2" => Type::F16x2,
        "bf16" => Type::BF16,
        "bf16x2" => Type::BF16x2,
        "tf32" => Type::TF32,
        "f32" => Type::F32,
        "f32x2" => Type::F32x2,
        "f64" => Type::F64,
        "e4m3" => Type::E4M3,
        "e5m2" => Type::E5M2,
        "e4m3x2" => Type::E4M3x2,
        "e5m2x2" => Type::E5M2x2,
        "u16x2" => Type::U16x2,
        "s16x2" => Type::S16x2,
        "pred" => Type::Pred,
        _ => return None,
    })
}

/// Size of a value in bytes; a predicate counts as one.
pub fn type_bytes(ty: Type) -> u32 {
    match ty {
        Type::B8 | Type::U8 | Type::S8 | Type::E4M3 | Type::E5M2 | Type::Pred => 1,
        Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::BF16 | Type::E4M3x2 | Type::E5M2x2 => 2,
        Type::B64 | Type::U64 | Type::S64 | Type::F64 | Type::F32x2 => 8,
        Type::B128 => 16,
        Type::TexRef | Type::SamplerRef | Type::SurfRef => 8,
        _ => 4,
    }
}

pub fn is_signed(ty: Type) -> bool {
    matches!(ty, Type::S8 | Type::S16 | Type::S32 | Type::S64)
}

pub fn is_float(ty: Type) -> bool {
    matches!(ty, Type::F16 | Type::F16x2 | Type::BF16 | Type::BF16x2 | Type::TF32 | Type::F32 | Type::F64)
}
