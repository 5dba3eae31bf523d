//! Half precision.
use super::decode::{Decoded, Decoder, unsupported};
use super::words::Words;
use lightos_kernels::ptx::ast::{Instruction, Type};
pub fn arithmetic<'a>(_: &mut Decoder<'a, '_>, _: &'a Instruction, _: &Words<'a>, _: Type) -> Decoded {
    unsupported("")
}
pub fn function<'a>(_: &mut Decoder<'a, '_>, _: &'a Instruction, _: Type, _: bool) -> Decoded {
    unsupported("")
}
pub fn compare_pairs<'a>(
    _: &mut Decoder<'a, '_>,
    _: &'a Instruction,
    _: &str,
    _: Option<&str>,
    _: bool,
    _: Type,
    _: Type,
) -> Decoded {
    unsupported("")
}
