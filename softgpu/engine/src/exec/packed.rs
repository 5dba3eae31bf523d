//! Packed integers.
use super::decode::{Decoded, Decoder, unsupported};
use super::words::Words;
use lightos_kernels::ptx::ast::{Instruction, Type};
pub fn arithmetic<'a>(_: &mut Decoder<'a, '_>, _: &'a Instruction, _: &Words<'a>, _: Type) -> Decoded {
    unsupported("")
}
