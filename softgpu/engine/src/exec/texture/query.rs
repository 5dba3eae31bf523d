//! Queries of an object's size: `txq` and `suq`.

use lightos_kernels::ptx::ast::{Instruction, Operand};

use crate::exec::decode::{Decoded, Decoder, invalid, operands, unsupported};
use crate::exec::image::{Surface, Texels, Texture};
use crate::exec::lanes::LANES;
use crate::exec::op::{Flow, Machine, Op};
use crate::exec::words::{Words, type_bytes};

const QUERIES: [&str; 6] =
    ["width", "height", "depth", "array_size", "num_mipmap_levels", "normalized_coords"];

pub(super) fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let (known, run) = match i.opcode.as_str() {
        "txq" => (&QUERIES[..], of_texture as _),
        _ => (&QUERIES[..4], of_surface as _),
    };
    let Some(flags) = w.one_of(known).and_then(|word| QUERIES.iter().position(|known| *known == word)) else {
        return unsupported("this query");
    };
    operands(i, 2)?;
    let ty = match w.ty() {
        Some(ty) if type_bytes(ty) == 4 => ty,
        _ => return invalid("a query gives .b32"),
    };
    let Operand::Address { base, offset: 0 } = &i.operands[1] else {
        return invalid("expected an object");
    };
    let a = d.handle(base)?;
    d.emit_to(Op { a, flags: flags as u32, ..Op::new(run) }, &i.operands[0], ty)
}

/// The answer to the query of that number; without layers, `array_size` is 0.
fn answer(texels: &Texels, normalized: bool, query: u32) -> u32 {
    match QUERIES[query as usize] {
        "width" => texels.width,
        "height" => texels.height,
        "depth" if texels.geometry.is_layered() => 1,
        "depth" => texels.depth,
        "array_size" if texels.geometry.is_layered() => texels.depth,
        "array_size" => 0,
        "num_mipmap_levels" => 1,
        _ => u32::from(normalized),
    }
}

fn of_texture(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let done = m.with_objects::<Texture>(op, mask, |m, texture, lanes| {
        let value = answer(&texture.texels, texture.sampler.normalized, op.flags);
        m.set_words(op.dst, &[value; LANES], lanes);
        Ok(())
    });
    done.err().unwrap_or(Flow::Next)
}

fn of_surface(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let done = m.with_objects::<Surface>(op, mask, |m, surface, lanes| {
        m.set_words(op.dst, &[answer(&surface.0, false, op.flags); LANES], lanes);
        Ok(())
    });
    done.err().unwrap_or(Flow::Next)
}
