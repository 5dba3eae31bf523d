//! What surrounds a texture fetch: queries, faults, and what is refused at load.

use lightos_softgpu_engine::exec::Fault;
use lightos_softgpu_engine::exec::image::{AddressMode, Format, Geometry, Surface, Texels, Texture};

use crate::harness::{Device, HEADER, kernel, shape};
use crate::textures::{sampler, texels};

#[test]
fn queries_answer_the_size() {
    let device = Device::default();
    let (image, _) = texels(&device, Geometry::A2, Format::U16, 2, [7, 5, 3], &mut || 0);
    let texture =
        device.texture(Texture { texels: image, sampler: sampler(AddressMode::Clamp, false, true) });
    let surface = device.surface(Surface(image));
    let query = |handle: u64, name: &str| {
        let body = format!(
            "ld.param.u64 %rd1, [in]; {name}.b32 %r1, [%rd1]; cvt.u64.u32 %rd3, %r1; st.global.u64 [%rd0], %rd3; ret;"
        );
        let program = device.load(&kernel(&body)).unwrap_or_else(|e| panic!("{e}"));
        let out = device.allocate(8);
        device.run(&program, "k", shape(1, 1), &[out, handle]).unwrap();
        device.download::<u64>(out, 1)[0]
    };
    let names = ["width", "height", "array_size", "num_mipmap_levels", "normalized_coords"];
    assert_eq!(names.map(|name| query(texture, &format!("txq.{name}"))), [7, 5, 3, 1, 1]);
    assert_eq!(
        ["width", "height", "array_size"].map(|name| query(surface, &format!("suq.{name}"))),
        [7, 5, 3]
    );
}

fn fault(device: &Device, instruction: &str, handle: u64) -> Option<Fault> {
    let body = format!("ld.param.u64 %rd1, [in]; {instruction} ret;");
    let program = device.load(&kernel(&body)).unwrap_or_else(|e| panic!("{e}"));
    let out = device.allocate(32 * 8);
    device.run(&program, "k", shape(1, 32), &[out, handle]).err()
}

#[test]
fn bad_handles_and_vanished_memory_are_faults() {
    let device = Device::default();
    let (image, _) = texels(&device, Geometry::D2, Format::Float, 1, [4, 4, 1], &mut || 0);
    let whole = Texture { texels: image, sampler: sampler(AddressMode::Clamp, false, false) };
    let texture = device.texture(whole.clone());
    let fetch = "tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f5, %f6}];";
    assert_eq!(fault(&device, fetch, texture), None);
    for handle in [0, 1, u64::MAX, image.start, device.surface(Surface(image))] {
        match fault(&device, fetch, handle) {
            Some(Fault::InvalidObject { kind: "texture", handle: named, place }) => {
                assert_eq!((named, place.thread), (handle, [0; 3]));
            }
            other => panic!("{other:?}"),
        }
    }
    // A description that reaches beyond its memory, and ones that contradict themselves.
    for texels in [
        Texels { height: 4000, ..image },
        Texels { width: 0, ..image },
        Texels { channels: 3, ..image },
        Texels { start: image.start + 1, ..image },
        Texels { slice: !3, depth: 3, ..image },
    ] {
        let broken = device.texture(Texture { texels, ..whole.clone() });
        assert!(matches!(fault(&device, fetch, broken), Some(Fault::InvalidObject { .. })), "{texels:?}");
    }
    let flat = "tex.1d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f5}];";
    assert!(matches!(fault(&device, flat, texture), Some(Fault::IllegalInstruction { .. })));
    device.forget(image.start);
    assert!(matches!(fault(&device, fetch, texture), Some(Fault::InvalidObject { .. })));
}

#[test]
fn what_is_not_carried_is_refused_by_name() {
    for (instruction, word) in [
        ("tex.grad.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f5, %f6}], {%f1, %f1}, {%f1, %f1};", "tex"),
        ("tex.cube.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f5, %f6, %f7, %f7}];", "geometry"),
        ("tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, %rd2, {%f5, %f6}];", "sampler"),
        ("tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}|%p1, [%rd1, {%f5, %f6}];", "residency"),
        ("tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f5, %f6}], {%r1, %r2};", "offset"),
        ("tex.2d.v4.f16.f32 {%h1, %h2, %h3, %h4}, [%rd1, {%f5, %f6}];", "type"),
        ("tld4.r.a2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%r1, %f5, %f6, %f6}];", "geometry"),
        ("txq.channel_order.b32 %r1, [%rd1];", "query"),
        ("istypep.texref %p1, %rd1;", "istypep"),
        ("sust.p.2d.b32.trap [%rd1, {%r1, %r2}], {%r3};", "formatted"),
        ("sured.b.add.2d.u32.trap [%rd1, {%r1, %r2}], %r3;", "sured"),
        (".reg .b64 %x; tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [out, {%f5, %f6}];", "handles in registers"),
    ] {
        let error = Device::default().load(&kernel(&format!("{instruction} ret;"))).unwrap_err();
        assert!(error.unsupported && error.log.contains(word), "{instruction}: {error}");
    }
    let error = Device::default().load(&format!("{HEADER}.global .texref t;")).unwrap_err();
    assert!(error.unsupported && error.log.contains("'t' is a texture"), "{error}");
    for broken in [
        "tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f5}];",
        "tex.2d.v4.f32.f32 {%f1, %f2, %f3}, [%rd1, {%f5, %f6}];",
        "tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%r1, {%f5, %f6}];",
        "tex.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1];",
        "suld.b.2d.b32.trap {%r1, %r2}, [%rd1, {%r1, %r2}];",
        "suld.b.1d.v4.b64.trap {%rd1, %rd2, %rd3, %rd4}, [%rd1, {%r1}];",
        "suld.b.2d.f32.trap {%f1}, [%rd1, {%r1, %r2}];",
    ] {
        let error = Device::default().load(&kernel(&format!("{broken} ret;"))).unwrap_err();
        assert!(!error.unsupported, "{broken}: {error}");
    }
}
