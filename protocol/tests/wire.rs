//! Everything that is encoded: what goes in comes out, one value has one encoding, and random bytes never
//! do more than fail.

#[path = "wire/random.rs"]
mod random;

use lightos_protocol::codec;
use lightos_protocol::control::{AdminReply, FdMessage, HelloReply, Opening};
use lightos_protocol::record::{
    BlobRef, CopyKind, EventRecord, GraphLaunch, Handle, HostFunc, HostFuncKind, Launch, LaunchAttribute,
    LaunchView, Memcpy, Memcpy2D, MemcpyInline, Memset, Op, Payload, RecordError, StreamValue,
    StreamWaitEvent, Timeline, TimelineScope, read_exact, read_prefix,
};
use lightos_protocol::request::{Reply, Request};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::IntoBytes;

fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = codec::encode(value).unwrap();
    assert_eq!(&codec::decode::<T>(&bytes).unwrap(), value);
    for cut in 0..bytes.len().min(200) {
        assert!(codec::decode::<T>(&bytes[..cut]).is_err(), "{cut} of {} bytes suffice", bytes.len());
    }
}

proptest! {
    /// Values of every variant, those added later included: the generator follows the types' own description.
    #[test]
    fn messages_survive(seed in any::<u64>()) {
        survives::<Request>(&random::value(seed));
        survives::<Reply>(&random::value(seed));
        survives::<Opening>(&random::value(seed));
        survives::<HelloReply>(&random::value(seed));
        survives::<AdminReply>(&random::value(seed));
        survives::<FdMessage>(&random::value(seed));
    }

    /// Whatever decodes has exactly the bytes it was decoded from.
    #[test]
    fn one_value_has_one_encoding(mut bytes in vec(0u8..4, 0..120), length in 0u8..8) {
        // Small numbers make lengths and variants plausible.
        if let Some(first) = bytes.first_mut() { *first = length; }
        if let Ok(request) = codec::decode::<Request>(&bytes) {
            prop_assert_eq!(codec::encode(&request).unwrap(), &bytes[..]);
            if let Request::Graph(graph) = request { let _ = graph.check(); }
        }
        if let Ok(reply) = codec::decode::<Reply>(&bytes) {
            prop_assert_eq!(codec::encode(&reply).unwrap(), &bytes[..]);
        }
        if let Ok(reply) = codec::decode::<HelloReply>(&bytes) {
            prop_assert_eq!(codec::encode(&reply).unwrap(), bytes);
        }
    }

    #[test]
    fn random_bytes_never_do_more_than_fail(bytes in vec(any::<u8>(), 0..400)) {
        let _ = codec::decode::<Request>(&bytes);
        let _ = Opening::decode(&bytes);
        let _ = MemcpyInline::parse(&bytes);
        if let Ok(view) = LaunchView::parse(&bytes) { prop_assert!(view.attributes().count() <= 64); }
    }

    #[test]
    fn launches_survive(
        attributes in vec((any::<u32>(), any::<u8>()), 0..=64),
        params in vec(any::<u8>(), 0..5000),
        grid in any::<[u32; 3]>(),
    ) {
        let attributes: Vec<LaunchAttribute> = attributes.into_iter()
            .map(|(id, fill)| LaunchAttribute { id, pad: 0, value: [fill; 64] }).collect();
        let launch = Launch {
            function: 3, stream: 1, grid, attribute_count: attributes.len() as u32,
            param_bytes: params.len() as u32, ..Launch::default()
        };
        let payload = [launch.as_bytes(), attributes.as_bytes(), &params].concat();
        let view = LaunchView::parse(&payload).unwrap();
        prop_assert_eq!(view.launch, launch);
        prop_assert_eq!(view.attributes().collect::<Vec<_>>(), attributes);
        prop_assert_eq!(view.params, &params);
        let longer = [&payload[..], &[0]].concat();
        for wrong in [&payload[..payload.len() - 1], &longer] {
            let refused = matches!(LaunchView::parse(wrong), Err(RecordError::WrongSize { .. }));
            prop_assert!(refused);
        }
    }
}

#[test]
fn launch_counts_are_bounded() {
    let many = Launch { attribute_count: 65, ..Launch::default() };
    let long = Launch { param_bytes: 32_765, ..Launch::default() };
    let huge = Launch { attribute_count: u32::MAX, param_bytes: u32::MAX, ..Launch::default() };
    for launch in [many, long, huge] {
        let mut payload = launch.as_bytes().to_vec();
        payload.resize(40_000, 0);
        assert!(matches!(LaunchView::parse(&payload), Err(RecordError::TooMany { .. })));
    }
}

#[test]
fn fixed_payloads_have_their_size_and_no_other() {
    fn check<T: Payload + Default + PartialEq + std::fmt::Debug>(bytes: usize) {
        assert_eq!(size_of::<T>(), bytes);
        let payload = vec![0x5a; bytes];
        let value = read_exact::<T>(&payload).unwrap();
        assert_eq!(value.as_bytes(), payload);
        assert_ne!(value, T::default());
        assert!(read_exact::<T>(&payload[1..]).is_err());
        assert!(read_prefix::<T>(&payload[1..]).is_err());
        let longer = vec![0x5a; bytes + 3];
        assert!(read_exact::<T>(&longer).is_err());
        assert_eq!(read_prefix::<T>(&longer).unwrap().1.len(), 3);
    }
    check::<Launch>(56);
    check::<Memcpy>(48);
    check::<MemcpyInline>(24);
    check::<Memcpy2D>(72);
    check::<Memset>(48);
    check::<EventRecord>(32);
    check::<StreamWaitEvent>(24);
    check::<Timeline>(24);
    check::<StreamValue>(32);
    check::<GraphLaunch>(16);
    check::<HostFunc>(24);
    check::<Handle>(8);
    check::<BlobRef>(16);
}

#[test]
fn ops_and_wire_enums_accept_their_numbers_only() {
    let known: Vec<u16> = Op::ALL.iter().map(|&op| op.into()).collect();
    for number in 0..=u16::MAX {
        match Op::try_from(number) {
            Ok(op) => assert!(known.contains(&number) && u16::from(op) == number),
            Err(error) => {
                assert_eq!(error, RecordError::UnknownOp { op: number });
                assert!(!known.contains(&number));
            }
        }
    }
    assert_eq!(CopyKind::try_from(2), Ok(CopyKind::DeviceToHost));
    assert_eq!(TimelineScope::try_from(1), Ok(TimelineScope::Context));
    assert_eq!(HostFuncKind::try_from(0), Ok(HostFuncKind::Launch));
    assert_eq!(CopyKind::try_from(0), Err(RecordError::UnknownValue { what: "CopyKind", found: 0 }));
    assert!(TimelineScope::try_from(2).is_err() && HostFuncKind::try_from(9).is_err());
}

#[test]
fn inline_copies_state_their_length() {
    let copy = MemcpyInline { dst: 1, bytes: 3, ..MemcpyInline::default() };
    let payload = [copy.as_bytes(), b"abc"].concat();
    assert_eq!(MemcpyInline::parse(&payload).unwrap(), (copy, &b"abc"[..]));
    assert!(MemcpyInline::parse(&payload[..26]).is_err());
    let lie = MemcpyInline { bytes: u32::MAX, ..copy };
    assert!(MemcpyInline::parse(lie.as_bytes()).is_err());
}

#[test]
fn the_generator_reaches_every_request() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..2000 {
        let request: Request = random::value(seed);
        // "Memory(SlabCreate" and the like: the names up to the first field.
        let name = format!("{request:?}");
        seen.insert(name.split([' ', '{', ')']).next().unwrap_or_default().to_owned());
    }
    for wanted in ["Ping", "Memory(SlabCreate", "Module(Load", "Stream(Create", "Graph(Instantiate"] {
        assert!(seen.contains(wanted), "{wanted} not among {seen:?}");
    }
}
