//! Surface instructions: `suld.b` and `sust.b` on surface objects in 64-bit registers. `suq` is with the texture queries.
//!
//! The first coordinate counts bytes. An access outside the image traps, is moved to the nearest place inside it (`.clamp`), or
//! reads zeros and writes nothing (`.zero`). Formatted stores (`sust.p`) and reductions (`sured`) are refused at load.

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::Fault;
use super::decode::{Decoded, Decoder, invalid, operands, unsupported};
use super::image::{Geometry, Surface, Texels};
use super::lanes::LANES;
use super::moves::lists;
use super::op::{Flow, Handler, Machine, NONE, Op};
use super::texture::Coordinates;
use super::transfer::Element;
use super::words::{Words, type_bytes};

/// In `flags`: the geometry, the way with accesses outside, and the number of elements less one.
const MODE_SHIFT: u32 = 3;
const COUNT_SHIFT: u32 = 8;
const TRAP: u32 = 0;
const CLAMP: u32 = 1;
const ZERO: u32 = 2;

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let stores = i.opcode == "sust";
    if !w.has("b") {
        return unsupported("formatted access");
    }
    let geometry = Geometry::take(w)?;
    w.ignore(if stores { &["wb", "cg", "cs", "wt"] } else { &["ca", "cg", "cs", "cv"] });
    let count = match w.one_of(&["v2", "v4"]) {
        Some("v2") => 2,
        Some(_) => 4,
        None => 1,
    };
    let Some(ty @ (Type::B8 | Type::B16 | Type::B32 | Type::B64)) = w.ty() else {
        return invalid("a surface access is of .b8, .b16, .b32 or .b64");
    };
    if type_bytes(ty) as usize * count > 16 {
        return invalid("more than 16 bytes in one access");
    }
    let mode = match w.one_of(&["trap", "clamp", "zero"]) {
        Some("trap") => TRAP,
        Some("clamp") => CLAMP,
        Some(_) => ZERO,
        None => return invalid("a surface access needs .trap, .clamp or .zero"),
    };
    operands(i, 2)?;
    let (value, place) = if stores { (1, 0) } else { (0, 1) };
    let elements = match &i.operands[value] {
        Operand::Vector(parts) => parts.as_slice(),
        one => std::slice::from_ref(one),
    };
    if elements.len() != count {
        return invalid(format!("expected {count} elements, found {}", elements.len()));
    }
    let mut slots = [NONE; 4];
    for (slot, element) in slots.iter_mut().zip(elements) {
        *slot = if stores { d.source(element, ty)? } else { d.destination(element, ty)? };
    }
    let Coordinates { handle, at } = d.coordinates(&i.operands[place], geometry, Type::S32)?;
    let b = d.list(slots.into_iter().chain(at));
    let flags = geometry as u32 | mode << MODE_SHIFT | (count as u32 - 1) << COUNT_SHIFT;
    d.emit(Op { a: handle, b, flags, ..Op::new(handler(ty, stores)) });
    Ok(())
}

fn handler(ty: Type, stores: bool) -> Handler {
    match (ty, stores) {
        (Type::B8, false) => load::<u8>,
        (Type::B16, false) => load::<u16>,
        (Type::B32, false) => load::<u32>,
        (_, false) => load::<u64>,
        (Type::B8, true) => store::<u8>,
        (Type::B16, true) => store::<u16>,
        (Type::B32, true) => store::<u32>,
        (_, true) => store::<u64>,
    }
}

/// What an access comes to.
enum Access {
    At(u64),
    /// Outside, with nothing to do.
    Nothing,
    Trap,
    /// The address that is not a multiple of the access's size.
    Misaligned(u64),
}

/// The address of `bytes` bytes at a layer and coordinates.
fn locate(texels: &Texels, mode: u32, bytes: u64, layer: u32, at: [i32; 3]) -> Access {
    let slice = if texels.geometry.is_layered() { i64::from(layer) } else { i64::from(at[2]) };
    let last =
        [texels.row_bytes() as i64 - bytes as i64, i64::from(texels.height) - 1, i64::from(texels.depth) - 1];
    let mut place = [i64::from(at[0]), i64::from(at[1]), slice];
    for (axis, (coordinate, last)) in place.iter_mut().zip(last).enumerate() {
        let used = axis < texels.geometry.axes() || axis == 2 && texels.geometry.is_layered();
        if !used {
            *coordinate = 0;
        } else if !(0..=last).contains(coordinate) {
            match mode {
                CLAMP if last >= 0 => *coordinate = (*coordinate).clamp(0, last),
                ZERO => return Access::Nothing,
                _ => return Access::Trap,
            }
        }
    }
    let [x, y, z] = place;
    let address = texels.address(x as u64, y as u32, z as u32);
    if address.is_multiple_of(bytes) { Access::At(address) } else { Access::Misaligned(address) }
}

/// The addresses of `bytes` bytes for the lanes in `mask`; 0 for lanes that have nothing to do.
fn addresses(m: &mut Machine<'_>, op: &Op, mask: u32, bytes: u32) -> Result<[u64; LANES], Flow> {
    let slots = lists(m, op.b, 8);
    let at = [4, 5, 6, 7].map(|k| *m.words(slots[k]));
    let mut out = [0; LANES];
    m.with_objects::<Surface>(op, mask, |m, Surface(texels), lanes| {
        if texels.geometry as u32 != op.flags & 7 {
            return Err(m.unfit(op, lanes, texels));
        }
        for lane in (0..LANES).filter(|lane| lanes >> lane & 1 != 0) {
            let place = [at[1][lane], at[2][lane], at[3][lane]].map(u32::cast_signed);
            let mode = op.flags >> MODE_SHIFT & 3;
            out[lane] = match locate(texels, mode, u64::from(bytes), at[0][lane], place) {
                Access::At(address) => address,
                Access::Nothing => continue,
                Access::Trap => {
                    let place = m.place(op, lane as u32);
                    return Err(m.fail(Fault::Trap { place }));
                }
                Access::Misaligned(address) => {
                    let place = m.place(op, lane as u32);
                    return Err(m.fail(Fault::MisalignedAddress { address, bytes, place }));
                }
            };
        }
        m.warp.stats.global_bytes += u64::from(lanes.count_ones() * bytes);
        Ok(())
    })?;
    Ok(out)
}

fn load<E: Element>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let count = (op.flags >> COUNT_SHIFT) + 1;
    let hosts = match addresses(m, op, mask, E::BYTES * count) {
        Ok(hosts) => hosts,
        Err(flow) => return flow,
    };
    let slots = lists(m, op.b, count);
    for (k, &slot) in (0..).zip(slots) {
        let values = hosts.map(|host| match host {
            0 => E::Register::default(),
            // SAFETY: `lookup` found the whole image accessible in this turn, and `locate` put all elements inside it, aligned.
            host => unsafe { E::read(host + k * u64::from(E::BYTES)) },
        });
        E::commit(m, slot, &values, mask);
    }
    Flow::Next
}

fn store<E: Element>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let count = (op.flags >> COUNT_SHIFT) + 1;
    let hosts = match addresses(m, op, mask, E::BYTES * count) {
        Ok(hosts) => hosts,
        Err(flow) => return flow,
    };
    let slots = lists(m, op.b, count);
    for (k, &slot) in (0..).zip(slots) {
        let values = E::source(m, slot);
        for (&host, &value) in hosts.iter().zip(values).filter(|(host, _)| **host != 0) {
            // SAFETY: as for loads.
            unsafe { E::write(host + k * u64::from(E::BYTES), value) };
        }
    }
    Flow::Next
}
