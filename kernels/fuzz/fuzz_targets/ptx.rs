//! Arbitrary text through the PTX reader: no panic, no overflow of the stack, and what reads prints back to itself.
//!
//!     cd kernels && cargo +nightly fuzz run ptx fuzz/corpus/ptx tests/fixtures ptx
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightos_kernels::ptx::parse;

fuzz_target!(|text: &str| {
    let Ok(mut module) = parse(text) else { return };
    let printed = module.to_string();
    let mut again = parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    module.erase_spans();
    again.erase_spans();
    assert!(module == again, "{printed}");
});
