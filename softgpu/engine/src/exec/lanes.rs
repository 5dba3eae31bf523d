//! Registers as 32 lanes, and the lifting of scalar functions to whole warps.
//!
//! Three register files per warp: 32-bit words (which also hold 8- and 16-bit values; bits above the value's width are
//! don't-care and every reader truncates), 64-bit words, and predicates as one bit per lane. A slot number with
//! [`CONSTANT`] set names an entry of the program's constant table instead, broadcast to all lanes, so that an
//! immediate costs no branch per lane. Slots are relative to the frame of the function that runs.
//!
//! `lift*` turn a scalar closure into a [`Handler`]. The loops run over all 32 lanes and the result is blended under
//! the mask, which rustc vectorises; closures must therefore be total (no panic on any bit pattern).

use half::{bf16, f16};

use super::op::{Flow, Handler, Machine, Op};

pub const LANES: usize = 32;
pub const FULL: u32 = u32::MAX;
/// Set in a slot number that names an entry of the constant table.
pub const CONSTANT: u32 = 1 << 31;

pub type Words = [u32; LANES];
pub type Longs = [u64; LANES];

/// The broadcast immediates of a program.
#[derive(Debug, Default)]
pub struct Constants {
    pub words: Vec<Words>,
    pub longs: Vec<Longs>,
}

/// Where a frame starts in each register file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bases {
    pub words: u32,
    pub longs: u32,
    pub predicates: u32,
}

/// The register files of one warp and the frame that is active.
#[derive(Debug, Default)]
pub struct Registers {
    pub words: Vec<Words>,
    pub longs: Vec<Longs>,
    pub predicates: Vec<u32>,
    pub base: Bases,
}

impl Registers {
    /// Makes room for a frame of `size` registers at `base`.
    pub fn reserve(&mut self, base: Bases, size: Bases) {
        let grow = |have: usize, base: u32, size: u32| (base as usize + size as usize).max(have);
        self.words.resize(grow(self.words.len(), base.words, size.words), [0; LANES]);
        self.longs.resize(grow(self.longs.len(), base.longs, size.longs), [0; LANES]);
        self.predicates.resize(grow(self.predicates.len(), base.predicates, size.predicates), 0);
    }
}

impl Machine<'_> {
    #[inline(always)]
    pub fn words(&self, slot: u32) -> &Words {
        if slot & CONSTANT == 0 {
            &self.warp.registers.words[(self.warp.registers.base.words + slot) as usize]
        } else {
            &self.grid.program.constants.words[(slot & !CONSTANT) as usize]
        }
    }

    #[inline(always)]
    pub fn longs(&self, slot: u32) -> &Longs {
        if slot & CONSTANT == 0 {
            &self.warp.registers.longs[(self.warp.registers.base.longs + slot) as usize]
        } else {
            &self.grid.program.constants.longs[(slot & !CONSTANT) as usize]
        }
    }

    /// One bit per lane. Constant predicates are the slots `CONSTANT` (false) and `CONSTANT | 1` (true).
    #[inline(always)]
    pub fn predicate(&self, slot: u32) -> u32 {
        if slot & CONSTANT == 0 {
            self.warp.registers.predicates[(self.warp.registers.base.predicates + slot) as usize]
        } else {
            0u32.wrapping_sub(slot & 1)
        }
    }

    #[inline(always)]
    pub fn set_words(&mut self, slot: u32, values: &Words, mask: u32) {
        let registers = &mut self.warp.registers;
        let to = &mut registers.words[(registers.base.words + slot) as usize];
        if mask == FULL {
            *to = *values;
        } else {
            for i in 0..LANES {
                to[i] = if mask >> i & 1 != 0 { values[i] } else { to[i] };
            }
        }
    }

    #[inline(always)]
    pub fn set_longs(&mut self, slot: u32, values: &Longs, mask: u32) {
        let registers = &mut self.warp.registers;
        let to = &mut registers.longs[(registers.base.longs + slot) as usize];
        if mask == FULL {
            *to = *values;
        } else {
            for i in 0..LANES {
                to[i] = if mask >> i & 1 != 0 { values[i] } else { to[i] };
            }
        }
    }

    #[inline(always)]
    pub fn set_predicate(&mut self, slot: u32, bits: u32, mask: u32) {
        let registers = &mut self.warp.registers;
        let to = &mut registers.predicates[(registers.base.predicates + slot) as usize];
        *to = *to & !mask | bits & mask;
    }
}

/// A type that a register can hold, and how its 32 lanes are read and written.
pub trait Lane: Copy + 'static {
    type View<'v>: Copy;
    type Out;
    fn view<'v>(machine: &'v Machine<'_>, slot: u32) -> Self::View<'v>;
    fn at(view: Self::View<'_>, lane: usize) -> Self;
    fn out() -> Self::Out;
    fn set(out: &mut Self::Out, lane: usize, value: Self);
    fn commit(machine: &mut Machine<'_>, slot: u32, out: &Self::Out, mask: u32);
}

macro_rules! lane {
    ($ty:ty, $raw:ty, $array:ty, $read:ident, $write:ident, |$r:ident| $from:expr, |$v:ident| $to:expr) => {
        impl Lane for $ty {
            type View<'v> = &'v $array;
            type Out = $array;
            #[inline(always)]
            fn view<'v>(machine: &'v Machine<'_>, slot: u32) -> &'v $array {
                machine.$read(slot)
            }
            #[inline(always)]
            fn at(view: &$array, lane: usize) -> $ty {
                let $r: $raw = view[lane];
                $from
            }
            #[inline(always)]
            fn out() -> $array {
                [0; LANES]
            }
            #[inline(always)]
            fn set(out: &mut $array, lane: usize, $v: $ty) {
                out[lane] = $to;
            }
            #[inline(always)]
            fn commit(machine: &mut Machine<'_>, slot: u32, out: &$array, mask: u32) {
                machine.$write(slot, out, mask);
            }
        }
    };
}

lane!(u8, u32, Words, words, set_words, |r| r as u8, |v| v as u32);
lane!(i8, u32, Words, words, set_words, |r| r as i8, |v| v as i32 as u32);
lane!(u16, u32, Words, words, set_words, |r| r as u16, |v| v as u32);
lane!(i16, u32, Words, words, set_words, |r| r as i16, |v| v as i32 as u32);
lane!(u32, u32, Words, words, set_words, |r| r, |v| v);
lane!(i32, u32, Words, words, set_words, |r| r as i32, |v| v as u32);
lane!(u64, u64, Longs, longs, set_longs, |r| r, |v| v);
lane!(i64, u64, Longs, longs, set_longs, |r| r as i64, |v| v as u64);
lane!(f32, u32, Words, words, set_words, |r| f32::from_bits(r), |v| v.to_bits());
lane!(f64, u64, Longs, longs, set_longs, |r| f64::from_bits(r), |v| v.to_bits());
lane!(f16, u32, Words, words, set_words, |r| f16::from_bits(r as u16), |v| v.to_bits() as u32);
lane!(bf16, u32, Words, words, set_words, |r| bf16::from_bits(r as u16), |v| v.to_bits() as u32);

impl Lane for bool {
    type View<'v> = u32;
    type Out = u32;
    #[inline(always)]
    fn view(machine: &Machine<'_>, slot: u32) -> u32 {
        machine.predicate(slot)
    }
    #[inline(always)]
    fn at(view: u32, lane: usize) -> bool {
        view >> lane & 1 != 0
    }
    #[inline(always)]
    fn out() -> u32 {
        0
    }
    #[inline(always)]
    fn set(out: &mut u32, lane: usize, value: bool) {
        *out |= u32::from(value) << lane;
    }
    #[inline(always)]
    fn commit(machine: &mut Machine<'_>, slot: u32, out: &u32, mask: u32) {
        machine.set_predicate(slot, *out, mask);
    }
}

/// The value of a zero-sized closure type, of which `lift*` were given an instance.
#[inline(always)]
pub fn conjure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0, "a lifted closure captures nothing") };
    // SAFETY: F is zero-sized, so any aligned pointer is valid for reading it, and Copy, so a further instance of the
    // one that the caller of `lift*` handed over may exist.
    unsafe { std::ptr::NonNull::<F>::dangling().as_ptr().read() }
}

pub fn lift1<A: Lane, D: Lane, F: Fn(A) -> D + Copy + 'static>(_: F) -> Handler {
    fn run<A: Lane, D: Lane, F: Fn(A) -> D + Copy>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
        let f = conjure::<F>();
        let mut out = D::out();
        let a = A::view(m, op.a);
        for i in 0..LANES {
            D::set(&mut out, i, f(A::at(a, i)));
        }
        D::commit(m, op.dst, &out, mask);
        Flow::Next
    }
    run::<A, D, F>
}

/// As [`lift1`], with the instruction's `flags` as the last argument.
pub fn lift1_flags<A: Lane, D: Lane, F: Fn(A, u32) -> D + Copy + 'static>(_: F) -> Handler {
    fn run<A: Lane, D: Lane, F: Fn(A, u32) -> D + Copy>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
        let f = conjure::<F>();
        let mut out = D::out();
        let a = A::view(m, op.a);
        for i in 0..LANES {
            if mask >> i & 1 != 0 {
                D::set(&mut out, i, f(A::at(a, i), op.flags));
            }
        }
        D::commit(m, op.dst, &out, mask);
        Flow::Next
    }
    run::<A, D, F>
}

pub fn lift2<A: Lane, B: Lane, D: Lane, F: Fn(A, B) -> D + Copy + 'static>(_: F) -> Handler {
    fn run<A: Lane, B: Lane, D: Lane, F>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow
    where
        F: Fn(A, B) -> D + Copy,
    {
        let f = conjure::<F>();
        let mut out = D::out();
        let (a, b) = (A::view(m, op.a), B::view(m, op.b));
        for i in 0..LANES {
            D::set(&mut out, i, f(A::at(a, i), B::at(b, i)));
        }
        D::commit(m, op.dst, &out, mask);
        Flow::Next
    }
    run::<A, B, D, F>
}

/// As [`lift2`], with the instruction's `flags` as the last argument.
pub fn lift2_flags<A: Lane, B: Lane, D: Lane, F: Fn(A, B, u32) -> D + Copy + 'static>(_: F) -> Handler {
    fn run<A: Lane, B: Lane, D: Lane, F>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow
    where
        F: Fn(A, B, u32) -> D + Copy,
    {
        let f = conjure::<F>();
        let mut out = D::out();
        let (a, b) = (A::view(m, op.a), B::view(m, op.b));
        for i in 0..LANES {
            if mask >> i & 1 != 0 {
                D::set(&mut out, i, f(A::at(a, i), B::at(b, i), op.flags));
            }
        }
        D::commit(m, op.dst, &out, mask);
        Flow::Next
    }
    run::<A, B, D, F>
}

pub fn lift3<A: Lane, B: Lane, C: Lane, D: Lane, F: Fn(A, B, C) -> D + Copy + 'static>(_: F) -> Handler {
    fn run<A: Lane, B: Lane, C: Lane, D: Lane, F>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow
    where
        F: Fn(A, B, C) -> D + Copy,
    {
        let f = conjure::<F>();
        let mut out = D::out();
        let (a, b, c) = (A::view(m, op.a), B::view(m, op.b), C::view(m, op.c));
        for i in 0..LANES {
            D::set(&mut out, i, f(A::at(a, i), B::at(b, i), C::at(c, i)));
        }
        D::commit(m, op.dst, &out, mask);
        Flow::Next
    }
    run::<A, B, C, D, F>
}

/// As [`lift3`], for closures around `mul_add`: on a host with fused multiply-add (found out at run time) compiled to
/// it, instead of one library call per lane.
pub fn lift3_fused<T: Lane, F: Fn(T, T, T) -> T + Copy + 'static>(f: F) -> Handler {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn fused<T: Lane, F: Fn(T, T, T) -> T + Copy>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
            let f = conjure::<F>();
            let mut out = T::out();
            let (a, b, c) = (T::view(m, op.a), T::view(m, op.b), T::view(m, op.c));
            for i in 0..LANES {
                T::set(&mut out, i, f(T::at(a, i), T::at(b, i), T::at(c, i)));
            }
            T::commit(m, op.dst, &out, mask);
            Flow::Next
        }
        fn run<T: Lane, F: Fn(T, T, T) -> T + Copy>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
            // SAFETY: this handler is handed out only where the host has both features.
            unsafe { fused::<T, F>(m, op, mask) }
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return run::<T, F>;
        }
    }
    lift3(f)
}

/// As [`lift3`], with the instruction's `flags` as the last argument.
pub fn lift3_flags<A: Lane, B: Lane, C: Lane, D: Lane, F: Fn(A, B, C, u32) -> D + Copy + 'static>(
    _: F,
) -> Handler {
    fn run<A: Lane, B: Lane, C: Lane, D: Lane, F>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow
    where
        F: Fn(A, B, C, u32) -> D + Copy,
    {
        let f = conjure::<F>();
        let mut out = D::out();
        let (a, b, c) = (A::view(m, op.a), B::view(m, op.b), C::view(m, op.c));
        for i in 0..LANES {
            if mask >> i & 1 != 0 {
                D::set(&mut out, i, f(A::at(a, i), B::at(b, i), C::at(c, i), op.flags));
            }
        }
        D::commit(m, op.dst, &out, mask);
        Flow::Next
    }
    run::<A, B, C, D, F>
}

pub fn lift4<A: Lane, B: Lane, C: Lane, E: Lane, D: Lane, F>(_: F) -> Handler
where
    F: Fn(A, B, C, E) -> D + Copy + 'static,
{
    fn run<A: Lane, B: Lane, C: Lane, E: Lane, D: Lane, F>(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow
    where
        F: Fn(A, B, C, E) -> D + Copy,
    {
        let f = conjure::<F>();
        let mut out = D::out();
        let (a, b, c, d) = (A::view(m, op.a), B::view(m, op.b), C::view(m, op.c), E::view(m, op.d));
        for i in 0..LANES {
            D::set(&mut out, i, f(A::at(a, i), B::at(b, i), C::at(c, i), E::at(d, i)));
        }
        D::commit(m, op.dst, &out, mask);
        Flow::Next
    }
    run::<A, B, C, E, D, F>
}

/// Lifts an addition or subtraction with carry: `f(a, b, c, carry)` gives the result and the carry out. `op.d` is the
/// predicate that holds the function's condition code; it is written only where `flags` is not zero (`.cc`).
pub fn lift_carry<T: Lane, F: Fn(T, T, T, bool) -> (T, bool) + Copy + 'static>(_: F) -> Handler {
    fn run<T: Lane, F: Fn(T, T, T, bool) -> (T, bool) + Copy>(
        m: &mut Machine<'_>,
        op: &Op,
        mask: u32,
    ) -> Flow {
        let f = conjure::<F>();
        let (mut out, mut carries) = (T::out(), 0);
        let (a, b, c, carry) = (T::view(m, op.a), T::view(m, op.b), T::view(m, op.c), m.predicate(op.d));
        for i in 0..LANES {
            let (value, carry) = f(T::at(a, i), T::at(b, i), T::at(c, i), carry >> i & 1 != 0);
            T::set(&mut out, i, value);
            carries |= u32::from(carry) << i;
        }
        T::commit(m, op.dst, &out, mask);
        if op.flags != 0 {
            m.set_predicate(op.d, carries, mask);
        }
        Flow::Next
    }
    run::<T, F>
}
