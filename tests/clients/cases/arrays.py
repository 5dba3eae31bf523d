"""Arrays, mipmapped arrays and layers: what they are, copies of every shape and direction, order in streams, errors."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

from .textures import FORMATS, MODES, SURFACE_LDST, array_resource, copy_2d, handle, make_array, texture

HOST = driver.CUmemorytype.CU_MEMORYTYPE_HOST
DEVICE = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
ARRAY = driver.CUmemorytype.CU_MEMORYTYPE_ARRAY
LAYERED = 1
NON_BLOCKING = 1

KERNELS = """
extern "C" __global__ void add_to_surface(cudaSurfaceObject_t to, int width, int height, int more)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height)
        surf2Dwrite(surf2Dread<int>(to, x * 4, y) + more, to, x * 4, y);
}
extern "C" __global__ void slowly_add(cudaSurfaceObject_t to, int width, int height, int more)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    for (int round = 0; round < more; ++round)
        if (x < width && y < height)
            surf2Dwrite(surf2Dread<int>(to, x * 4, y) + 1, to, x * 4, y);
}
extern "C" __global__ void add_to_layers(cudaSurfaceObject_t to, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, layer = blockIdx.z;
    if (x < width && y < height)
        surf2DLayeredwrite(surf2DLayeredread<int>(to, x * 4, y, layer) + 1000 * layer, to, x * 4, y, layer);
}
extern "C" __global__ void gather_layers(cudaTextureObject_t from, int* out, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, layer = blockIdx.z;
    if (x < width && y < height)
        out[(layer * height + y) * width + x] = tex2DLayered<int>(from, x + 0.5f, y + 0.5f, layer);
}
extern "C" __global__ void gather_volume(cudaTextureObject_t from, int* out, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, z = blockIdx.z;
    if (x < width && y < height)
        out[(z * height + y) * width + x] = tex3D<int>(from, x + 0.5f, y + 0.5f, z + 0.5f);
}
"""


def at_array(side, array, x_bytes=0, y=0, z=0):
    return dict(zip(("MemoryType", "Array", "XInBytes", "Y", "Z"), (ARRAY, array, x_bytes, y, z)), side=side)


def at_host(side, host: np.ndarray | int, pitch: int, rows: int = 0):
    pointer = host if isinstance(host, int) else host.ctypes.data
    return {"MemoryType": HOST, "Host": pointer, "Pitch": pitch, "Height": rows, "side": side}


def at_device(side, pointer: int, pitch: int, rows: int = 0, x_bytes: int = 0, y: int = 0):
    return {"MemoryType": DEVICE, "Device": driver.CUdeviceptr(pointer), "Pitch": pitch, "Height": rows,
            "XInBytes": x_bytes, "Y": y, "side": side}


def box(dst: dict, src: dict, width_bytes: int, height: int, depth: int = 1):
    copy = driver.CUDA_MEMCPY3D()
    for end in (dst, src):
        for name, value in end.items():
            if name != "side":
                setattr(copy, end["side"] + name, value)
    copy.WidthInBytes, copy.Height, copy.Depth = width_bytes, height, depth
    return copy


def pinned(shape, dtype) -> np.ndarray:
    count = int(np.prod(shape))
    pointer = int(ok(driver.cuMemHostAlloc(count * np.dtype(dtype).itemsize, 0)))
    bytes_ = (ctypes.c_uint8 * (count * np.dtype(dtype).itemsize)).from_address(pointer)
    return np.frombuffer(bytes_, dtype).reshape(shape)


def surface(array):
    return ok(driver.cuSurfObjectCreate(array_resource(array)))


def read_back(array, shape, dtype) -> np.ndarray:
    got = np.zeros(shape, dtype)
    copy_2d(array, got, into=False)
    return got


@case
def array_rectangles(gpu: Session):
    """Rectangles between an array and pageable, pinned and device memory, and another array; parts of all of them."""
    width, height = 300, 200
    image = np.random.default_rng(21).integers(0, 1 << 30, (height, width)).astype(np.int32)
    first, second = (make_array(np.int32, width, height) for _ in range(2))
    copy_2d(first, image, into=True)
    results = {"pageable": check(read_back(first, image.shape, np.int32), image)}
    # Pinned to a part of the array, whose rows lie apart in both.
    rows = pinned((50, 128), np.int32)
    rows[:] = np.arange(rows.size).reshape(rows.shape)
    part = box(at_array("dst", first, 4 * 100, 70), at_host("src", rows, rows.strides[0]), 4 * 99, 50)
    ok(driver.cuMemcpy3D(part))
    image[70:120, 100:199] = rows[:, :99]
    # From the array to device memory with a pitch, into the middle of it, and back to the second array.
    pointer, pitch = ok(driver.cuMemAllocPitch(4 * width, height, 4))
    size = 4 * 200, 90
    ok(driver.cuMemcpy3D(box(at_device("dst", int(pointer), pitch, x_bytes=80, y=30), at_array("src", first, 400, 60), *size)))
    copy_2d(second, np.zeros_like(image), into=True)
    ok(driver.cuMemcpy3D(box(at_array("dst", second, 40, 9), at_device("src", int(pointer), pitch, x_bytes=80, y=30), *size)))
    want = np.zeros_like(image)
    want[9:99, 10:210] = image[60:150, 100:300]
    results["through device memory"] = check(read_back(second, image.shape, np.int32), want)
    ok(driver.cuMemcpy3D(box(at_array("dst", second, 0, 150), at_array("src", first, 4, 1), 4 * 299, 50)))
    want[150:200, 0:299] = image[1:51, 1:300]
    back = pinned(image.shape, np.int32)
    ok(driver.cuMemcpy3D(box(at_host("dst", back, back.strides[0]), at_array("src", second), 4 * width, height)))
    results["between arrays"] = check(back.copy(), want)
    for array in (first, second):
        ok(driver.cuArrayDestroy(array))
    return results


@case
def large_array_through_pageable_memory(gpu: Session):
    """More than any staging buffer holds, up and down, the rows padded on the host."""
    width, height = 1500, 1300
    image = np.random.default_rng(22).integers(0, 256, (height, width + 36, 4)).astype(np.uint8)
    array = make_array(np.uint8, width, height, channels=4)
    pitch = image.strides[0]
    ok(driver.cuMemcpy3D(box(at_array("dst", array), at_host("src", image, pitch), 4 * width, height)))
    back = np.zeros_like(image)
    ok(driver.cuMemcpy3D(box(at_host("dst", back, pitch), at_array("src", array), 4 * width, height)))
    image[:, width:] = 0
    results = {"whole": check(back, image)}
    strip = np.zeros((height - 1, 7, 4), np.uint8)
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    copy = box(at_host("dst", strip, strip.strides[0]), at_array("src", array, 4 * 900, 1), 28, height - 1)
    ok(driver.cuMemcpy3DAsync(copy, stream))
    ok(driver.cuStreamSynchronize(stream))
    results["strip"] = check(strip, image[1:, 900:907])
    ok(driver.cuArrayDestroy(array))
    return results


@case
def array_copies_by_offset(gpu: Session):
    """cuMemcpyHtoA and its kin on one-dimensional arrays, synchronous and in a stream; on others they reach the first row."""
    n = 5000
    first, second = (make_array(np.int32, n, 0) for _ in range(2))
    values = np.arange(n, dtype=np.int32) * 7
    ok(driver.cuMemcpyHtoA(first, 0, values.ctypes.data, values.nbytes))
    back = np.zeros(1000, np.int32)
    ok(driver.cuMemcpyAtoH(back.ctypes.data, first, 4 * 500, back.nbytes))
    results = {"to the host": check(back, values[500:1500])}
    memory = gpu.empty(4 * n)
    ok(driver.cuMemcpyAtoD(memory, first, 4 * 4000, 4000))
    ok(driver.cuMemcpyDtoA(second, 400, memory, 4 * n - 400))
    ok(driver.cuMemcpyAtoA(second, 0, first, 4 * 60, 4 * 50))
    want = np.zeros(n, np.int32)
    want[100:1100] = values[4000:]
    want[:50] = values[60:110]
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    # In order with each other: what is read is what was written before.
    staged, result = pinned(200, np.int32), pinned(n, np.int32)
    staged[:] = -np.arange(200)
    ok(driver.cuStreamSynchronize(0))
    ok(driver.cuMemcpyHtoAAsync(second, 4 * 700, staged.ctypes.data, staged.nbytes, stream))
    ok(driver.cuMemcpyAtoHAsync(result.ctypes.data, second, 4 * 100, 4 * (n - 100), stream))
    pageable = np.zeros(n, np.int32)
    ok(driver.cuMemcpyAtoHAsync(pageable.ctypes.data, second, 0, pageable.nbytes, stream))
    ok(driver.cuStreamSynchronize(stream))
    want[700:900] = staged
    results["in a stream"] = check(result[: n - 100].copy(), want[100:])
    results["to pageable memory"] = check(pageable, want)
    results["past the end"] = code(driver.cuMemcpyHtoA(first, 4 * n - 4, values.ctypes.data, 8))
    results["no bytes"] = code(driver.cuMemcpyAtoD(memory, first, 0, 0))
    results["null"] = code(driver.cuMemcpyAtoH(0, first, 0, 4))
    # Bytes are copied, wherever elements begin and however many dimensions the arrays have.
    pairs, plane = make_array(np.int32, 16, 0, channels=2), make_array(np.int32, 16, 3)
    rows = np.arange(48, dtype=np.int32).reshape(3, 16)
    copy_2d(plane, rows, into=True)
    results["other elements"] = code(driver.cuMemcpyAtoA(pairs, 0, first, 0, 8))
    ok(driver.cuMemcpyAtoA(pairs, 3, first, 4 * 40 + 2, 61))
    ok(driver.cuMemcpyAtoA(plane, 0, pairs, 3, 61))
    got, want = np.zeros(61, np.uint8), values.view(np.uint8)[162:][:61]
    ok(driver.cuMemcpyAtoH(got.ctypes.data, pairs, 3, got.nbytes))
    results["unaligned"] = check(got, want)
    rows.view(np.uint8)[0, :61] = want
    results["first row"] = check(read_back(plane, rows.shape, np.int32), rows)
    results["past the first row"] = [
        code(driver.cuMemcpyHtoA(plane, offset, values.ctypes.data, bytes_)) for offset, bytes_ in ((0, 65), (60, 8), (64, 64))]
    for array in (first, second, pairs, plane):
        ok(driver.cuArrayDestroy(array))
    return results


@case
def array_work_in_stream_order(gpu: Session):
    """Copies into an array, kernels on it and copies out of it, all in one stream without a wait between them."""
    width, height, rounds = 64, 48, 12
    array = make_array(np.int32, width, height, flags=SURFACE_LDST)
    to, add = surface(array), gpu.function(KERNELS, "add_to_surface")
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    images = [pinned((height, width), np.int32) for _ in range(rounds)]
    outs = [pinned((height, width), np.int32) for _ in range(rounds)]
    rng = np.random.default_rng(23)
    for n, (image, out) in enumerate(zip(images, outs)):
        image[:] = rng.integers(0, 1000, image.shape)
        out[:] = 0
        into = box(at_array("dst", array), at_host("src", image, 4 * width), 4 * width, height)
        ok(driver.cuMemcpy3DAsync(into, stream))
        args = handle(to), ctypes.c_int(width), ctypes.c_int(height), ctypes.c_int(n)
        gpu.launch(add, (8, 6), (8, 8), *args, stream=int(stream))
        ok(driver.cuMemcpy3DAsync(box(at_host("dst", out, 4 * width), at_array("src", array), 4 * width, height), stream))
    ok(driver.cuStreamSynchronize(stream))
    results = {f"round {n}": check(o.copy(), i + n) for n, (i, o) in enumerate(zip(images, outs))}
    # What was read from an array outlives it, and another one takes its place.
    slow = gpu.function(KERNELS, "slowly_add")
    gpu.launch(slow, (8, 6), (8, 8), handle(to), ctypes.c_int(width), ctypes.c_int(height), ctypes.c_int(50), stream=int(stream))
    ok(driver.cuMemcpy3DAsync(box(at_host("dst", outs[0], 4 * width), at_array("src", array), 4 * width, height), stream))
    ok(driver.cuStreamSynchronize(stream))
    ok(driver.cuSurfObjectDestroy(to))
    ok(driver.cuArrayDestroy(array))
    results["before it was destroyed"] = check(outs[0].copy(), images[-1] + rounds - 1 + 50)
    other = make_array(np.int32, width, height, flags=SURFACE_LDST)
    copy_2d(other, np.ascontiguousarray(images[0]), into=True)
    results["another"] = check(read_back(other, images[0].shape, np.int32), images[0])
    ok(driver.cuArrayDestroy(other))
    return results


@case
def layers_and_volumes(gpu: Session):
    """Layered arrays and three-dimensional ones: boxes of them, surfaces with layers, unfiltered textures."""
    width, height, depth = 24, 18, 5
    module = gpu.module(KERNELS)
    kernel = {name: ok(driver.cuModuleGetFunction(module, name.encode()))
              for name in ("add_to_layers", "gather_layers", "gather_volume")}
    volume = np.random.default_rng(24).integers(0, 1000, (depth, height, width)).astype(np.int32)
    size, grid = (ctypes.c_int(width), ctypes.c_int(height)), (3, 3, depth)
    out, results = gpu.empty(volume.nbytes), {}
    for label, flags in (("layers", LAYERED | SURFACE_LDST), ("volume", 0)):
        wanted = driver.CUDA_ARRAY3D_DESCRIPTOR()
        wanted.Width, wanted.Height, wanted.Depth = width, height, depth
        wanted.Format, wanted.NumChannels, wanted.Flags = FORMATS[np.dtype(np.int32)], 1, flags
        array = ok(driver.cuArray3DCreate(wanted))
        whole = 4 * width, height, depth
        ok(driver.cuMemcpy3D(box(at_array("dst", array), at_host("src", volume, 4 * width, height), *whole)))
        # A box from the middle of other memory to the middle of the array.
        patch = np.random.default_rng(25).integers(0, 1000, (4, 9, 10)).astype(np.int32)
        there = at_array("dst", array, 4 * 11, 6, 2)
        ok(driver.cuMemcpy3D(box(there, at_host("src", patch, patch.strides[1], 9), 4 * 10, 7, 3)))
        now = volume.copy()
        now[2:5, 6:13, 11:21] = patch[:3, :7]
        if flags:
            to = surface(array)
            gpu.launch(kernel["add_to_layers"], grid, (8, 8), handle(to), *size)
            now += 1000 * np.arange(depth, dtype=np.int32)[:, None, None]
            gpu.synchronize()
            ok(driver.cuSurfObjectDestroy(to))
        back = np.zeros_like(volume)
        ok(driver.cuMemcpy3D(box(at_host("dst", back, 4 * width, height), at_array("src", array), *whole)))
        results[label + " copied"] = check(back, now)
        read = texture(array_resource(array), MODES.CU_TR_ADDRESS_MODE_CLAMP, False)
        gpu.launch(kernel["gather_" + label], grid, (8, 8), handle(read), out, *size)
        results[label + " fetched"] = check(gpu.download(out, volume.shape, np.int32), now)
        outside = box(at_array("dst", array, z=3), at_host("src", volume, 4 * width, height), *whole)
        results[label + " outside"] = code(driver.cuMemcpy3D(outside))
        ok(driver.cuTexObjectDestroy(read))
        ok(driver.cuArrayDestroy(array))
    return results


@case
def mipmapped_array_levels(gpu: Session):
    """Each level is an array: described, copied, written by kernels, read through a texture of its own."""
    width, height = 64, 40
    wanted = driver.CUDA_ARRAY3D_DESCRIPTOR()
    wanted.Width, wanted.Height, wanted.Depth = width, height, 0
    wanted.Format, wanted.NumChannels, wanted.Flags = FORMATS[np.dtype(np.int32)], 1, SURFACE_LDST
    mipmapped = ok(driver.cuMipmappedArrayCreate(wanted, 4))
    add, results, images = gpu.function(KERNELS, "add_to_surface"), {}, []
    for number in range(4):
        level = ok(driver.cuMipmappedArrayGetLevel(mipmapped, number))
        found = ok(driver.cuArray3DGetDescriptor(level))
        shape = height >> number, width >> number
        assert (found.Height, found.Width, found.Depth) == (*shape, 0)
        image = np.random.default_rng(number).integers(0, 1000, shape).astype(np.int32)
        copy_2d(level, image, into=True)
        to = surface(level)
        gpu.launch(add, (8, 5), (8, 8), handle(to), ctypes.c_int(shape[1]), ctypes.c_int(shape[0]), ctypes.c_int(number))
        gpu.synchronize()
        ok(driver.cuSurfObjectDestroy(to))
        images.append(image + number)
    # Written one after the other, so that levels that share memory would show.
    for number, image in enumerate(images):
        level = ok(driver.cuMipmappedArrayGetLevel(mipmapped, number))
        results[f"level {number}"] = check(read_back(level, image.shape, np.int32), image)
    results["no such level"] = code(driver.cuMipmappedArrayGetLevel(mipmapped, 4))
    # A level of one array is copied to one of another.
    other = make_array(np.int32, width // 2, height // 2)
    level = ok(driver.cuMipmappedArrayGetLevel(mipmapped, 1))
    ok(driver.cuMemcpy3D(box(at_array("dst", other), at_array("src", level), 2 * width, height // 2)))
    results["copied"] = check(read_back(other, images[1].shape, np.int32), images[1])
    ok(driver.cuArrayDestroy(other))
    ok(driver.cuMipmappedArrayDestroy(mipmapped))
    return results


@case
def array_queries_and_errors(gpu: Session):
    """Descriptors come back as they went in; wrong ones, and boxes that leave their arrays, are errors at the call."""
    results = {}
    for label, (width, height, depth, flags) in {
        "line": (100, 0, 0, 0), "plane": (100, 50, 0, 0), "drawn": (100, 50, 0, SURFACE_LDST), "volume": (100, 50, 7, 0),
        "layers": (100, 50, 7, LAYERED), "lines": (100, 0, 7, LAYERED), "empty": (0, 50, 0, 0), "no layer": (100, 50, 0, LAYERED),
        "too wide": (1 << 20, 1, 0, 0), "three channels": (100, 50, 0, 0),
    }.items():
        wanted = driver.CUDA_ARRAY3D_DESCRIPTOR()
        wanted.Width, wanted.Height, wanted.Depth, wanted.Flags = width, height, depth, flags
        wanted.Format, wanted.NumChannels = FORMATS[np.dtype(np.float32)], 3 if label == "three channels" else 4
        made = driver.cuArray3DCreate(wanted)
        results[label] = code(made)
        if int(made[0]) == 0:
            found = ok(driver.cuArray3DGetDescriptor(made[1]))
            results[label + " is"] = [found.Width, found.Height, found.Depth, found.Format.name, found.NumChannels, found.Flags]
            ok(driver.cuArrayDestroy(made[1]))
    array = make_array(np.int32, 40, 30)
    host, memory = np.zeros((30, 40), np.int32), gpu.empty(4800)
    whole = at_host("src", host, 160)
    results["to the right"] = code(driver.cuMemcpy3D(box(at_array("dst", array, 4), whole, 160, 30)))
    results["below"] = code(driver.cuMemcpy3D(box(at_array("dst", array, 0, 1), whole, 160, 30)))
    results["behind"] = code(driver.cuMemcpy3D(box(at_array("dst", array, 0, 0, 1), whole, 160, 30)))
    results["beyond memory"] = code(driver.cuMemcpy3D(box(at_array("dst", array), at_device("src", memory, 200), 160, 30)))
    results["short pitch"] = code(driver.cuMemcpy3D(box(at_array("dst", array), at_host("src", host, 100), 160, 30)))
    results["null"] = code(driver.cuMemcpy3D(box(at_array("dst", array), at_host("src", 0, 160), 160, 30)))
    results["nothing"] = code(driver.cuMemcpy3D(box(at_array("dst", array), whole, 0, 30)))
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    results["in a stream"] = code(driver.cuMemcpy3DAsync(box(at_array("dst", array, 4), whole, 160, 30), stream))
    results["surface"] = code(driver.cuSurfObjectCreate(array_resource(array)))
    # An error of a call disturbs nothing.
    host[:] = np.arange(1200).reshape(30, 40)
    copy_2d(array, host, into=True)
    results["still there"] = check(read_back(array, host.shape, np.int32), host)
    ok(driver.cuArrayDestroy(array))
    return results
