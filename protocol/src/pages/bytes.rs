//! Byte strings in arrays of atomic words, so that a concurrent writer can garble them but nothing worse.

use std::sync::atomic::{AtomicU64, Ordering};

/// Stores `bytes`, cut to what fits; returns how many were stored. Publish with a Release store afterwards.
pub fn store(words: &[AtomicU64], bytes: &[u8]) -> usize {
    for (word, chunk) in words.iter().zip(bytes.chunks(8)) {
        let mut value = [0; 8];
        value[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
    }
    bytes.len().min(words.len() * 8)
}

/// Loads `count` bytes, cut to what there is. Load the announcing word with Acquire before.
pub fn load(words: &[AtomicU64], count: usize) -> Vec<u8> {
    let count = count.min(words.len() * 8);
    let mut bytes = Vec::with_capacity(count.next_multiple_of(8));
    for word in &words[..count.div_ceil(8)] {
        bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    bytes.truncate(count);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_survives_and_the_excess_is_cut() {
        let words: [AtomicU64; 3] = Default::default();
        let text: Vec<u8> = (1..=30).collect();
        for length in 0..=30 {
            let stored = store(&words, &text[..length]);
            assert_eq!(stored, length.min(24));
            assert_eq!(load(&words, length), &text[..stored]);
        }
        assert_eq!(load(&words, usize::MAX).len(), 24);
    }
}
