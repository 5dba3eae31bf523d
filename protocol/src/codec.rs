//! The one place that knows how control messages and cold requests become bytes.
//!
//! bincode 2.0.1, little-endian, fixed-width integers, a hard limit on the size. A length that claims more
//! than the limit or more than the input holds is rejected before anything is allocated for it, and bytes
//! left over after a message are an error, so one value has one encoding. Hot-path records never come here
//! (see [`crate::record`]).

use bincode::config::{Config, Configuration, Fixint, Limit, LittleEndian};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest encoded message, in bytes. Anything bigger (module images, graphs) crosses as a memfd.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<MAX_MESSAGE_BYTES>> = config();

const fn config() -> Configuration<LittleEndian, Fixint, Limit<MAX_MESSAGE_BYTES>> {
    bincode::config::standard()
        .with_little_endian()
        .with_fixed_int_encoding()
        .with_limit::<MAX_MESSAGE_BYTES>()
}

/// Why bytes are not a message, or a message cannot become bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value does not fit the format or the size limit.
    #[error("message cannot be encoded: {0}")]
    Encode(#[source] Box<bincode::error::EncodeError>),
    /// The bytes end early, claim impossible lengths or name unknown variants.
    #[error("malformed message: {0}")]
    Malformed(#[source] Box<bincode::error::DecodeError>),
    /// The bytes go on after the message.
    #[error("{extra_bytes} bytes after the end of a message")]
    TrailingBytes {
        /// How many bytes are left over.
        extra_bytes: usize,
    },
    /// More than [`MAX_MESSAGE_BYTES`].
    #[error("message of {bytes} bytes exceeds the limit of {MAX_MESSAGE_BYTES}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
}

/// Encodes a message.
///
/// # Errors
/// [`CodecError::Encode`] or [`CodecError::TooLong`].
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes =
        bincode::serde::encode_to_vec(message, limited()).map_err(|e| CodecError::Encode(Box::new(e)))?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(CodecError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Decodes a message that fills `bytes` exactly.
///
/// # Errors
/// [`CodecError::Malformed`], [`CodecError::TrailingBytes`] or [`CodecError::TooLong`].
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (message, rest) = decode_prefix(bytes)?;
    if rest.is_empty() { Ok(message) } else { Err(CodecError::TrailingBytes { extra_bytes: rest.len() }) }
}

/// Decodes a message at the start of `bytes` and returns what follows it.
///
/// # Errors
/// [`CodecError::Malformed`] or [`CodecError::TooLong`].
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(CodecError::TooLong { bytes: bytes.len() });
    }
    let (message, used) = bincode::serde::decode_from_slice(bytes, limited())
        .map_err(|e| CodecError::Malformed(Box::new(e)))?;
    Ok((message, bytes.get(used..).unwrap_or_default()))
}

fn limited() -> impl Config {
    CONFIG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_fixed_width_little_endian() {
        assert_eq!(encode(&(1u16, 2u32)).unwrap(), [1, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn hostile_length_is_rejected_without_allocating() {
        let mut bytes = u64::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 16]);
        assert!(matches!(decode::<Vec<u8>>(&bytes), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<String>(&bytes), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn truncated_and_trailing_bytes_are_rejected() {
        let bytes = encode(&"hello").unwrap();
        assert!(matches!(decode::<String>(&bytes[..bytes.len() - 1]), Err(CodecError::Malformed(_))));
        let mut longer = bytes.clone();
        longer.extend_from_slice(&[7, 7]);
        assert!(matches!(decode::<String>(&longer), Err(CodecError::TrailingBytes { extra_bytes: 2 })));
        assert_eq!(decode_prefix::<String>(&longer).unwrap(), ("hello".to_owned(), &[7u8, 7][..]));
    }

    #[test]
    fn oversized_messages_fail_on_both_sides() {
        let big = vec![0u8; MAX_MESSAGE_BYTES];
        assert!(encode(&big).is_err());
        assert!(matches!(
            decode::<Vec<u8>>(&vec![0; MAX_MESSAGE_BYTES + 1]),
            Err(CodecError::TooLong { .. })
        ));
    }
}
