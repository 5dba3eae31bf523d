//! The protocol hash: a fingerprint of every source file that defines bytes on the wire.
//!
//! Client and daemon compare it in the handshake, so two builds that could misread each other never
//! exchange a record. It covers comments too: a false alarm costs a rebuild, a missed change costs wrong
//! results.

/// FNV-1a, 64 bit, over the files listed here. Any change to one of them changes it.
pub const PROTOCOL_HASH: u64 = {
    let mut hash = OFFSET_BASIS;
    hash = fnv1a(hash, include_bytes!("arena.rs"));
    hash = fnv1a(hash, include_bytes!("codec.rs"));
    hash = fnv1a(hash, include_bytes!("control.rs"));
    hash = fnv1a(hash, include_bytes!("control/report.rs"));
    hash = fnv1a(hash, include_bytes!("pages/layout.rs"));
    hash = fnv1a(hash, include_bytes!("record.rs"));
    hash = fnv1a(hash, include_bytes!("record/payload.rs"));
    hash = fnv1a(hash, include_bytes!("request.rs"));
    hash = fnv1a(hash, include_bytes!("request/array.rs"));
    hash = fnv1a(hash, include_bytes!("request/context.rs"));
    hash = fnv1a(hash, include_bytes!("request/graph.rs"));
    hash = fnv1a(hash, include_bytes!("request/ipc.rs"));
    hash = fnv1a(hash, include_bytes!("request/memory.rs"));
    hash = fnv1a(hash, include_bytes!("request/module.rs"));
    hash = fnv1a(hash, include_bytes!("request/stream.rs"));
    hash = fnv1a(hash, include_bytes!("request/texture.rs"));
    hash = fnv1a(hash, include_bytes!("ring/layout.rs"));
    fnv1a(hash, include_bytes!("verdict.rs"))
};

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

const fn fnv1a(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(PRIME);
        index += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_vectors() {
        assert_eq!(fnv1a(OFFSET_BASIS, b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(OFFSET_BASIS, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(OFFSET_BASIS, b"foobar"), 0x8594_4171_f739_67e8);
    }
    #[test]
    fn every_file_that_defines_the_wire_is_listed() {
        let source = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
        for folder in ["control", "record", "request"] {
            for entry in std::fs::read_dir(source.join(folder)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let listed = include_str!("hash.rs").contains(&format!("\"{folder}/{name}\""));
                assert!(listed || name == "tests.rs", "{folder}/{name} is not part of the hash");
            }
        }
    }
}
