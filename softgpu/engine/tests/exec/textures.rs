//! Texture fetches against a reference written from the formulas of the CUDA programming guide's appendix on texture fetching.

use lightos_softgpu_engine::exec::image::{AddressMode, Format, Geometry, Sampler, Texels, Texture};

use crate::harness::{Device, HEADER, kernel, shape};

pub const MODES: [AddressMode; 4] =
    [AddressMode::Wrap, AddressMode::Clamp, AddressMode::Mirror, AddressMode::Border];

/// Numbers from [0, 1), the same in every run.
pub fn noise() -> impl FnMut() -> f32 {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    }
}

/// An image of `size` whose rows and slices are padded, over memory of its own.
pub fn texels(
    device: &Device,
    geometry: Geometry,
    format: Format,
    channels: u32,
    [width, height, depth]: [u32; 3],
    fill: &mut dyn FnMut() -> u8,
) -> (Texels, Vec<u8>) {
    let pitch = u64::from(width * channels * format.bytes()).next_multiple_of(64) + 64;
    let slice = pitch * (u64::from(height) + 1);
    let bytes: Vec<u8> = (0..slice * u64::from(depth)).map(|_| fill()).collect();
    let start = device.upload(&bytes);
    (Texels { start, geometry, format, channels, width, height, depth, pitch, slice }, bytes)
}

pub fn sampler(mode: AddressMode, linear: bool, normalized: bool) -> Sampler {
    Sampler { address: [mode; 3], linear, normalized, as_integer: false, border: [0; 4] }
}

/// Reads a texture with one thread per coordinate vector: `{%f0, ...}` or `{%r1, ...}` in `instruction` hold it, `%rd9` the
/// handle; the results come from `%f10` to `%f13` or, as words, from `%r10` to `%r13`.
fn fetch(device: &Device, texture: u64, instruction: &str, at: &[[u32; 4]]) -> Vec<[u32; 4]> {
    let store = if instruction.contains("%f10") {
        "st.global.v4.f32 [%rd3], {%f10, %f11, %f12, %f13};"
    } else {
        "st.global.v4.b32 [%rd3], {%r10, %r11, %r12, %r13};"
    };
    let ptx = format!(
        "{HEADER}.visible .entry k(.param .u64 out, .param .u64 in, .param .u64 tex) {{
        .reg .b32 %r<20>; .reg .f32 %f<20>; .reg .b64 %rd<10>;
        ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [in]; ld.param.u64 %rd9, [tex];
        mov.u32 %r0, %ctaid.x; mov.u32 %r1, %ntid.x; mov.u32 %r2, %tid.x; mad.lo.u32 %r0, %r0, %r1, %r2;
        mad.wide.u32 %rd3, %r0, 16, %rd1; mad.wide.u32 %rd4, %r0, 16, %rd2;
        ld.global.v4.b32 {{%r1, %r2, %r3, %r4}}, [%rd4]; ld.global.v4.f32 {{%f1, %f2, %f3, %f4}}, [%rd4];
        {instruction}
        {store}
        ret; }}"
    );
    let program = device.load(&ptx).unwrap_or_else(|e| panic!("{instruction}: {e}"));
    let mut padded = at.to_vec();
    padded.resize(at.len().next_multiple_of(32), [0; 4]);
    let (input, out) = (device.upload(&padded), device.allocate(padded.len() as u64 * 16));
    let run = device.run(&program, "k", shape(padded.len() as u32 / 32, 32), &[out, input, texture]);
    run.unwrap_or_else(|e| panic!("{instruction}: {e}"));
    device.download(out, at.len())
}

/// The index that an address mode makes of `i`, step by step; `None` for the border.
fn addressed(mode: AddressMode, mut i: i64, n: i64) -> Option<i64> {
    match mode {
        AddressMode::Clamp => Some(i.max(0).min(n - 1)),
        AddressMode::Border => (i >= 0 && i < n).then_some(i),
        AddressMode::Wrap => {
            while i < 0 {
                i += n;
            }
            while i >= n {
                i -= n;
            }
            Some(i)
        }
        AddressMode::Mirror => loop {
            if i < 0 {
                i = -1 - i;
            } else if i >= n {
                i = 2 * n - 1 - i;
            } else {
                return Some(i);
            }
        },
    }
}

/// The guide's table lookups: nearest texel, or linear interpolation along one axis after the other.
fn reference(
    texel: &dyn Fn([i64; 3]) -> f64,
    border: f64,
    sampler: &Sampler,
    at: &[f32],
    size: [u32; 3],
) -> f64 {
    fn along(
        axis: usize,
        index: [i64; 3],
        outside: bool,
        look: &dyn Fn([i64; 3], bool) -> f64,
        axes: &[(f64, i64, AddressMode)],
        linear: bool,
    ) -> f64 {
        let Some(&(x, n, mode)) = axes.get(axis) else { return look(index, outside) };
        let step = |i: i64| {
            let mut index = index;
            let found = addressed(mode, i, n);
            index[axis] = found.unwrap_or(0);
            along(axis + 1, index, outside || found.is_none(), look, axes, linear)
        };
        if !linear {
            return step(x.floor() as i64);
        }
        let xb = x - 0.5;
        let i = xb.floor();
        // 9-bit fixed point with 8 bits of fraction, 1.0 included.
        let alpha = ((xb - i) * 256.0).round() / 256.0;
        (1.0 - alpha) * step(i as i64) + alpha * step(i as i64 + 1)
    }
    let axes: Vec<(f64, i64, AddressMode)> = at
        .iter()
        .enumerate()
        .map(|(axis, &x)| {
            let (n, mode) = (size[axis], sampler.address[axis]);
            match (sampler.normalized, mode) {
                (true, _) => (f64::from(x) * f64::from(n), i64::from(n), mode),
                (false, AddressMode::Border) => (f64::from(x), i64::from(n), mode),
                (false, _) => (f64::from(x), i64::from(n), AddressMode::Clamp),
            }
        })
        .collect();
    let look = |index: [i64; 3], outside: bool| if outside { border } else { texel(index) };
    along(0, [0; 3], false, &look, &axes, sampler.linear)
}

#[test]
fn every_filter_and_address_mode_in_every_dimension() {
    let mut next = noise();
    let (mut byte, mut state) = (0u8, 7u32);
    let mut compared = 0;
    for (geometry, size, instruction) in [
        (Geometry::D1, [13, 1, 1], "tex.1d.v4.f32.f32 {%f10, %f11, %f12, %f13}, [%rd9, {%f1}];"),
        (Geometry::D2, [9, 6, 1], "tex.2d.v4.f32.f32 {%f10, %f11, %f12, %f13}, [%rd9, {%f1, %f2}];"),
        (
            Geometry::D3,
            [5, 4, 3],
            "tex.3d.v4.f32.f32 {%f10, %f11, %f12, %f13}, [%rd9, {%f1, %f2, %f3, %f3}];",
        ),
    ] {
        let device = Device::default();
        // Bytes of floats near 1: the exponent's byte pair is fixed.
        let mut float = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            byte = byte.wrapping_add(1);
            match byte & 3 {
                0 => 0x3f,
                3 => 0x80 | (state >> 24) as u8 & 0x7f,
                _ => (state >> 24) as u8,
            }
        };
        let (image, bytes) = texels(&device, geometry, Format::Float, 4, size, &mut float);
        let dims = size.iter().filter(|n| **n > 1).count();
        for (mode, linear, normalized) in MODES
            .into_iter()
            .flat_map(|mode| [false, true].map(|linear| (mode, linear)))
            .flat_map(|(mode, linear)| [false, true].map(|normalized| (mode, linear, normalized)))
        {
            let border = [0.25f32, -3.0, 7.5, 1.5];
            let sampler = Sampler { border: border.map(f32::to_bits), ..sampler(mode, linear, normalized) };
            let texture = device.texture(Texture { texels: image, sampler });
            let at: Vec<[f32; 4]> = (0..96)
                .map(|k| {
                    std::array::from_fn(|axis| {
                        let n = size.get(axis).map_or(1.0, |n| *n as f32);
                        let x = match k % 3 {
                            // Texel centres and edges, and places far outside.
                            0 => (next() * 4.0 * n).floor() * 0.5 - n * 0.5,
                            1 => (next() * 6.0 - 2.5) * n,
                            _ => next() * n,
                        };
                        if normalized { x / n } else { x }
                    })
                })
                .collect();
            let bits: Vec<[u32; 4]> = at.iter().map(|at| at.map(f32::to_bits)).collect();
            for (at, words) in at.iter().zip(fetch(&device, texture, instruction, &bits)) {
                for (channel, word) in words.into_iter().enumerate() {
                    let texel = |[x, y, z]: [i64; 3]| {
                        let offset = z as u64 * image.slice + y as u64 * image.pitch + x as u64 * 16;
                        let from = offset as usize + channel * 4;
                        f64::from(f32::from_le_bytes(bytes[from..from + 4].try_into().unwrap()))
                    };
                    let border = f64::from(border[channel]);
                    let expected = reference(&texel, border, &sampler, &at[..dims], size);
                    let got = f64::from(f32::from_bits(word));
                    let close = (got - expected).abs() <= expected.abs().max(1.0) * 1e-6;
                    assert!(close, "{geometry:?} {sampler:?} {at:?} {channel}: {got} {expected}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 3 * 16 * 96 * 4);
}

#[test]
fn coordinates_without_end_stay_in_the_image() {
    let device = Device::default();
    let (image, bytes) = texels(&device, Geometry::D1, Format::U8, 1, [6, 1, 1], &mut {
        let mut next = noise();
        move || (next() * 256.0) as u8
    });
    let wild = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN, -f32::MIN_POSITIVE, 9e18];
    let at = wild.map(|x| [x.to_bits(), 0, 0, 0]);
    let instruction = "tex.1d.v4.f32.f32 {%f10, %f11, %f12, %f13}, [%rd9, {%f1}];";
    for mode in MODES {
        for (linear, normalized) in [(false, false), (false, true), (true, false), (true, true)] {
            let texture =
                device.texture(Texture { texels: image, sampler: sampler(mode, linear, normalized) });
            let got =
                fetch(&device, texture, instruction, &at).into_iter().map(|words| f32::from_bits(words[0]));
            let got: Vec<f32> = got.collect();
            assert!(got.iter().all(|value| (0.0..=1.0).contains(value)), "{got:?}");
            if mode == AddressMode::Clamp {
                let (first, last) = (f32::from(bytes[0]) / 255.0, f32::from(bytes[5]) / 255.0);
                assert_eq!([got[0], got[1], got[3], got[4]], [last, first, last, first]);
            } else if mode == AddressMode::Border {
                assert_eq!([got[0], got[1], got[3], got[4]], [0.0; 4]);
            }
        }
    }
}

#[test]
fn every_format_is_promoted_or_extended() {
    let formats = [
        Format::U8,
        Format::U16,
        Format::U32,
        Format::S8,
        Format::S16,
        Format::S32,
        Format::Half,
        Format::Float,
    ];
    let mut state = 1u8;
    for (format, channels, as_integer) in formats
        .into_iter()
        .flat_map(|format| [1usize, 2, 4].map(|channels| (format, channels)))
        .flat_map(|(format, channels)| [false, true].map(|integer| (format, channels, integer)))
    {
        let device = Device::default();
        let mut fill = || {
            state = state.wrapping_mul(77).wrapping_add(53);
            // Halves and floats without NaN, whose payloads a conversion may change.
            if matches!(format, Format::Half | Format::Float) { state & 0x3f } else { state }
        };
        let (image, bytes) = texels(&device, Geometry::D1, format, channels as u32, [32, 1, 1], &mut fill);
        let sampler = Sampler { as_integer, ..sampler(AddressMode::Clamp, false, false) };
        let texture = device.texture(Texture { texels: image, sampler });
        let at: Vec<[u32; 4]> = (0..32).map(|x| [(x as f32 + 0.5).to_bits(), 0, 0, 0]).collect();
        let instruction = "tex.1d.v4.u32.f32 {%r10, %r11, %r12, %r13}, [%rd9, {%f1}];";
        for (x, words) in fetch(&device, texture, instruction, &at).into_iter().enumerate() {
            for (channel, word) in words.into_iter().enumerate() {
                let size = format.bytes() as usize;
                let from = (x * channels + channel) * size;
                let part = &bytes[from..from + size];
                let floats = matches!(format, Format::Half | Format::Float)
                    || !as_integer && !matches!(format, Format::U32 | Format::S32);
                let expected = match format {
                    _ if channel >= channels && channel < 3 => 0,
                    _ if channel >= channels && floats => 1f32.to_bits(),
                    _ if channel >= channels => 1,
                    Format::U8 if as_integer => u32::from(part[0]),
                    Format::U8 => (f32::from(part[0]) / 255.0).to_bits(),
                    Format::S8 if as_integer => i32::from(part[0] as i8) as u32,
                    Format::S8 => (f32::from(part[0] as i8) / 127.0).max(-1.0).to_bits(),
                    Format::U16 if as_integer => u32::from(u16::from_le_bytes([part[0], part[1]])),
                    Format::U16 => (f32::from(u16::from_le_bytes([part[0], part[1]])) / 65535.0).to_bits(),
                    Format::S16 if as_integer => i32::from(i16::from_le_bytes([part[0], part[1]])) as u32,
                    Format::S16 => {
                        (f32::from(i16::from_le_bytes([part[0], part[1]])) / 32767.0).max(-1.0).to_bits()
                    }
                    Format::Half => half::f16::from_le_bytes([part[0], part[1]]).to_f32().to_bits(),
                    _ => u32::from_le_bytes(part.try_into().unwrap()),
                };
                assert_eq!(word, expected, "{format:?} x{channels} {as_integer} texel {x} channel {channel}");
            }
        }
    }
}

#[test]
fn promoted_integers_are_filtered() {
    let device = Device::default();
    let mut levels = [0u8, 255, 51].into_iter().cycle();
    let (image, _) = texels(&device, Geometry::D1, Format::U8, 1, [3, 1, 1], &mut || levels.next().unwrap());
    let texture =
        device.texture(Texture { texels: image, sampler: sampler(AddressMode::Clamp, true, false) });
    let at = [0.5f32, 0.75, 1.0, 1.5, 2.0, 9.0].map(|x| [x.to_bits(), 0, 0, 0]);
    let instruction = "tex.1d.v4.f32.f32 {%f10, %f11, %f12, %f13}, [%rd9, {%f1}];";
    let got = fetch(&device, texture, instruction, &at).into_iter().map(|words| f32::from_bits(words[0]));
    assert_eq!(got.collect::<Vec<_>>(), [0.0, 0.25, 0.5, 1.0, 0.6, 0.2]);
}

#[test]
fn integer_coordinates_fetch_unfiltered_and_give_zero_outside() {
    let device = Device::default();
    let words: Vec<i32> = (0..100).map(|k| k * 3 - 50).collect();
    let start = device.upload(&words);
    let linear = Texels {
        start,
        geometry: Geometry::Linear,
        format: Format::S32,
        channels: 2,
        width: 50,
        height: 1,
        depth: 1,
        pitch: 400,
        slice: 400,
    };
    let texture =
        device.texture(Texture { texels: linear, sampler: sampler(AddressMode::Clamp, true, true) });
    let places = [0, 7, 49, 50, -1, i32::MIN, i32::MAX];
    let at = places.map(|x| [x as u32, 0, 0, 0]);
    let instruction = "tex.1d.v4.s32.s32 {%r10, %r11, %r12, %r13}, [%rd9, {%r1}];";
    for (x, got) in places.into_iter().zip(fetch(&device, texture, instruction, &at)) {
        let expected = match usize::try_from(x) {
            Ok(x) if x < 50 => [words[2 * x] as u32, words[2 * x + 1] as u32, 0, 1],
            _ => [0; 4],
        };
        assert_eq!(got, expected, "{x}");
    }
    let plane = Texels { geometry: Geometry::D2, channels: 1, width: 10, height: 10, pitch: 40, ..linear };
    let texture = device.texture(Texture { texels: plane, sampler: sampler(AddressMode::Clamp, true, true) });
    let at = [[3u32, 4, 0, 0], [9, 9, 0, 0], [10, 0, 0, 0], [0, u32::MAX, 0, 0]];
    let instruction = "tex.level.2d.v4.s32.s32 {%r10, %r11, %r12, %r13}, [%rd9, {%r1, %r2}], %r3;";
    let got: Vec<u32> = fetch(&device, texture, instruction, &at).into_iter().map(|words| words[0]).collect();
    assert_eq!(got, [words[43] as u32, words[99] as u32, 0, 0]);
}

#[test]
fn layers_are_selected_and_clamped() {
    for (geometry, size, instruction) in [
        (Geometry::A1, [4, 1, 3], "tex.a1d.v4.f32.f32 {%f10, %f11, %f12, %f13}, [%rd9, {%r1, %f2}];"),
        (
            Geometry::A2,
            [4, 2, 3],
            "tex.a2d.v4.f32.f32 {%f10, %f11, %f12, %f13}, [%rd9, {%r1, %f2, %f3, %f3}];",
        ),
    ] {
        let device = Device::default();
        let mut count = 0u8;
        let mut fill = || {
            count = count.wrapping_add(1);
            count
        };
        let (image, bytes) = texels(&device, geometry, Format::U8, 1, size, &mut fill);
        let point =
            device.texture(Texture { texels: image, sampler: sampler(AddressMode::Clamp, false, false) });
        let at = [0u32, 1, 2, 3, u32::MAX].map(|layer| [layer, 2.5f32.to_bits(), 1.5f32.to_bits(), 0]);
        for (at, got) in at.iter().zip(fetch(&device, point, instruction, &at)) {
            let row = u64::from(size[1] - 1).min(1) * image.pitch;
            let texel = bytes[(u64::from(at[0].min(2)) * image.slice + row + 2) as usize];
            assert_eq!(f32::from_bits(got[0]), f32::from(texel) / 255.0, "{geometry:?} {}", at[0]);
        }
        // Filtering stays within the layer.
        let linear =
            device.texture(Texture { texels: image, sampler: sampler(AddressMode::Clamp, true, false) });
        let got = fetch(&device, linear, instruction, &[[1, 2f32.to_bits(), 0.5f32.to_bits(), 0]])[0];
        let row = image.slice as usize;
        let middle = (f64::from(bytes[row + 1]) + f64::from(bytes[row + 2])) / 2.0 / 255.0;
        assert!((f64::from(f32::from_bits(got[0])) - middle).abs() < 1e-6, "{geometry:?}");
    }
}

#[test]
fn a_gather_gives_the_footprint_counter_clockwise() {
    let device = Device::default();
    let mut count = 0u8;
    let mut fill = || {
        count = count.wrapping_add(1);
        count
    };
    let (image, bytes) = texels(&device, Geometry::D2, Format::U8, 4, [5, 5, 1], &mut fill);
    let sampler = Sampler { as_integer: true, ..sampler(AddressMode::Clamp, false, false) };
    let texture = device.texture(Texture { texels: image, sampler });
    for (channel, name) in ["r", "g", "b", "a"].into_iter().enumerate() {
        let instruction =
            format!("tld4.{name}.2d.v4.u32.f32 {{%r10, %r11, %r12, %r13}}, [%rd9, {{%f1, %f2}}];");
        let got = fetch(&device, texture, &instruction, &[[2.2f32.to_bits(), 3.1f32.to_bits(), 0, 0]])[0];
        let texel = |x: usize, y: usize| u32::from(bytes[y * image.pitch as usize + x * 4 + channel]);
        assert_eq!(got, [texel(1, 3), texel(2, 3), texel(2, 2), texel(1, 2)], "{name}");
    }
}

#[test]
fn lanes_may_name_different_objects() {
    let device = Device::default();
    let handles: Vec<u64> = (0..5u8)
        .map(|k| {
            let mut fill = || k + 1;
            let (image, _) = texels(&device, Geometry::D1, Format::U8, 1, [4, 1, 1], &mut fill);
            let sampler = Sampler { as_integer: true, ..sampler(AddressMode::Clamp, false, false) };
            device.texture(Texture { texels: image, sampler })
        })
        .collect();
    let body = "rem.u32 %r1, %r0, 5; ld.param.u64 %rd1, [in]; mad.wide.u32 %rd1, %r1, 8, %rd1; ld.global.u64 %rd2, [%rd1];
        setp.ne.u32 %p1, %r0, 7; mov.u32 %r2, 0;
        @%p1 tex.1d.v4.u32.f32 {%r2, _, _, _}, [%rd2, 0f3F000000]; cvt.u64.u32 %rd3, %r2; st.global.u64 [%rd0], %rd3; ret;";
    let program = device.load(&kernel(body)).unwrap_or_else(|e| panic!("{e}"));
    let (table, out) = (device.upload(&handles), device.allocate(64 * 8));
    device.run(&program, "k", shape(1, 64), &[out, table]).unwrap();
    let expected: Vec<u64> = (0..64).map(|k| if k == 7 { 0 } else { k % 5 + 1 }).collect();
    assert_eq!(device.download::<u64>(out, 64), expected);
}
