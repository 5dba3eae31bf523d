//! Arrays: descriptors, errors, and copies of every shape into and out of them.

use cuda::api::{array, capture, context, copy, graph_exec, memory, stream};

use crate::support::{INVALID_HANDLE, INVALID_VALUE, code, in_own_process, ok, primary};

const NOT_SUPPORTED: u32 = 801;
pub const U8: u32 = 1;
const U16: u32 = 2;
pub const S32: u32 = 10;
const HALF: u32 = 16;
pub const FLOAT: u32 = 32;
const HOST: u64 = 1;
const DEVICE: u64 = 2;
const ARRAY: u64 = 3;

/// `CUDA_ARRAY3D_DESCRIPTOR`: width, height, depth, format with channels, flags.
pub fn descriptor(size: [u64; 3], format: u32, channels: u32, flags: u32) -> [u64; 5] {
    [size[0], size[1], size[2], u64::from(format) | u64::from(channels) << 32, u64::from(flags)]
}

/// The descriptor that the driver gives for an array; what pads it is not its business.
fn described(array: u64) -> [u64; 5] {
    let mut found = [0u64; 5];
    ok!(array::cuArray3DGetDescriptor_v2(found.as_mut_ptr().cast(), array));
    found[4] &= u64::from(u32::MAX);
    found
}

pub fn create(size: [u64; 3], format: u32, channels: u32, flags: u32) -> u64 {
    let mut handle = 0;
    ok!(array::cuArray3DCreate_v2(&mut handle, descriptor(size, format, channels, flags).as_ptr().cast()));
    handle
}

fn refused(size: [u64; 3], format: u32, channels: u32, flags: u32) -> u32 {
    let mut handle = 0;
    code!(array::cuArray3DCreate_v2(&mut handle, descriptor(size, format, channels, flags).as_ptr().cast()))
}

/// One side of a copy: type, address or handle, first byte, row and slice, pitch and rows per slice.
#[derive(Clone, Copy)]
pub struct Side {
    kind: u64,
    at: u64,
    first: [u64; 3],
    pitch: u64,
    rows: u64,
}

pub fn host<T>(data: &[T], pitch: u64, rows: u64) -> Side {
    Side { kind: HOST, at: data.as_ptr() as u64, first: [0; 3], pitch, rows }
}

pub fn device(at: u64, pitch: u64, rows: u64) -> Side {
    Side { kind: DEVICE, at, first: [0; 3], pitch, rows }
}

pub fn within(at: u64, first: [u64; 3]) -> Side {
    Side { kind: ARRAY, at, first, pitch: 0, rows: 0 }
}

impl Side {
    fn addresses(&self) -> [u64; 3] {
        [HOST, DEVICE, ARRAY].map(|kind| if kind == self.kind { self.at } else { 0 })
    }
}

/// `CUDA_MEMCPY2D`.
fn flat(dst: Side, src: Side, size: [u64; 2]) -> [u64; 16] {
    let words = |side: Side| {
        let [host, device, array] = side.addresses();
        [side.first[0], side.first[1], side.kind, host, device, array, side.pitch]
    };
    [&words(src)[..], &words(dst)[..], &size[..]].concat().try_into().unwrap()
}

/// `CUDA_MEMCPY3D`.
pub fn deep(dst: Side, src: Side, size: [u64; 3]) -> [u64; 25] {
    let words = |side: Side| {
        let [host, device, array] = side.addresses();
        [&side.first[..], &[0, side.kind, host, device, array, 0, side.pitch, side.rows][..]].concat()
    };
    [&words(src)[..], &words(dst)[..], &size[..]].concat().try_into().unwrap()
}

#[test]
fn arrays_are_what_their_descriptors_say() {
    primary();
    let (mut plain, mut found, mut deep) = (0, [0u64; 3], [0u64; 5]);
    let wanted = [100u64, 40, u64::from(FLOAT) | 4 << 32];
    ok!(array::cuArrayCreate_v2(&mut plain, wanted.as_ptr().cast()));
    ok!(array::cuArrayGetDescriptor_v2(found.as_mut_ptr().cast(), plain));
    assert_eq!(found, wanted);
    assert_eq!(described(plain), descriptor([100, 40, 0], FLOAT, 4, 0));
    for (size, flags) in
        [([9, 0, 0], 0), ([9, 5, 0], 2), ([9, 5, 0], 8), ([9, 5, 3], 0), ([9, 0, 3], 1), ([9, 5, 3], 1 | 2)]
    {
        let handle = create(size, U16, 2, flags);
        assert_eq!(described(handle), descriptor(size, U16, 2, flags));
        ok!(array::cuArrayDestroy(handle));
        assert_eq!(code!(array::cuArrayDestroy(handle)), INVALID_HANDLE);
        assert_eq!(code!(array::cuArray3DGetDescriptor_v2(deep.as_mut_ptr().cast(), handle)), INVALID_HANDLE);
    }
    let mut needs = [0u64; 4];
    assert_eq!(
        code!(array::cuArrayGetMemoryRequirements(needs.as_mut_ptr().cast(), plain, 0)),
        INVALID_VALUE
    );
    assert_eq!(code!(array::cuArrayGetMemoryRequirements(needs.as_mut_ptr().cast(), 5, 0)), INVALID_HANDLE);
    ok!(array::cuArrayDestroy(plain));
}

#[test]
fn bad_descriptors_are_refused() {
    primary();
    let (mut handle, good) = (0, [8u64, 8, u64::from(FLOAT) | 1 << 32]);
    assert_eq!(code!(array::cuArrayCreate_v2(std::ptr::null_mut(), good.as_ptr().cast())), INVALID_VALUE);
    assert_eq!(code!(array::cuArrayCreate_v2(&mut handle, std::ptr::null())), INVALID_VALUE);
    for (size, format, channels, flags) in [
        ([0, 8, 0], FLOAT, 1, 0),
        ([8, 8, 0], 0, 1, 0),
        ([8, 8, 0], 7, 1, 0),
        ([8, 8, 0], FLOAT, 0, 0),
        ([8, 8, 0], FLOAT, 3, 0),
        ([8, 0, 8], FLOAT, 1, 0),
        ([8, 8, 0], FLOAT, 1, 1),
        ([8, 8, 8], FLOAT, 1, 8),
        ([8, 8, 0], FLOAT, 1, 0x200),
        ([131_073, 0, 0], U8, 1, 0),
        ([32_769, 0, 0], U8, 1, 2),
        ([8, 65_537, 0], U8, 1, 0),
        ([8, 8, 2049], U8, 1, 1),
        ([16_385, 5, 5], U8, 1, 2),
        ([u64::MAX, u64::MAX, u64::MAX], U8, 1, 0),
    ] {
        assert_eq!(
            refused(size, format, channels, flags),
            INVALID_VALUE,
            "{size:?} {format} {channels} {flags}"
        );
    }
    for (format, flags) in [(0xb0, 0), (0xc0, 0), (FLOAT, 4), (FLOAT, 0x10), (FLOAT, 0x40), (FLOAT, 0x80)] {
        assert_eq!(refused([8, 8, 0], format, 1, flags), NOT_SUPPORTED, "{format} {flags}");
    }
    assert_eq!(refused([131_072, 65_536, 0], FLOAT, 4, 0), 2, "more than the device has");
}

#[test]
fn memory_comes_back_when_an_array_goes() {
    in_own_process("arrays::memory_comes_back_when_an_array_goes", || {
        primary();
        let (mut before, mut during, mut after, mut total) = (0, 0, 0, 0);
        ok!(memory::cuMemGetInfo_v2(&mut before, &mut total));
        let handle = create([1024, 1024, 16], FLOAT, 4, 0);
        ok!(memory::cuMemGetInfo_v2(&mut during, &mut total));
        assert!(before - during >= 256 << 20);
        ok!(array::cuArrayDestroy(handle));
        ok!(memory::cuMemGetInfo_v2(&mut after, &mut total));
        assert_eq!(after, before);
        let mut context = 0;
        ok!(context::cuCtxCreate_v2(&mut context, 0, 0));
        let lost = create([1024, 1024, 0], FLOAT, 4, 0);
        ok!(context::cuCtxDestroy_v2(context));
        ok!(memory::cuMemGetInfo_v2(&mut after, &mut total));
        assert_eq!(after, before);
        assert_eq!(code!(array::cuArrayDestroy(lost)), INVALID_HANDLE);
    });
}

#[test]
fn rectangles_go_in_and_out() {
    primary();
    let handle = create([20, 10, 0], U16, 2, 0);
    let image: Vec<u32> = (0..200u32).map(|k| k * 0x0001_0203).collect();
    ok!(copy::cuMemcpy2D_v2(flat(within(handle, [0; 3]), host(&image, 80, 10), [80, 10]).as_ptr().cast()));
    // A 7 by 4 rectangle from (5, 3), out to device memory with a pitch of its own, and from there to the host.
    let mut at = 0;
    ok!(memory::cuMemAlloc_v2(&mut at, 4096));
    let part = within(handle, [20, 3, 0]);
    ok!(copy::cuMemcpy2DUnaligned_v2(flat(device(at, 512, 4), part, [28, 4]).as_ptr().cast()));
    let back = vec![0u32; 28];
    ok!(copy::cuMemcpy2D_v2(flat(host(&back, 28, 4), device(at, 512, 4), [28, 4]).as_ptr().cast()));
    let expected: Vec<u32> =
        (3..8).take(4).flat_map(|y| (5..12).map(move |x| (y * 20 + x) * 0x0001_0203)).collect();
    assert_eq!(back, expected);
    // Another rectangle in, in stream order; everything else stays.
    let patch: Vec<u32> = (0..6).map(|k| 0xffff_0000 + k).collect();
    let mut queue = 0;
    ok!(stream::cuStreamCreate(&mut queue, 1));
    let copy_in = flat(within(handle, [68, 8, 0]), host(&patch, 12, 2), [12, 2]);
    ok!(copy::cuMemcpy2DAsync_v2(copy_in.as_ptr().cast(), queue));
    let whole = vec![0u32; 200];
    let copy_out = flat(host(&whole, 80, 10), within(handle, [0; 3]), [80, 10]);
    ok!(copy::cuMemcpy2DAsync_v2(copy_out.as_ptr().cast(), queue));
    ok!(stream::cuStreamSynchronize(queue));
    let mut expected = image.clone();
    for (k, value) in patch.iter().enumerate() {
        expected[(8 + k / 3) * 20 + 17 + k % 3] = *value;
    }
    assert_eq!(whole, expected);
    // From array to array.
    let other = create([20, 10, 0], HALF, 2, 0);
    let moved = flat(within(other, [8, 1, 0]), within(handle, [68, 8, 0]), [12, 2]);
    ok!(copy::cuMemcpy2D_v2(moved.as_ptr().cast()));
    let found = vec![0u32; 6];
    ok!(copy::cuMemcpy2D_v2(flat(host(&found, 12, 2), within(other, [8, 1, 0]), [12, 2]).as_ptr().cast()));
    assert_eq!(found, patch);
    for (first, size) in [
        ([0, 0, 0], [84, 1]),
        ([4, 0, 0], [80, 1]),
        ([0, 9, 0], [80, 2]),
        ([78, 0, 0], [4, 1]),
        ([u64::MAX - 3, 0, 0], [8, 1]),
        ([0, u64::MAX, 0], [4, 1]),
    ] {
        let bad = flat(host(&whole, 84, 4), within(handle, first), size);
        assert_eq!(code!(copy::cuMemcpy2D_v2(bad.as_ptr().cast())), INVALID_VALUE, "{first:?} {size:?}");
    }
    ok!(array::cuArrayDestroy(other));
    let gone = flat(host(&whole, 80, 1), within(other, [0; 3]), [4, 1]);
    assert_eq!(code!(copy::cuMemcpy2D_v2(gone.as_ptr().cast())), INVALID_VALUE);
    ok!(array::cuArrayDestroy(handle));
    ok!(memory::cuMemFree_v2(at));
    ok!(stream::cuStreamDestroy_v2(queue));
}

#[test]
fn boxes_and_layers_go_in_and_out() {
    primary();
    for (size, flags) in [([6u64, 5, 4], 0), ([6, 5, 4], 1), ([6, 0, 4], 1)] {
        let rows = size[1].max(1);
        let handle = create(size, S32, 1, flags);
        let values: Vec<i32> = (0..(6 * rows * 4) as i32).collect();
        let into = deep(within(handle, [0; 3]), host(&values, 24, rows), [24, rows, 4]);
        ok!(copy::cuMemcpy3D_v2(into.as_ptr().cast()));
        let take = rows.min(2);
        let part = vec![0i32; (3 * take * 2) as usize];
        let out = deep(host(&part, 12, take), within(handle, [8, rows - take, 2]), [12, take, 2]);
        ok!(copy::cuMemcpy3DAsync_v2(out.as_ptr().cast(), 0));
        ok!(context::cuCtxSynchronize());
        let expected: Vec<i32> = (2..4)
            .flat_map(|z| (rows - take..rows).map(move |y| (z, y)))
            .flat_map(|(z, y)| (2..5).map(move |x| ((z * rows + y) * 6 + x) as i32))
            .collect();
        assert_eq!(part, expected, "{size:?} {flags}");
        let bad = deep(host(&part, 12, take), within(handle, [8, 0, 3]), [12, 1, 2]);
        assert_eq!(code!(copy::cuMemcpy3D_v2(bad.as_ptr().cast())), INVALID_VALUE);
        ok!(array::cuArrayDestroy(handle));
    }
}

#[test]
fn arrays_are_copied_by_offset() {
    primary();
    let (line, other, mut at) = (create([50, 0, 0], S32, 1, 0), create([50, 0, 0], FLOAT, 1, 0), 0);
    let values: Vec<i32> = (100..150).collect();
    let back = vec![0i32; 50];
    let (from, to) = (values.as_ptr() as u64, back.as_ptr() as u64);
    ok!(memory::cuMemAlloc_v2(&mut at, 400));
    ok!(array::cuMemcpyHtoA_v2(line, 0, from, 200));
    ok!(array::cuMemcpyAtoD_v2(at, line, 40, 80));
    ok!(array::cuMemcpyDtoA_v2(line, 120, at, 80));
    ok!(array::cuMemcpyAtoA_v2(other, 0, line, 0, 200));
    ok!(array::cuMemcpyHtoAAsync_v2(other, 196, from, 4, 0));
    ok!(array::cuMemcpyAtoHAsync_v2(to, other, 0, 200, 0));
    ok!(context::cuCtxSynchronize());
    let mut expected = values.clone();
    expected.copy_within(10..30, 30);
    expected[49] = 100;
    assert_eq!(back, expected);
    ok!(array::cuMemcpyAtoH_v2(to, line, 196, 4));
    assert_eq!(back[0], 129);
    assert_eq!(code!(array::cuMemcpyAtoH_v2(to, line, 196, 8)), INVALID_VALUE);
    assert_eq!(code!(array::cuMemcpyAtoD_v2(0x10, line, 0, 4)), INVALID_VALUE);
    for handle in [line, other] {
        ok!(array::cuArrayDestroy(handle));
    }
    assert_eq!(code!(array::cuMemcpyAtoH_v2(to, line, 0, 4)), INVALID_VALUE);
    ok!(memory::cuMemFree_v2(at));
}

#[test]
fn copies_by_offset_move_bytes_of_the_first_row() {
    primary();
    let (pairs, bytes) = (create([4, 3, 0], S32, 2, 0), create([32, 2, 2], U8, 1, 0));
    let (values, back): (Vec<u8>, _) = ((1..=96).collect(), [0u8; 96]);
    let (from, to) = (values.as_ptr() as u64, back.as_ptr() as u64);
    let whole = flat(within(pairs, [0; 3]), host(&values, 32, 3), [32, 3]);
    ok!(copy::cuMemcpy2D_v2(whole.as_ptr().cast()));
    // Inside of elements, and to an array of others.
    ok!(array::cuMemcpyHtoA_v2(pairs, 3, from, 6));
    ok!(array::cuMemcpyAtoA_v2(bytes, 1, pairs, 2, 30));
    ok!(array::cuMemcpyAtoH_v2(to, bytes, 1, 30));
    assert_eq!(std::hint::black_box(&back)[..30], [&[3, 1, 2, 3, 4, 5, 6], &values[9..32]].concat());
    let rest = flat(host(&back, 32, 2), within(pairs, [0, 1, 0]), [32, 2]);
    ok!(copy::cuMemcpy2D_v2(rest.as_ptr().cast()));
    assert_eq!(std::hint::black_box(&back)[..64], values[32..], "other rows stay");
    for (offset, count) in [(0, 33), (31, 2), (32, 1), (64, 8), (usize::MAX, 2)] {
        assert_eq!(code!(array::cuMemcpyHtoA_v2(pairs, offset, from, count)), INVALID_VALUE);
        assert_eq!(code!(array::cuMemcpyAtoHAsync_v2(to, bytes, offset, count, 0)), INVALID_VALUE);
    }
    for handle in [pairs, bytes] {
        ok!(array::cuArrayDestroy(handle));
    }
}

#[test]
fn captured_copies_of_arrays_replay() {
    primary();
    let (line, mut queue, mut graph, mut exec) = (create([8, 0, 0], S32, 1, 0), 0, 0, 0);
    let (mut values, back) = ([1i32, 2, 3, 4, 5, 6, 7, 8], [0i32; 8]);
    ok!(stream::cuStreamCreate(&mut queue, 1));
    ok!(capture::cuStreamBeginCapture_v2(queue, 2));
    ok!(array::cuMemcpyHtoAAsync_v2(line, 8, values.as_ptr() as u64, 24, queue));
    ok!(array::cuMemcpyAtoHAsync_v2(back.as_ptr() as u64, line, 8, 24, queue));
    let mut made = 0;
    assert_eq!(
        code!(array::cuArrayCreate_v2(&mut made, [8u64, 0, 1 << 32 | 10].as_ptr().cast())),
        0,
        "the capture is relaxed"
    );
    ok!(capture::cuStreamEndCapture(queue, &mut graph));
    ok!(graph_exec::cuGraphInstantiateWithFlags(&mut exec, graph, 0));
    assert_eq!(back, [0; 8], "capture runs nothing");
    for round in [10, 100] {
        values.iter_mut().for_each(|value| *value += round);
        ok!(graph_exec::cuGraphLaunch(exec, queue));
        ok!(stream::cuStreamSynchronize(queue));
        assert_eq!(std::hint::black_box(&back)[..6], values[..6]);
    }
    ok!(array::cuArrayDestroy(line));
    assert_eq!(code!(graph_exec::cuGraphLaunch(exec, queue)), INVALID_VALUE, "its array is gone");
    ok!(array::cuArrayDestroy(made));
}

#[test]
fn levels_of_a_mipmapped_array_are_arrays() {
    primary();
    let (mut mipmapped, mut level) = (0, 0);
    let first = descriptor([20, 12, 0], S32, 1, 2);
    ok!(array::cuMipmappedArrayCreate(&mut mipmapped, first.as_ptr().cast(), 99));
    for (number, size) in [[20, 12, 0], [10, 6, 0], [5, 3, 0], [2, 1, 0], [1, 1, 0]].into_iter().enumerate() {
        ok!(array::cuMipmappedArrayGetLevel(&mut level, mipmapped, number as u32));
        assert_eq!(described(level), descriptor(size, S32, 1, 2));
    }
    assert_eq!(code!(array::cuMipmappedArrayGetLevel(&mut level, mipmapped, 5)), INVALID_VALUE, "clamped");
    assert_eq!(code!(array::cuArrayDestroy(level)), INVALID_HANDLE, "a level ends with the whole");
    ok!(array::cuMipmappedArrayGetLevel(&mut level, mipmapped, 1));
    let (values, back) = ((0..60).collect::<Vec<i32>>(), [0i32; 60]);
    let whole = within(level, [0; 3]);
    ok!(copy::cuMemcpy2D_v2(flat(whole, host(&values, 40, 6), [40, 6]).as_ptr().cast()));
    ok!(copy::cuMemcpy2D_v2(flat(host(&back, 40, 6), whole, [40, 6]).as_ptr().cast()));
    assert_eq!(std::hint::black_box(&back)[..], values[..]);
    let mut layered = 0;
    ok!(array::cuMipmappedArrayCreate(&mut layered, descriptor([4, 4, 3], U8, 4, 1).as_ptr().cast(), 2));
    ok!(array::cuMipmappedArrayGetLevel(&mut level, layered, 1));
    assert_eq!(described(level), descriptor([2, 2, 3], U8, 4, 1), "layers are not halved");
    for handle in [mipmapped, layered] {
        ok!(array::cuMipmappedArrayDestroy(handle));
        assert_eq!(code!(array::cuMipmappedArrayDestroy(handle)), INVALID_HANDLE);
    }
    assert_eq!(code!(array::cuMipmappedArrayGetLevel(&mut level, mipmapped, 0)), INVALID_HANDLE);
}
