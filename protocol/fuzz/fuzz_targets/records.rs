//! Record payloads from arbitrary bytes: every view stays inside its payload and keeps the stated limits.
//!
//! `cargo +nightly fuzz run records` in `protocol/`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightos_protocol::record::{
    BlobRef, CopyKind, EventRecord, GraphLaunch, Handle, HostFunc, HostFuncKind, LaunchView,
    MAX_LAUNCH_ATTRIBUTES, MAX_PARAM_BYTES, Memcpy, Memcpy2D, MemcpyInline, Memset, Op, StreamValue,
    StreamWaitEvent, Timeline, TimelineScope, read_exact,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((op, payload)) = bytes.split_first_chunk::<2>() else { return };
    let Ok(op) = Op::try_from(u16::from_le_bytes(*op)) else { return };
    match op {
        Op::Launch => {
            if let Ok(view) = LaunchView::parse(payload) {
                assert!(view.params.len() <= MAX_PARAM_BYTES);
                let attributes = view.attributes().count();
                assert!(
                    attributes <= MAX_LAUNCH_ATTRIBUTES && attributes == view.launch.attribute_count as usize
                );
            }
        }
        Op::MemcpyInline => {
            if let Ok((copy, data)) = MemcpyInline::parse(payload) {
                assert_eq!(copy.bytes as usize, data.len());
            }
        }
        Op::Memcpy => drop(read_exact::<Memcpy>(payload).map(|copy| CopyKind::try_from(copy.kind))),
        Op::Memcpy2D => drop(read_exact::<Memcpy2D>(payload).map(|copy| CopyKind::try_from(copy.kind))),
        Op::Memset => drop(read_exact::<Memset>(payload)),
        Op::EventRecord => drop(read_exact::<EventRecord>(payload)),
        Op::StreamWaitEvent => drop(read_exact::<StreamWaitEvent>(payload)),
        Op::Timeline => {
            drop(read_exact::<Timeline>(payload).map(|point| TimelineScope::try_from(point.scope)))
        }
        Op::StreamValue => drop(read_exact::<StreamValue>(payload)),
        Op::GraphLaunch => drop(read_exact::<GraphLaunch>(payload)),
        Op::HostFunc => drop(read_exact::<HostFunc>(payload).map(|func| HostFuncKind::try_from(func.kind))),
        Op::StreamDestroy | Op::EventDestroy => drop(read_exact::<Handle>(payload)),
        Op::ColdBlob => drop(read_exact::<BlobRef>(payload)),
        // The codec target covers what an encoded request may hold.
        _ => {}
    }
});
