//! Instructions that change nothing here: cache hints, profiler marks, register budgets, dependencies on a grid that has
//! ended already, and fences between proxies. Their operands are checked all the same.

use lightos_kernels::ptx::ast::{Instruction, Space, Type};

use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::moves::{copy, take_space};
use super::op::Op;
use super::words::Words;

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    match i.opcode.as_str() {
        "prefetch" | "prefetchu" => {
            let tensor_map = w.has("tensormap");
            let space = take_space(w);
            if !tensor_map && w.one_of(&["L1", "L2", "L2::evict_last", "L2::evict_normal"]).is_none() {
                return invalid("a prefetch names a cache level");
            }
            operands(i, 1)?;
            d.address(&i.operands[0], space).map(|_| ())
        }
        "discard" | "applypriority" => {
            let space = take_space(w);
            if w.one_of(&["L2", "L2::evict_normal"]).is_none() {
                return invalid("the cache level is missing");
            }
            operands(i, 2)?;
            d.address(&i.operands[0], space)?;
            match d.immediate(&i.operands[1])? {
                128 => Ok(()),
                _ => invalid("the size is 128"),
            }
        }
        "createpolicy" => policy(d, i, w),
        "griddepcontrol" => {
            operands(i, 0)?;
            match w.one_of(&["launch_dependents", "wait"]) {
                Some(_) => Ok(()),
                None => unsupported(""),
            }
        }
        "setmaxnreg" => {
            let known =
                w.one_of(&["inc", "dec"]).is_some() && w.has("sync") && w.has("aligned") && w.has("u32");
            operands(i, 1)?;
            match d.immediate(&i.operands[0])? {
                count if known && (24..=256).contains(&count) && count % 8 == 0 => Ok(()),
                _ => invalid("setmaxnreg takes a multiple of 8 from 24 to 256"),
            }
        }
        "pmevent" => {
            w.has("mask");
            operands(i, 1)?;
            d.immediate(&i.operands[0]).map(|_| ())
        }
        _ => operands(i, 0),
    }
}

/// A policy is opaque, and nothing looks at it.
fn policy<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let Some(kind) = w.one_of(&["fractional", "range", "cvt"]) else { return unsupported("") };
    take_space(w);
    if kind == "cvt" {
        w.has("L2");
    }
    while w.starting("L2::").is_some() {}
    if w.ty() != Some(Type::B64) {
        return invalid("a policy is .b64");
    }
    match (kind, i.operands.as_slice()) {
        ("fractional", [_]) => {}
        ("fractional", [_, fraction]) => drop(d.source(fraction, Type::F32)?),
        ("range", [_, address, primary, total]) => {
            d.address(address, Space::Global)?;
            d.source(primary, Type::U32)?;
            d.source(total, Type::U32)?;
        }
        ("cvt", [_, property]) => drop(d.source(property, Type::B64)?),
        _ => return invalid("wrong number of operands"),
    }
    let a = d.constants().long(0);
    d.emit_to(Op { a, ..Op::new(copy(Type::B64)?) }, &i.operands[0], Type::B64)
}

/// Takes the words of `fence` and `membar`; all of them order everything. What is left over is not known.
pub fn fence_words<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    w.ignore(&["sc", "acq_rel", "acquire", "release", "cta", "cluster", "gpu", "gl", "sys", "mbarrier_init"]);
    for prefix in ["sync_restrict::", "tensormap::", "async::", "op_restrict::"] {
        w.starting(prefix);
    }
    if w.has("proxy") {
        w.ignore(&["alias", "async", "global", "shared::cta", "shared::cluster"]);
    }
    match i.operands.as_slice() {
        [] => Ok(()),
        // `fence.proxy.tensormap::generic.acquire` names the tensor map and its size.
        [address, size] => {
            d.address(address, Space::Generic)?;
            d.immediate(size).map(|_| ())
        }
        _ => operands(i, 0),
    }
}
