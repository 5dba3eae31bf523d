//! Texture instructions: `tex` and `tld4`, and in `query` `txq` and `suq`, on objects in 64-bit registers (unified mode),
//! which is what compilers make of `cudaTextureObject_t`.
//!
//! Objects have one level, so `tex.base` and `tex.level` are plain fetches. Texture references, samplers of their own, offsets,
//! depth comparison, residency predicates, cube maps, multisampling and gradients are refused at load.

mod query;

use lightos_kernels::ptx::ast::{Instruction, Operand, Type};

use super::Fault;
use super::decode::{Bank, Decoded, Decoder, Local, invalid, operands, unsupported};
use super::image::{Geometry, Texels, Texture};
use super::lanes::LANES;
use super::moves::lists;
use super::op::{Flow, Handler, Machine, Op};
use super::words::Words;

pub fn decode<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    match i.opcode.as_str() {
        "tex" => fetch(d, i, w),
        "tld4" => gather(d, i, w),
        _ => query::decode(d, i, w),
    }
}

impl Geometry {
    /// Takes the geometry of an instruction.
    pub(super) fn take(w: &Words<'_>) -> Decoded<Geometry> {
        Ok(match w.one_of(&["1d", "2d", "3d", "a1d", "a2d"]) {
            Some("1d") => Geometry::D1,
            Some("2d") => Geometry::D2,
            Some("3d") => Geometry::D3,
            Some("a1d") => Geometry::A1,
            Some(_) => Geometry::A2,
            None => return unsupported("this geometry"),
        })
    }

    pub(super) fn is_layered(self) -> bool {
        matches!(self, Geometry::A1 | Geometry::A2)
    }

    /// Coordinates, without the layer.
    pub(super) fn axes(self) -> usize {
        match self {
            Geometry::Linear | Geometry::D1 | Geometry::A1 => 1,
            Geometry::D2 | Geometry::A2 => 2,
            Geometry::D3 => 3,
        }
    }
}

/// Slots of an object's handle and of the coordinates in it.
#[derive(Clone, Copy, Debug)]
pub struct Coordinates {
    /// The 64-bit register that holds the object's handle.
    pub handle: u32,
    /// The layer, 0 where the geometry has none, and the coordinates; only the first [`Geometry::axes`] mean anything.
    pub at: [u32; 4],
}

impl<'a> Decoder<'a, '_> {
    /// The handle of an object.
    fn handle(&mut self, operand: &'a Operand) -> Decoded<u32> {
        match operand {
            Operand::Ident(name) => match self.local(name) {
                Some(Local::Register(register)) if register.bank == Bank::Long => Ok(register.slot),
                Some(Local::Register(_)) => invalid(format!("'{name}' has the wrong size for a handle")),
                _ => unsupported(format!("'{name}' as an object: only handles in registers are")),
            },
            _ => invalid("expected the handle of an object"),
        }
    }

    /// `[handle, {coordinates}]`. A 1-D coordinate may stand without braces; of four coordinates, those behind the geometry's
    /// axes are ignored.
    pub fn coordinates(
        &mut self,
        operand: &'a Operand,
        geometry: Geometry,
        ty: Type,
    ) -> Decoded<Coordinates> {
        let Operand::Bracket(parts) = operand else {
            return invalid("expected an object and its coordinates");
        };
        let (object, coordinates) = match parts.as_slice() {
            [object, Operand::Vector(coordinates)] => (object, coordinates.as_slice()),
            [object, coordinate @ (Operand::Ident(_) | Operand::Constant(_))] => {
                (object, std::slice::from_ref(coordinate))
            }
            [_, _, _] => return unsupported("a sampler apart from the texture"),
            _ => return invalid("expected an object and its coordinates"),
        };
        let layers = usize::from(geometry.is_layered());
        let used = layers + geometry.axes();
        let expected = if used == 3 { 4 } else { used };
        if coordinates.len() != expected {
            return invalid(format!("expected {expected} coordinates, found {}", coordinates.len()));
        }
        let handle = self.handle(object)?;
        let mut at = [self.constants().word(0); 4];
        for (k, coordinate) in coordinates[..used].iter().enumerate() {
            let ty = if k < layers { Type::U32 } else { ty };
            at[k + 1 - layers] = self.source(coordinate, ty)?;
        }
        Ok(Coordinates { handle, at })
    }

    fn four(&mut self, operand: &'a Operand, ty: Type) -> Decoded<[u32; 4]> {
        match operand {
            Operand::Vector(parts) if parts.len() == 4 => {
                let mut slots = [0; 4];
                for (slot, part) in slots.iter_mut().zip(parts) {
                    *slot = self.destination(part, ty)?;
                }
                Ok(slots)
            }
            Operand::Pair(..) => unsupported("a residency predicate"),
            _ => invalid("expected a vector of four"),
        }
    }
}

/// The type of the four results.
fn take_result(w: &Words<'_>) -> Decoded<Type> {
    match (w.has("v4"), w.ty()) {
        (true, Some(ty @ (Type::U32 | Type::S32 | Type::F32))) => Ok(ty),
        (true, Some(_)) => unsupported("results of this type"),
        _ => invalid("a texture fetch gives .v4 of a type"),
    }
}

fn geometry_code(geometry: Geometry) -> u32 {
    geometry as u32
}

fn is_geometry(op: &Op, geometry: Geometry) -> bool {
    op.flags & 7 == geometry_code(geometry)
}

/// In `flags`, above the geometry: the channel that `tld4` takes.
const CHANNEL_SHIFT: u32 = 3;

fn fetch<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let level = w.one_of(&["level", "base"]) == Some("level");
    let geometry = Geometry::take(w)?;
    let result = take_result(w)?;
    let (ty, run): (_, Handler) = match w.ty() {
        Some(Type::F32) => (Type::F32, sample_lanes),
        Some(Type::S32) => (Type::S32, fetch_lanes),
        _ => return invalid("coordinates are .s32 or .f32"),
    };
    if i.operands.len() > 2 && !level {
        return unsupported("an offset or a depth comparison");
    }
    operands(i, if level { 3 } else { 2 })?;
    if level {
        // Every level but the first is absent, so the value decides nothing; it must be one.
        d.source(&i.operands[2], ty)?;
    }
    emit(d, i, geometry, result, ty, Op { flags: geometry_code(geometry), ..Op::new(run) })
}

fn gather<'a>(d: &mut Decoder<'a, '_>, i: &'a Instruction, w: &Words<'a>) -> Decoded {
    let channel = match w.one_of(&["r", "g", "b", "a"]) {
        Some("r") => 0,
        Some("g") => 1,
        Some("b") => 2,
        Some(_) => 3,
        None => return invalid("tld4 needs a component"),
    };
    let geometry = Geometry::take(w)?;
    let result = take_result(w)?;
    if geometry != Geometry::D2 {
        return unsupported("this geometry");
    }
    if w.ty() != Some(Type::F32) {
        return invalid("coordinates are .f32");
    }
    if i.operands.len() > 2 {
        return unsupported("an offset or a depth comparison");
    }
    operands(i, 2)?;
    let flags = geometry_code(geometry) | channel << CHANNEL_SHIFT;
    emit(d, i, geometry, result, Type::F32, Op { flags, ..Op::new(gather_lanes) })
}

/// `op` with the handle in `a`, and in the side table from `b` the four results, the layer and the coordinates.
fn emit<'a>(
    d: &mut Decoder<'a, '_>,
    i: &'a Instruction,
    geometry: Geometry,
    result: Type,
    ty: Type,
    op: Op,
) -> Decoded {
    let to = d.four(&i.operands[0], result)?;
    let Coordinates { handle, at } = d.coordinates(&i.operands[1], geometry, ty)?;
    let b = d.list(to.into_iter().chain(at));
    d.emit(Op { a: handle, b, ..op });
    Ok(())
}

/// Runs `read` with the layer and the coordinates of each lane, and writes the four results.
#[inline(always)]
fn each_lane(
    m: &mut Machine<'_>,
    op: &Op,
    mask: u32,
    fits: impl Fn(&Texels) -> bool,
    read: impl Fn(&Texture, u32, [u32; 3]) -> [u32; 4],
) -> Flow {
    let slots = lists(m, op.b, 8);
    let at = [4, 5, 6, 7].map(|k| *m.words(slots[k]));
    let mut out = [[0u32; LANES]; 4];
    let done = m.with_objects::<Texture>(op, mask, |m, texture, lanes| {
        if !fits(&texture.texels) {
            return Err(m.unfit(op, lanes, &texture.texels));
        }
        let mut left = lanes;
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            left &= left - 1;
            let words = read(texture, at[0][lane], [at[1][lane], at[2][lane], at[3][lane]]);
            for (out, word) in out.iter_mut().zip(words) {
                out[lane] = word;
            }
        }
        m.warp.stats.global_bytes += u64::from(lanes.count_ones() * texture.texels.texel_bytes());
        Ok(())
    });
    if let Err(flow) = done {
        return flow;
    }
    for (&slot, values) in slots.iter().zip(&out) {
        m.set_words(slot, values, mask);
    }
    Flow::Next
}

fn sample_lanes(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let fits = |texels: &Texels| is_geometry(op, texels.geometry);
    each_lane(m, op, mask, fits, |texture, layer, at| {
        texture.sample(&at.map(f32::from_bits)[..texture.texels.geometry.axes()], layer)
    })
}

fn fetch_lanes(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let fits = |texels: &Texels| match texels.geometry {
        Geometry::Linear => is_geometry(op, Geometry::D1),
        geometry => is_geometry(op, geometry),
    };
    each_lane(m, op, mask, fits, |texture, layer, at| {
        texture.fetch(&at.map(u32::cast_signed)[..texture.texels.geometry.axes()], layer)
    })
}

fn gather_lanes(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let channel = (op.flags >> CHANNEL_SHIFT) as usize & 3;
    let fits = |texels: &Texels| is_geometry(op, texels.geometry);
    each_lane(m, op, mask, fits, |texture, _, [x, y, _]| {
        texture.gather(channel, [f32::from_bits(x), f32::from_bits(y)])
    })
}

impl Machine<'_> {
    /// The fault of an instruction on an object of another geometry.
    #[cold]
    pub fn unfit(&mut self, op: &Op, lanes: u32, texels: &Texels) -> Flow {
        let what = format!("an object of geometry {:?} does not fit the instruction", texels.geometry);
        let place = self.place(op, lanes.trailing_zeros());
        self.fail(Fault::IllegalInstruction { what, place })
    }
}
