//! Texture and surface objects under kernels that NVRTC has compiled from `textures.cu`.

use std::ffi::c_void;

use cuda::api::{array, context, copy, launch, memory, texture};

use crate::arrays::{FLOAT, S32, U8, create, deep, host, within};
use crate::support::{INVALID_VALUE, code, kernel, ok, param, params, primary};

pub const PTX: &str = include_str!("textures.ptx");
const NOT_SUPPORTED: u32 = 801;
/// `CUaddress_mode`, `CUfilter_mode` and `CU_TRSF_*`.
pub const CLAMP: u32 = 1;
const BORDER: u32 = 3;
const LINEAR: u32 = 1;
const INTEGER: u32 = 1;
const NORMALIZED: u32 = 2;
pub const SURFACE: u32 = 2;

/// `CUDA_RESOURCE_DESC`.
pub fn resource(kind: u64, words: &[u64]) -> [u64; 18] {
    let mut all = [0; 18];
    all[0] = kind;
    all[1..=words.len()].copy_from_slice(words);
    all
}

/// `CUDA_TEXTURE_DESC`.
pub fn description(address: u32, filter: u32, flags: u32) -> [u32; 26] {
    let mut all = [0; 26];
    all[..5].copy_from_slice(&[address, address, address, filter, flags]);
    all[10..14].copy_from_slice(&[2f32, 3.0, 4.0, 5.0].map(f32::to_bits));
    all
}

pub fn texture(resource: &[u64; 18], description: &[u32; 26]) -> u64 {
    let mut object = 0;
    let (resource, description) = (resource.as_ptr().cast(), description.as_ptr().cast());
    ok!(texture::cuTexObjectCreate(&mut object, resource, description, std::ptr::null()));
    object
}

fn refused(resource: &[u64; 18], description: &[u32; 26]) -> u32 {
    let mut object = 0;
    let (resource, description) = (resource.as_ptr().cast(), description.as_ptr().cast());
    code!(texture::cuTexObjectCreate(&mut object, resource, description, std::ptr::null()))
}

pub fn surface(array: u64) -> u64 {
    let mut object = 0;
    ok!(texture::cuSurfObjectCreate(&mut object, resource(0, &[array]).as_ptr().cast()));
    object
}

fn run(function: u64, grid: [u32; 2], block: [u32; 3], values: &mut [*mut c_void]) {
    let ([x, y], [bx, by, bz]) = (grid, block);
    ok!(launch::cuLaunchKernel(function, x, y, 1, bx, by, bz, 0, 0, params(values), std::ptr::null_mut()));
    ok!(context::cuCtxSynchronize());
}

fn download<T: Copy + Default>(at: u64, count: usize) -> Vec<T> {
    let mut values = vec![T::default(); count];
    ok!(copy::cuMemcpyDtoH_v2(values.as_mut_ptr() as u64, at, size_of::<T>() * count));
    values
}

/// Bilinear interpolation of a `width` by `height` image of four channels at a place in texels, clamped or with a border.
fn bilinear(
    image: &[[f32; 4]],
    width: i64,
    height: i64,
    x: f32,
    y: f32,
    border: Option<[f32; 4]>,
) -> [f32; 4] {
    let split = |x: f32| {
        let x = f64::from(x) - 0.5;
        (x.floor() as i64, ((x - x.floor()) * 256.0).round() / 256.0)
    };
    let ((i, a), (j, b)) = (split(x), split(y));
    let texel = |i: i64, j: i64| match border {
        Some(color) if i < 0 || j < 0 || i >= width || j >= height => color,
        _ => image[(j.clamp(0, height - 1) * width + i.clamp(0, width - 1)) as usize],
    };
    let corners = [texel(i, j), texel(i + 1, j), texel(i, j + 1), texel(i + 1, j + 1)];
    let weights = [(1.0 - a) * (1.0 - b), a * (1.0 - b), (1.0 - a) * b, a * b];
    std::array::from_fn(|channel| {
        weights.iter().zip(corners).map(|(weight, texel)| weight * f64::from(texel[channel])).sum::<f64>()
            as f32
    })
}

fn assert_close(got: &[[f32; 4]], expected: &[[f32; 4]]) {
    assert_eq!(got.len(), expected.len());
    for (k, (got, expected)) in got.iter().flatten().zip(expected.iter().flatten()).enumerate() {
        assert!((got - expected).abs() <= expected.abs().max(1.0) * 1e-6, "{k}: {got} {expected}");
    }
}

#[test]
fn an_image_is_resampled_from_an_array_and_from_pitched_memory() {
    primary();
    let (width, height, mut out_width, mut out_height) = (17i64, 11i64, 40i32, 30i32);
    let image: Vec<[f32; 4]> =
        (0..width * height).map(|k| [k as f32, (k * k % 97) as f32, -(k as f32) / 3.0, 1.0]).collect();
    let array = create([width as u64, height as u64, 0], FLOAT, 4, 0);
    let copy_in = deep(within(array, [0; 3]), host(&image, 272, 11), [272, 11, 1]);
    ok!(copy::cuMemcpy3D_v2(copy_in.as_ptr().cast()));
    let (mut pitched, mut pitch, mut out) = (0, 0usize, 0);
    ok!(memory::cuMemAllocPitch_v2(&mut pitched, &mut pitch, 272, 11, 16));
    for (row, texels) in image.chunks(17).enumerate() {
        ok!(copy::cuMemcpyHtoD_v2(pitched + (row * pitch) as u64, texels.as_ptr() as u64, 272));
    }
    ok!(memory::cuMemAlloc_v2(&mut out, 40 * 30 * 16));
    let (_, scale) = kernel(PTX, "scale");
    let shape = u64::from(FLOAT) | 4 << 32;
    for resource in [resource(0, &[array]), resource(3, &[pitched, shape, 17, 11, pitch as u64])] {
        for (mode, border) in [(CLAMP, None), (BORDER, Some([2f32, 3.0, 4.0, 5.0]))] {
            let (mut object, mut step) = (texture(&resource, &description(mode, LINEAR, 0)), 0.45f32);
            let mut values = [
                param(&mut object),
                param(&mut out),
                param(&mut out_width),
                param(&mut out_height),
                param(&mut step),
            ];
            run(scale, [5, 4], [8, 8, 1], &mut values);
            let expected: Vec<[f32; 4]> = (0..30)
                .flat_map(|y| (0..40).map(move |x| (x as f32 + 0.5, y as f32 + 0.5)))
                .map(|(x, y)| bilinear(&image, width, height, x * step, y * step, border))
                .collect();
            assert_close(&download(out, 40 * 30), &expected);
            ok!(texture::cuTexObjectDestroy(object));
        }
    }
    ok!(array::cuArrayDestroy(array));
    ok!(memory::cuMemFree_v2(pitched));
    ok!(memory::cuMemFree_v2(out));
}

#[test]
fn linear_memory_is_fetched_by_index() {
    primary();
    let table: Vec<i32> = (0..1000).map(|k| k * 7 - 3000).collect();
    let indices: Vec<i32> = (0..256).map(|k| (k * 37) % 1100 - 50).collect();
    let (mut at, mut order, mut out, mut count) = (0, 0, 0, 256i32);
    for (pointer, data) in [(&mut at, &table), (&mut order, &indices)] {
        ok!(memory::cuMemAlloc_v2(pointer, data.len() * 4));
        ok!(copy::cuMemcpyHtoD_v2(*pointer, data.as_ptr() as u64, data.len() * 4));
    }
    ok!(memory::cuMemAlloc_v2(&mut out, 1024));
    let shape = u64::from(S32) | 1 << 32;
    let mut object = texture(&resource(2, &[at, shape, 4000]), &description(CLAMP, LINEAR, 0));
    let (_, pick) = kernel(PTX, "pick");
    let mut values = [param(&mut object), param(&mut order), param(&mut out), param(&mut count)];
    run(pick, [2, 1], [128, 1, 1], &mut values);
    let expected: Vec<i32> = indices
        .iter()
        .map(|i| usize::try_from(*i).ok().and_then(|i| table.get(i)).copied().unwrap_or(0))
        .collect();
    assert_eq!(download::<i32>(out, 256), expected);
    ok!(texture::cuTexObjectDestroy(object));
    for pointer in [at, order, out] {
        ok!(memory::cuMemFree_v2(pointer));
    }
}

#[test]
fn surfaces_are_read_and_written_and_then_sampled() {
    primary();
    let (mut width, mut height) = (30i32, 20i32);
    let image: Vec<[u8; 4]> = (0..600u32).map(|k| k.wrapping_mul(0x0102_0305).to_le_bytes()).collect();
    let (from, to) = (create([30, 20, 0], U8, 4, SURFACE), create([30, 20, 0], U8, 4, SURFACE));
    let copy_in = deep(within(from, [0; 3]), host(&image, 120, 20), [120, 20, 1]);
    ok!(copy::cuMemcpy3D_v2(copy_in.as_ptr().cast()));
    let (mut source, mut target) = (surface(from), surface(to));
    let (_, invert) = kernel(PTX, "invert");
    let mut values = [param(&mut source), param(&mut target), param(&mut width), param(&mut height)];
    run(invert, [4, 3], [8, 8, 1], &mut values);
    let back = vec![[0u8; 4]; 600];
    let copy_out = deep(host(&back, 120, 20), within(to, [0; 3]), [120, 20, 1]);
    ok!(copy::cuMemcpy3D_v2(copy_out.as_ptr().cast()));
    let inverted: Vec<[u8; 4]> = image.iter().map(|[r, g, b, a]| [255 - r, 255 - g, 255 - b, *a]).collect();
    assert_eq!(back, inverted);
    // The written array as a texture: bytes promoted to [0, 1], coordinates normalised.
    let (mut object, mut out, mut step) =
        (texture(&resource(0, &[to]), &description(CLAMP, 0, NORMALIZED)), 0, 1.0f32 / 30.0);
    let mut rows = 10i32;
    ok!(memory::cuMemAlloc_v2(&mut out, 300 * 16));
    let (_, scale) = kernel(PTX, "scale");
    let mut values =
        [param(&mut object), param(&mut out), param(&mut width), param(&mut rows), param(&mut step)];
    run(scale, [4, 2], [8, 8, 1], &mut values);
    let expected: Vec<[f32; 4]> = (0..10)
        .flat_map(|y| (0..30).map(move |x| (x, ((y as f32 + 0.5) / 30.0 * 20.0) as usize)))
        .map(|(x, y)| inverted[y * 30 + x].map(|byte| f32::from(byte) / 255.0))
        .collect();
    assert_close(&download(out, 300), &expected);
    for object in [source, target] {
        ok!(texture::cuSurfObjectDestroy(object));
        assert_eq!(code!(texture::cuSurfObjectDestroy(object)), INVALID_VALUE);
    }
    ok!(texture::cuTexObjectDestroy(object));
    ok!(array::cuArrayDestroy(from));
    ok!(array::cuArrayDestroy(to));
    ok!(memory::cuMemFree_v2(out));
}

#[test]
fn volumes_are_sampled() {
    primary();
    let values: Vec<f32> = (0..60).map(|k| k as f32 * 1.5).collect();
    let array = create([5, 4, 3], FLOAT, 1, 0);
    ok!(copy::cuMemcpy3D_v2(deep(within(array, [0; 3]), host(&values, 20, 4), [20, 4, 3]).as_ptr().cast()));
    let (mut object, mut out) = (texture(&resource(0, &[array]), &description(CLAMP, LINEAR, 0)), 0);
    ok!(memory::cuMemAlloc_v2(&mut out, 240));
    let (_, volume) = kernel(PTX, "volume");
    run(volume, [1, 1], [5, 4, 3], &mut [param(&mut object), param(&mut out)]);
    assert_eq!(download::<f32>(out, 60), values);
    ok!(texture::cuTexObjectDestroy(object));
    ok!(array::cuArrayDestroy(array));
    ok!(memory::cuMemFree_v2(out));
}

#[test]
fn objects_answer_with_what_made_them() {
    primary();
    let array = create([16, 16, 0], U8, 1, SURFACE);
    let (resource, described) = (resource(0, &[array]), description(BORDER, LINEAR, NORMALIZED));
    let object = texture(&resource, &described);
    let (mut found, mut shape, mut view) = ([1u64; 18], [0u32; 26], [9u64; 16]);
    ok!(texture::cuTexObjectGetResourceDesc(found.as_mut_ptr().cast(), object));
    ok!(texture::cuTexObjectGetTextureDesc(shape.as_mut_ptr().cast(), object));
    let mut told = described;
    told[10..14].fill(0);
    assert_eq!((found[1], shape), (array, told), "all but the border's colour");
    ok!(texture::cuTexObjectGetResourceViewDesc(view.as_mut_ptr().cast(), object));
    assert_eq!(view[..14], [0; 14], "there is no view");
    let surface = surface(array);
    found = [1; 18];
    ok!(texture::cuSurfObjectGetResourceDesc(found.as_mut_ptr().cast(), surface));
    assert_eq!(found[1], array);
    assert_eq!(code!(texture::cuTexObjectGetResourceDesc(found.as_mut_ptr().cast(), surface)), INVALID_VALUE);
    ok!(texture::cuTexObjectDestroy(object));
    assert_eq!(code!(texture::cuTexObjectDestroy(object)), INVALID_VALUE);
    assert_eq!(code!(texture::cuTexObjectGetTextureDesc(shape.as_mut_ptr().cast(), object)), INVALID_VALUE);
    ok!(texture::cuSurfObjectDestroy(surface));
    ok!(array::cuArrayDestroy(array));
}

#[test]
fn bad_objects_are_refused() {
    primary();
    let (float4, int1) = (u64::from(FLOAT) | 4 << 32, u64::from(S32) | 1 << 32);
    let (bytes, plain) = (create([16, 16, 0], U8, 1, 0), description(CLAMP, 0, 0));
    let words = create([16, 16, 0], S32, 1, 0);
    let mut at = 0;
    ok!(memory::cuMemAlloc_v2(&mut at, 1 << 20));
    let (good, null) = (resource(0, &[bytes]), std::ptr::null());
    let mut object = 0;
    let create = |out, resource, description, view| {
        code!(texture::cuTexObjectCreate(out, resource, description, view))
    };
    let (good_at, plain_at) = (good.as_ptr().cast(), plain.as_ptr().cast());
    assert_eq!(create(std::ptr::null_mut(), good_at, plain_at, null), INVALID_VALUE);
    assert_eq!(create(&mut object, std::ptr::null(), plain_at, null), INVALID_VALUE);
    assert_eq!(create(&mut object, good_at, std::ptr::null(), null), INVALID_VALUE);
    let view = [0u64; 16];
    assert_eq!(create(&mut object, good_at, plain_at, view.as_ptr().cast()), NOT_SUPPORTED);
    let linear = resource(2, &[at, float4, 4096]);
    assert_eq!(create(&mut object, linear.as_ptr().cast(), plain_at, view.as_ptr().cast()), INVALID_VALUE);

    let flagged = {
        let mut resource = good;
        resource[17] = 1;
        resource
    };
    for (what, resource, description, expected) in [
        ("no such array", resource(0, &[0x1234]), plain, INVALID_VALUE),
        ("mipmapped", resource(1, &[bytes]), plain, NOT_SUPPORTED),
        ("no such type", resource(9, &[bytes]), plain, INVALID_VALUE),
        ("flags", flagged, plain, INVALID_VALUE),
        ("address mode", good, description(4, 0, 0), INVALID_VALUE),
        ("filter mode", good, description(CLAMP, 2, 0), INVALID_VALUE),
        ("unknown flag", good, description(CLAMP, 0, 4), INVALID_VALUE),
        ("sRGB", good, description(CLAMP, 0, 0x10), NOT_SUPPORTED),
        ("filtered integers", good, description(CLAMP, LINEAR, INTEGER), INVALID_VALUE),
        ("filtered words", resource(0, &[words]), description(CLAMP, LINEAR, 0), INVALID_VALUE),
        ("unaligned", resource(2, &[at + 16, float4, 4096]), plain, INVALID_VALUE),
        ("no element", resource(2, &[at, float4, 15]), plain, INVALID_VALUE),
        ("too many elements", resource(2, &[at, int1, (268_435_456 + 1) * 4]), plain, INVALID_VALUE),
        ("no such memory", resource(2, &[0x1000, int1, 64]), plain, INVALID_VALUE),
        ("three channels", resource(2, &[at, u64::from(FLOAT) | 3 << 32, 64]), plain, INVALID_VALUE),
        ("pitch of 48", resource(3, &[at, int1, 8, 8, 48]), plain, INVALID_VALUE),
        ("too wide", resource(3, &[at, int1, 131_073, 8, 64]), plain, INVALID_VALUE),
        ("too long a pitch", resource(3, &[at, int1, 16, 8, 1 << 22]), plain, INVALID_VALUE),
        ("too high", resource(3, &[at, int1, 1, 65_001, 32]), plain, INVALID_VALUE),
    ] {
        assert_eq!(refused(&resource, &description), expected, "{what}");
    }
    let overlapping = texture(&resource(3, &[at, int1, 16, 8, 32]), &plain);
    ok!(texture::cuTexObjectDestroy(overlapping));
    let create_surface = |resource: &[u64; 18]| {
        let mut object = 0;
        code!(texture::cuSurfObjectCreate(&mut object, resource.as_ptr().cast()))
    };
    assert_eq!(create_surface(&good), INVALID_VALUE, "made without CUDA_ARRAY3D_SURFACE_LDST");
    assert_eq!(create_surface(&linear), INVALID_VALUE);
    assert_eq!(code!(texture::cuSurfObjectCreate(std::ptr::null_mut(), good_at)), INVALID_VALUE);
    ok!(array::cuArrayDestroy(bytes));
    assert_eq!(refused(&good, &plain), INVALID_VALUE, "destroyed");
    ok!(array::cuArrayDestroy(words));
    ok!(memory::cuMemFree_v2(at));
}
