//! Surface loads and stores against the image's own bytes.

use lightos_softgpu_engine::exec::Fault;
use lightos_softgpu_engine::exec::image::{Format, Geometry, Surface, Texels};

use crate::harness::{Device, HEADER, kernel, shape};
use crate::textures::texels;

const SIZE: [u32; 3] = [8, 4, 3];

fn image(device: &Device, geometry: Geometry) -> (Texels, Vec<u8>) {
    let size = match geometry {
        Geometry::D1 => [SIZE[0], 1, 1],
        Geometry::D2 => [SIZE[0], SIZE[1], 1],
        Geometry::A1 => [SIZE[0], 1, SIZE[2]],
        _ => SIZE,
    };
    let mut count = 0u32;
    let mut fill = || {
        count = count.wrapping_mul(1_664_525).wrapping_add(12345);
        (count >> 24) as u8
    };
    texels(device, geometry, Format::U32, 4, size, &mut fill)
}

/// Where `bytes` bytes at byte x, row y, slice z are in the image, after the instruction's way with places outside.
fn expected(image: &Texels, mode: &str, at: [i32; 3], bytes: i64) -> Option<u64> {
    let limits = [image.row_bytes() as i64 - bytes, i64::from(image.height) - 1, i64::from(image.depth) - 1];
    let mut offset = 0;
    for ((place, limit), stride) in at.into_iter().zip(limits).zip([1, image.pitch, image.slice]) {
        let place = i64::from(place);
        let inside = place >= 0 && place <= limit;
        if !inside && mode == "zero" {
            return None;
        }
        offset += place.max(0).min(limit) as u64 * stride;
    }
    Some(offset)
}

/// Runs `instruction` in one thread per place: `%r4` is byte x, `%r2` row y, `%r3` slice z or layer, `%rd9` the handle.
fn run(device: &Device, surface: u64, instruction: &str, at: &[[i32; 3]], out: u64) -> Option<Fault> {
    let ptx = format!(
        "{HEADER}.visible .entry k(.param .u64 out, .param .u64 in, .param .u64 surf) {{
        .reg .b16 %h<20>; .reg .b32 %r<20>; .reg .b64 %rd<30>;
        ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [in]; ld.param.u64 %rd9, [surf];
        mov.u32 %r0, %tid.x; mad.wide.u32 %rd3, %r0, 16, %rd1; mad.wide.u32 %rd4, %r0, 12, %rd2;
        ld.global.u32 %r4, [%rd4]; ld.global.u32 %r2, [%rd4+4]; ld.global.u32 %r3, [%rd4+8];
        {instruction}
        ret; }}"
    );
    let program = device.load(&ptx).unwrap_or_else(|e| panic!("{instruction}: {e}"));
    let input = device.upload(at);
    device.run(&program, "k", shape(1, at.len() as u32), &[out, input, surface]).err()
}

const GEOMETRIES: [(Geometry, &str, &str); 5] = [
    (Geometry::D1, "1d", "{%r4}"),
    (Geometry::D2, "2d", "{%r4, %r2}"),
    (Geometry::D3, "3d", "{%r4, %r2, %r3, %r3}"),
    (Geometry::A1, "a1d", "{%r3, %r4}"),
    (Geometry::A2, "a2d", "{%r3, %r4, %r2, %r2}"),
];

const ACCESSES: [(&str, &str, i32); 8] = [
    ("b8", "{%h1}", 1),
    ("b16", "{%h1}", 2),
    ("b32", "{%r10}", 4),
    ("b64", "{%rd10}", 8),
    ("v2.b8", "{%h1, %h2}", 2),
    ("v4.b16", "{%h1, %h2, %h3, %h4}", 8),
    ("v4.b32", "{%r10, %r11, %r12, %r13}", 16),
    ("v2.b64", "{%rd10, %rd11}", 16),
];

/// Places inside and around the image, aligned to `bytes`; axes that the geometry does not have are 0.
fn places(geometry: Geometry, bytes: i32) -> Vec<[i32; 3]> {
    let (has_y, has_z) = match geometry {
        Geometry::D1 => (false, false),
        Geometry::D2 => (true, false),
        Geometry::A1 => (false, true),
        _ => (true, true),
    };
    let mut places = Vec::new();
    for x in [0, bytes, 128 - bytes, 128, -bytes, 4096] {
        for y in if has_y { vec![0, 3, 4, -1] } else { vec![0] } {
            for z in if has_z { vec![0, 2, 3] } else { vec![0] } {
                places.push([x, y, z]);
            }
        }
    }
    places
}

#[test]
fn loads_find_their_bytes() {
    for (geometry, name, coordinates) in GEOMETRIES {
        for (vector, registers, bytes) in ACCESSES {
            for mode in ["clamp", "zero"] {
                let device = Device::default();
                let (image, contents) = image(&device, geometry);
                let surface = device.surface(Surface(image));
                let at = places(geometry, bytes);
                let out = device.allocate(at.len() as u64 * 16);
                let plain = if vector.starts_with('v') {
                    registers.to_owned()
                } else {
                    registers.trim_matches(['{', '}']).to_owned()
                };
                let instruction = format!(
                    "suld.b.{name}.{vector}.{mode} {registers}, [%rd9, {coordinates}]; st.global.{vector} [%rd3], {plain};"
                );
                assert_eq!(run(&device, surface, &instruction, &at, out), None, "{instruction}");
                let got = device.download::<u8>(out, at.len() * 16);
                for (place, got) in at.iter().zip(got.chunks(16)) {
                    let want = match expected(&image, mode, *place, i64::from(bytes)) {
                        Some(offset) => contents[offset as usize..][..bytes as usize].to_vec(),
                        None => vec![0; bytes as usize],
                    };
                    assert_eq!(got[..bytes as usize], want, "{instruction} {place:?}");
                }
            }
        }
    }
}

#[test]
fn stores_change_their_bytes_alone() {
    for (geometry, name, coordinates) in GEOMETRIES {
        for (vector, registers, bytes) in ACCESSES {
            for mode in ["clamp", "zero"] {
                for place in places(geometry, bytes) {
                    let device = Device::default();
                    let (image, mut contents) = image(&device, geometry);
                    let surface = device.surface(Surface(image));
                    let instruction = format!(
                        "mov.b16 %h1, 0x1234; mov.b16 %h2, 0x5678; mov.b16 %h3, 0x9abc; mov.b16 %h4, 0xdef0;
                        mov.b32 %r10, 0x01020304; mov.b32 %r11, 0x05060708; mov.b32 %r12, 0x090a0b0c; mov.b32 %r13, 0x0d0e0f10;
                        mov.b64 %rd10, 0x1122334455667788; mov.b64 %rd11, 0x99aabbccddeeff00;
                        sust.b.{name}.{vector}.{mode} [%rd9, {coordinates}], {registers};"
                    );
                    let out = device.allocate(16);
                    assert_eq!(run(&device, surface, &instruction, &[place], out), None, "{instruction}");
                    let halves: Vec<u8> = [0x1234u16, 0x5678, 0x9abc, 0xdef0].map(u16::to_le_bytes).concat();
                    let words: Vec<u8> = [0x0102_0304u32, 0x0506_0708, 0x090a_0b0c, 0x0d0e_0f10]
                        .map(u32::to_le_bytes)
                        .concat();
                    let longs: Vec<u8> =
                        [0x1122_3344_5566_7788u64, 0x99aa_bbcc_ddee_ff00].map(u64::to_le_bytes).concat();
                    let data = match vector {
                        "v2.b8" => vec![0x34, 0x78],
                        _ if vector.ends_with("b8") || vector.ends_with("b16") => halves,
                        _ if vector.ends_with("b32") => words,
                        _ => longs,
                    };
                    if let Some(offset) = expected(&image, mode, place, i64::from(bytes)) {
                        contents[offset as usize..][..bytes as usize]
                            .copy_from_slice(&data[..bytes as usize]);
                    }
                    let after = device.download::<u8>(image.start, contents.len());
                    assert!(after == contents, "{name}.{vector}.{mode} {place:?}");
                }
            }
        }
    }
}

#[test]
fn accesses_outside_trap_and_odd_ones_are_misaligned() {
    let device = Device::default();
    let (image, _) = image(&device, Geometry::D2);
    let surface = device.surface(Surface(image));
    let out = device.allocate(16);
    let load = "suld.b.2d.b32.trap {%r10}, [%rd9, {%r4, %r2}];";
    let store = "sust.b.2d.b32.trap [%rd9, {%r4, %r2}], {%r4};";
    for instruction in [load, store] {
        assert_eq!(run(&device, surface, instruction, &[[124, 3, 0]], out), None);
        for place in [[128, 0, 0], [-4, 0, 0], [0, 4, 0], [0, -1, 0], [i32::MAX, i32::MIN, 0]] {
            let fault = run(&device, surface, instruction, &[[0, 0, 0], place], out);
            match fault {
                Some(Fault::Trap { place: at }) => assert_eq!(at.thread, [1, 0, 0]),
                other => panic!("{instruction} {place:?}: {other:?}"),
            }
        }
        let fault = run(&device, surface, instruction, &[[2, 0, 0]], out);
        assert!(matches!(fault, Some(Fault::MisalignedAddress { bytes: 4, .. })), "{fault:?}");
        let fault = run(&device, surface - 1, instruction, &[[0, 0, 0]], out);
        assert!(matches!(fault, Some(Fault::InvalidObject { kind: "surface", .. })), "{fault:?}");
        let other = device.surface(Surface(Texels { geometry: Geometry::D3, ..image }));
        let fault = run(&device, other, instruction, &[[0, 0, 0]], out);
        assert!(matches!(fault, Some(Fault::IllegalInstruction { .. })), "{fault:?}");
        let gone = device.surface(Surface(Texels { depth: 1000, geometry: Geometry::D2, ..image }));
        assert!(matches!(
            run(&device, gone, instruction, &[[0, 0, 0]], out),
            Some(Fault::InvalidObject { .. })
        ));
    }
}

#[test]
fn an_access_wider_than_the_row_finds_no_place() {
    let device = Device::default();
    let (image, _) = image(&device, Geometry::D1);
    let narrow = device.surface(Surface(Texels { channels: 1, width: 1, ..image }));
    let load =
        |mode: &str| format!("suld.b.1d.b64.{mode} %rd10, [%rd1, 0]; st.global.u64 [%rd0], %rd10; ret;");
    for (mode, traps) in [("zero", false), ("clamp", true), ("trap", true)] {
        let body = format!("ld.param.u64 %rd1, [in]; mov.u64 %rd10, 9; {}", load(mode));
        let program = device.load(&kernel(&body)).unwrap_or_else(|e| panic!("{e}"));
        let out = device.upload(&[7u64]);
        let run = device.run(&program, "k", shape(1, 1), &[out, narrow]);
        assert_eq!(matches!(run, Err(Fault::Trap { .. })), traps, "{mode}: {run:?}");
        assert_eq!(device.download::<u64>(out, 1)[0], if traps { 7 } else { 0 });
    }
}
