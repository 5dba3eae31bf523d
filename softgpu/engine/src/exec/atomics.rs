//! Not carried yet.
use super::decode::{Decoded, Decoder, unsupported};
use super::words::Words;
use lightos_kernels::ptx::ast::Instruction;
pub fn decode<'a>(_: &mut Decoder<'a, '_>, _: &'a Instruction, _: &Words<'a>) -> Decoded {
    unsupported("")
}
