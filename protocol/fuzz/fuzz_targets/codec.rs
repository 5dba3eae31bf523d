//! Control messages and cold requests from arbitrary bytes: decoding never panics, and what decodes encodes
//! to the same bytes.
//!
//! `cargo +nightly fuzz run codec` in `protocol/`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightos_protocol::codec;
use lightos_protocol::control::{AdminReply, FdMessage, HelloReply, Opening};
use lightos_protocol::request::{Reply, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn check<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let message: T = codec::decode(bytes).ok()?;
    assert_eq!(codec::encode(&message).expect("it was within the limit"), bytes);
    Some(message)
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(Request::Graph(graph)) = check::<Request>(bytes) {
        let _ = graph.check();
    }
    check::<Reply>(bytes);
    check::<HelloReply>(bytes);
    check::<AdminReply>(bytes);
    check::<FdMessage>(bytes);
    let _ = Opening::decode(bytes);
});
