//! The words of the tree's closed sets: types, state spaces, linkage.

use super::ast::{Linkage, Space, Type};

/// Every type with its word and its size in bytes. A predicate counts as one byte, an opaque reference as a
/// 64-bit handle.
const TYPES: [(&str, Type, u32); 31] = [
    ("b8", Type::B8, 1),
    ("b16", Type::B16, 2),
    ("b32", Type::B32, 4),
    ("b64", Type::B64, 8),
    ("b128", Type::B128, 16),
    ("u8", Type::U8, 1),
    ("u16", Type::U16, 2),
    ("u32", Type::U32, 4),
    ("u64", Type::U64, 8),
    ("s8", Type::S8, 1),
    ("s16", Type::S16, 2),
    ("s32", Type::S32, 4),
    ("s64", Type::S64, 8),
    ("f16", Type::F16, 2),
    ("f16x2", Type::F16x2, 4),
    ("bf16", Type::BF16, 2),
    ("bf16x2", Type::BF16x2, 4),
    ("tf32", Type::TF32, 4),
    ("f32", Type::F32, 4),
    ("f32x2", Type::F32x2, 8),
    ("f64", Type::F64, 8),
    ("e4m3", Type::E4M3, 1),
    ("e5m2", Type::E5M2, 1),
    ("e4m3x2", Type::E4M3x2, 2),
    ("e5m2x2", Type::E5M2x2, 2),
    ("u16x2", Type::U16x2, 4),
    ("s16x2", Type::S16x2, 4),
    ("pred", Type::Pred, 1),
    ("texref", Type::TexRef, 8),
    ("samplerref", Type::SamplerRef, 8),
    ("surfref", Type::SurfRef, 8),
];

const SPACES: [(&str, Space); 8] = [
    ("reg", Space::Register),
    ("sreg", Space::Special),
    ("const", Space::Const),
    ("global", Space::Global),
    ("local", Space::Local),
    ("param", Space::Param),
    ("shared", Space::Shared),
    ("tex", Space::Texture),
];

const LINKAGES: [(&str, Linkage); 4] = [
    ("visible", Linkage::Visible),
    ("extern", Linkage::Extern),
    ("weak", Linkage::Weak),
    ("common", Linkage::Common),
];

impl Type {
    /// The type that a word without its dot names: `f32`.
    pub fn from_word(word: &str) -> Option<Self> {
        TYPES.iter().find(|row| row.0 == word).map(|row| row.1)
    }

    /// The word without its dot.
    pub fn word(self) -> &'static str {
        // The table is in the order of the enum; a test holds it there.
        TYPES[self as usize].0
    }

    /// Size in bytes of one value in memory.
    pub fn size_bytes(self) -> u32 {
        TYPES[self as usize].2
    }
}

impl Space {
    /// The space that a word without its dot names. There is no word for [`Space::Generic`].
    pub fn from_word(word: &str) -> Option<Self> {
        SPACES.iter().find(|row| row.0 == word).map(|row| row.1)
    }

    /// The word without its dot; empty for [`Space::Generic`].
    pub fn word(self) -> &'static str {
        SPACES.iter().find(|row| row.1 == self).map_or("", |row| row.0)
    }
}

impl Linkage {
    pub(super) fn from_word(word: &str) -> Option<Self> {
        LINKAGES.iter().find(|row| row.0 == word).map(|row| row.1)
    }

    /// The word without its dot; empty for [`Linkage::Internal`].
    pub fn word(self) -> &'static str {
        LINKAGES.iter().find(|row| row.1 == self).map_or("", |row| row.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_its_type_and_back() {
        for (index, (word, ty, _)) in TYPES.into_iter().enumerate() {
            assert_eq!(ty as usize, index, "{word} is out of the enum's order");
            assert_eq!(Type::from_word(word), Some(ty));
            assert_eq!(ty.word(), word);
        }
        assert_eq!(Type::SurfRef as usize + 1, TYPES.len());
        assert_eq!(Type::from_word("f31"), None);
    }

    #[test]
    fn spaces_and_linkage_round_trip() {
        for (word, space) in SPACES {
            assert_eq!((Space::from_word(word), space.word()), (Some(space), word));
        }
        for (word, linkage) in LINKAGES {
            assert_eq!((Linkage::from_word(word), linkage.word()), (Some(linkage), word));
        }
        assert_eq!((Space::Generic.word(), Linkage::Internal.word()), ("", ""));
    }
}
