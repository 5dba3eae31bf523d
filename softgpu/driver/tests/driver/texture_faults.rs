//! What kernels meet that read through texture objects where there is nothing to read.

use cuda::api::{array, context, copy, launch, memory, texture};

use crate::arrays::{FLOAT, S32, U8, create};
use crate::support::{code, in_own_process, kernel, ok, param, params, primary};
use crate::textures::{CLAMP, PTX, SURFACE, description, resource, surface, texture};

/// What the context says after `scale` has read one texel through `object`.
fn outcome(mut object: u64) -> u32 {
    let (mut out, mut width, mut height, mut step) = (0, 1i32, 1i32, 1f32);
    ok!(memory::cuMemAlloc_v2(&mut out, 16));
    let (_, scale) = kernel(PTX, "scale");
    let mut values =
        [param(&mut object), param(&mut out), param(&mut width), param(&mut height), param(&mut step)];
    ok!(launch::cuLaunchKernel(scale, 1, 1, 1, 1, 1, 1, 0, 0, params(&mut values), std::ptr::null_mut()));
    code!(context::cuCtxSynchronize())
}

#[test]
fn an_invented_handle_is_an_illegal_address() {
    in_own_process("texture_faults::an_invented_handle_is_an_illegal_address", || {
        primary();
        assert_eq!(outcome(0xdead_beef), 700);
    });
}

#[test]
fn a_destroyed_object_is_an_illegal_address() {
    in_own_process("texture_faults::a_destroyed_object_is_an_illegal_address", || {
        primary();
        let array = create([4, 4, 0], FLOAT, 4, 0);
        let object = texture(&resource(0, &[array]), &description(CLAMP, 0, 0));
        assert_eq!(outcome(object), 0);
        ok!(texture::cuTexObjectDestroy(object));
        assert_eq!(outcome(object), 700);
    });
}

/// What a kernel makes of an object over this part of a megabyte.
fn outcome_over(kind: u64, shape: impl Fn(u64) -> Vec<u64>) -> u32 {
    let mut at = 0;
    primary();
    ok!(memory::cuMemAlloc_v2(&mut at, 1 << 20));
    outcome(texture(&resource(kind, &shape(at)), &description(CLAMP, 0, 0)))
}

const FLOAT4: u64 = FLOAT as u64 | 4 << 32;

#[test]
fn texels_beyond_the_memory_are_an_illegal_address() {
    in_own_process("texture_faults::texels_beyond_the_memory_are_an_illegal_address", || {
        assert_eq!(outcome_over(3, |at| vec![at, FLOAT4, 16, 4096, 256]), 0);
        assert_eq!(outcome_over(3, |at| vec![at, FLOAT4, 131_072, 16_384, 32_768]), 700);
    });
}

#[test]
fn an_image_without_rows_is_an_illegal_address() {
    in_own_process("texture_faults::an_image_without_rows_is_an_illegal_address", || {
        assert_eq!(outcome_over(3, |at| vec![at, FLOAT4, 16, 0, 256]), 700);
    });
}

#[test]
fn elements_beyond_the_memory_are_an_illegal_address() {
    in_own_process("texture_faults::elements_beyond_the_memory_are_an_illegal_address", || {
        primary();
        let (mut at, mut order, mut count) = (0, 0, 1i32);
        ok!(memory::cuMemAlloc_v2(&mut at, 4096));
        ok!(memory::cuMemAlloc_v2(&mut order, 4));
        ok!(copy::cuMemcpyHtoD_v2(order, (&raw const count) as u64, 4));
        let shape = u64::from(S32) | 1 << 32;
        let mut picked = order;
        let mut object = texture(&resource(2, &[at, shape, 64 << 20]), &description(CLAMP, 0, 0));
        let (_, pick) = kernel(PTX, "pick");
        let mut values = [param(&mut object), param(&mut order), param(&mut picked), param(&mut count)];
        let null = std::ptr::null_mut();
        ok!(launch::cuLaunchKernel(pick, 1, 1, 1, 1, 1, 1, 0, 0, params(&mut values), null));
        assert_eq!(code!(context::cuCtxSynchronize()), 700);
    });
}

#[test]
fn a_texture_does_not_outlive_its_array() {
    in_own_process("texture_faults::a_texture_does_not_outlive_its_array", || {
        primary();
        let array = create([4, 4, 0], FLOAT, 4, 0);
        let object = texture(&resource(0, &[array]), &description(CLAMP, 0, 0));
        assert_eq!(outcome(object), 0);
        ok!(array::cuArrayDestroy(array));
        // Memory of the same size, which may get the place of the old one.
        create([4, 4, 0], FLOAT, 4, 0);
        assert_eq!(outcome(object), 700);
    });
}

#[test]
fn a_surface_access_outside_is_a_launch_failure() {
    in_own_process("texture_faults::a_surface_access_outside_is_a_launch_failure", || {
        primary();
        let array = create([4, 4, 0], U8, 4, SURFACE);
        let (mut object, mut width, mut height) = (surface(array), 4i32, 5i32);
        let mut other = object;
        let (_, invert) = kernel(PTX, "invert");
        let mut values = [param(&mut object), param(&mut other), param(&mut width), param(&mut height)];
        let null = std::ptr::null_mut();
        ok!(launch::cuLaunchKernel(invert, 1, 1, 1, 8, 8, 1, 0, 0, params(&mut values), null));
        assert_eq!(code!(context::cuCtxSynchronize()), 719);
    });
}
