//! The handshake: frozen bytes, mismatches, foreign peers.

use super::*;

fn hello() -> Opening {
    Opening::new(Purpose::Client(Hello { pid: 7, process_name: "python3".into(), ..Hello::default() }))
}

#[test]
fn opening_survives_the_round_trip() {
    let opening = hello();
    assert_eq!(Opening::decode(&codec::encode(&opening).unwrap()).unwrap(), opening);
}

#[test]
fn preamble_bytes_are_frozen() {
    let bytes = codec::encode(&hello()).unwrap();
    assert_eq!(&bytes[..8], b"LightOS\0");
    assert_eq!(bytes[8..16], PROTOCOL_HASH.to_le_bytes());
    assert_eq!(bytes[16..20], [0, 0, 1, 0]);
}

#[test]
fn refusal_bytes_are_frozen() {
    let refusal = HelloReply::Refused {
        reason: RefusalReason::ProtocolMismatch {
            daemon_hash: 0x0102_0304_0506_0708,
            daemon_version: (3, 4),
        },
        message: "no".into(),
    };
    let mut expected = vec![1, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 3, 0, 4, 0];
    expected.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, b'n', b'o']);
    assert_eq!(codec::encode(&refusal).unwrap(), expected);
}

#[test]
fn another_build_is_recognised_whatever_follows_its_preamble() {
    let preamble = Preamble { magic: MAGIC, protocol_hash: 42, version: (9, 9) };
    let mut frame = codec::encode(&preamble).unwrap();
    frame.extend_from_slice(&[0xff; 40]);
    let Err(OpeningError::Mismatch(found)) = Opening::decode(&frame) else { panic!("not a mismatch") };
    assert_eq!(found, preamble);
    let HelloReply::Refused { message, .. } = HelloReply::mismatch(&found) else { panic!("not a refusal") };
    assert!(message.contains("update the sidecar"), "{message}");
    let older = Preamble { version: (0, 0), ..preamble };
    let HelloReply::Refused { message, .. } = HelloReply::mismatch(&older) else { panic!("not a refusal") };
    assert!(message.contains("update the preload library"), "{message}");
}

#[test]
fn foreign_and_malformed_openings_are_told_apart() {
    assert!(matches!(Opening::decode(b"GET / HTTP/1.1\r\n\r\n    "), Err(OpeningError::Foreign)));
    assert!(matches!(Opening::decode(b""), Err(OpeningError::Foreign)));
    let mut frame = codec::encode(&Preamble::OURS).unwrap();
    frame.extend_from_slice(&[9; 4]);
    assert!(matches!(Opening::decode(&frame), Err(OpeningError::Malformed(_))));
}
