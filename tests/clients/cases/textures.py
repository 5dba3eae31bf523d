"""Textures and surfaces. Texels are small integers and weights multiples of 1/8, so that every filter is exact."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

FORMATS = {
    np.dtype(np.float32): driver.CUarray_format.CU_AD_FORMAT_FLOAT,
    np.dtype(np.int32): driver.CUarray_format.CU_AD_FORMAT_SIGNED_INT32,
    np.dtype(np.uint8): driver.CUarray_format.CU_AD_FORMAT_UNSIGNED_INT8,
}
SURFACE_LDST = 2
NORMALIZED = 2
MIB = 1 << 20
MODES = driver.CUaddress_mode

SAMPLE = """
extern "C" __global__ void sample(cudaTextureObject_t image, const float2* at, float* out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = tex2D<float>(image, at[i].x, at[i].y);
}
"""

PICK = """
extern "C" __global__ void pick(cudaTextureObject_t table, const int* indices, int2* out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = tex1Dfetch<int2>(table, indices[i]);
}
"""

SURFACES = """
extern "C" __global__ void draw(cudaSurfaceObject_t to, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height)
        surf2Dwrite(make_uchar4(x, y, x ^ y, 255), to, x * 4, y);
}
extern "C" __global__ void shift(cudaSurfaceObject_t from, uchar4* out, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height) {
        uchar4 near = surf2Dread<uchar4>(from, (x - 3) * 4, y + 2, cudaBoundaryModeClamp);
        uchar4 none = surf2Dread<uchar4>(from, (x - 3) * 4, y + 2, cudaBoundaryModeZero);
        out[y * width + x] = make_uchar4(near.x, near.y, none.x, none.w);
    }
}
"""


def make_array(dtype, width: int, height: int, channels: int = 1, flags: int = 0):
    wanted = driver.CUDA_ARRAY3D_DESCRIPTOR()
    wanted.Width, wanted.Height, wanted.Depth = width, height, 0
    wanted.Format, wanted.NumChannels, wanted.Flags = FORMATS[np.dtype(dtype)], channels, flags
    return ok(driver.cuArray3DCreate(wanted))


def copy_2d(array, host: np.ndarray, into: bool, x_bytes: int = 0, y: int = 0):
    """A rectangle between rows of `host` and the array."""
    copy = driver.CUDA_MEMCPY2D()
    kinds = driver.CUmemorytype
    if into:
        copy.srcMemoryType, copy.srcHost, copy.srcPitch = kinds.CU_MEMORYTYPE_HOST, host.ctypes.data, host.strides[0]
        copy.dstMemoryType, copy.dstArray, copy.dstXInBytes, copy.dstY = kinds.CU_MEMORYTYPE_ARRAY, array, x_bytes, y
    else:
        copy.dstMemoryType, copy.dstHost, copy.dstPitch = kinds.CU_MEMORYTYPE_HOST, host.ctypes.data, host.strides[0]
        copy.srcMemoryType, copy.srcArray, copy.srcXInBytes, copy.srcY = kinds.CU_MEMORYTYPE_ARRAY, array, x_bytes, y
    copy.WidthInBytes, copy.Height = host.nbytes // host.shape[0], host.shape[0]
    ok(driver.cuMemcpy2D(copy))


def array_resource(array):
    resource = driver.CUDA_RESOURCE_DESC()
    resource.resType = driver.CUresourcetype.CU_RESOURCE_TYPE_ARRAY
    resource.res.array.hArray = array
    return resource


def linear_resource(pointer: int, dtype, channels: int, bytes_: int):
    resource = driver.CUDA_RESOURCE_DESC()
    resource.resType = driver.CUresourcetype.CU_RESOURCE_TYPE_LINEAR
    resource.res.linear.devPtr, resource.res.linear.sizeInBytes = driver.CUdeviceptr(pointer), bytes_
    resource.res.linear.format, resource.res.linear.numChannels = FORMATS[np.dtype(dtype)], channels
    return resource


def texture(resource, mode, linear: bool, flags: int = 0):
    wanted = driver.CUDA_TEXTURE_DESC()
    wanted.addressMode, wanted.flags = [mode] * 3, flags
    filters = driver.CUfilter_mode
    wanted.filterMode = filters.CU_TR_FILTER_MODE_LINEAR if linear else filters.CU_TR_FILTER_MODE_POINT
    return ok(driver.cuTexObjectCreate(resource, wanted, None))


def handle(value) -> ctypes.c_uint64:
    return ctypes.c_uint64(int(value))


def index(i: np.ndarray, n: int, mode) -> np.ndarray:
    """The texel that an address mode takes for an index; n for the border."""
    if mode == MODES.CU_TR_ADDRESS_MODE_WRAP:
        return i % n
    if mode == MODES.CU_TR_ADDRESS_MODE_MIRROR:
        return np.where(i // n % 2 == 0, i % n, n - 1 - i % n)
    return np.clip(i, 0, n - 1) if mode == MODES.CU_TR_ADDRESS_MODE_CLAMP else np.where((i < 0) | (i >= n), n, i)


def filtered(image: np.ndarray, x: np.ndarray, y: np.ndarray, mode, linear: bool) -> np.ndarray:
    """The programming guide's table lookups, in units of texels."""
    height, width = image.shape
    bordered = np.pad(image, ((0, 1), (0, 1)))
    if not linear:
        return bordered[index(np.floor(y).astype(int), height, mode), index(np.floor(x).astype(int), width, mode)]
    i, j = (np.floor(c - 0.5).astype(int) for c in (x, y))
    a, b = (np.round((c - 0.5 - k) * 256) / 256 for c, k in ((x, i), (y, j)))
    (i0, i1), (j0, j1) = ([index(k + d, n, mode) for d in (0, 1)] for k, n in ((i, width), (j, height)))
    rows = [(1 - a) * bordered[k, i0] + a * bordered[k, i1] for k in (j0, j1)]
    return ((1 - b) * rows[0] + b * rows[1]).astype(np.float32)


@case
def texture_filtering(gpu: Session):
    """2-D textures over a float array: both filters, every address mode, both kinds of coordinates."""
    width, height, n = 32, 16, 4096
    rng = np.random.default_rng(11)
    image = rng.integers(-100, 100, (height, width)).astype(np.float32)
    array = make_array(np.float32, width, height)
    copy_2d(array, image, into=True)
    sample = gpu.function(SAMPLE, "sample")
    # Eighths of a texel, up to one size outside on each side; exact with either kind of coordinates.
    x = rng.integers(-8 * width, 16 * width, n).astype(np.float32) / 8
    y = rng.integers(-8 * height, 16 * height, n).astype(np.float32) / 8
    out, results = gpu.empty(4 * n), {}
    names = ["CLAMP", "BORDER", "WRAP", "MIRROR"]
    for name, linear, normalized in [(m, l, c) for m in names for l in (False, True) for c in (False, True)]:
        if name in ("WRAP", "MIRROR") and not normalized:
            continue
        mode = getattr(MODES, "CU_TR_ADDRESS_MODE_" + name)
        texture_object = texture(array_resource(array), mode, linear, NORMALIZED if normalized else 0)
        scale = np.array([width, height] if normalized else [1, 1], np.float32)
        at = gpu.upload(np.ascontiguousarray(np.stack([x, y], axis=1) / scale))
        gpu.launch(sample, (n // 128,), (128,), handle(texture_object), at, out, ctypes.c_int(n))
        got = gpu.download(out, n, np.float32)
        label = f"{name} {'linear' if linear else 'point'} {'normalized' if normalized else 'texels'}"
        results[label] = check(got, filtered(image, x, y, mode, linear))
        ok(driver.cuTexObjectDestroy(texture_object))
        ok(driver.cuMemFree(at))
    ok(driver.cuArrayDestroy(array))
    return results


@case
def texture_fetch_from_linear_memory(gpu: Session):
    """tex1Dfetch: unfiltered, by index; zero outside."""
    count, n = 1000, 512
    table = np.random.default_rng(12).integers(-(2**31), 2**31, (count, 2)).astype(np.int32)
    indices = np.random.default_rng(13).integers(-50, count + 50, n).astype(np.int32)
    memory, order, out = gpu.upload(table), gpu.upload(indices), gpu.empty(8 * n)
    resource = linear_resource(memory, np.int32, 2, table.nbytes)
    texture_object = texture(resource, MODES.CU_TR_ADDRESS_MODE_CLAMP, False)
    gpu.launch(gpu.function(PICK, "pick"), (n // 128,), (128,), handle(texture_object), order, out, ctypes.c_int(n))
    inside = (indices >= 0) & (indices < count)
    want = np.where(inside[:, None], table[np.clip(indices, 0, count - 1)], 0)
    results = {"fetched": check(gpu.download(out, (n, 2), np.int32), want)}
    ok(driver.cuTexObjectDestroy(texture_object))
    results["destroyed"] = code(driver.cuTexObjectGetResourceDesc(texture_object))
    return results


@case
def surface_write_then_read(gpu: Session):
    """A kernel draws on an array, a second one reads it around its edges; rectangles of it are copied in and out."""
    width, height = 40, 25
    array = make_array(np.uint8, width, height, channels=4, flags=SURFACE_LDST)
    surface = ok(driver.cuSurfObjectCreate(array_resource(array)))
    module = gpu.module(SURFACES)
    draw, shift = (ok(driver.cuModuleGetFunction(module, name)) for name in (b"draw", b"shift"))
    size = ctypes.c_int(width), ctypes.c_int(height)
    gpu.launch(draw, (5, 4), (8, 8), handle(surface), *size)
    y, x = np.mgrid[:height, :width]
    drawn = np.stack([x, y, x ^ y, np.full_like(x, 255)], axis=-1).astype(np.uint8)
    part = np.zeros((7, 11, 4), np.uint8)
    copy_2d(array, part, into=False, x_bytes=4 * 20, y=15)
    results = {"part": check(part, drawn[15:22, 20:31])}
    patch = np.full((3, 5, 4), 77, np.uint8)
    copy_2d(array, patch, into=True, x_bytes=4 * 8, y=6)
    drawn[6:9, 8:13] = 77
    out = gpu.empty(4 * width * height)
    gpu.launch(shift, (5, 4), (8, 8), handle(surface), out, *size)
    near = drawn[np.clip(y + 2, 0, height - 1), np.clip(x - 3, 0, width - 1)]
    none = np.where(((y + 2 < height) & (x >= 3))[..., None], near, 0)
    want = np.stack([near[..., 0], near[..., 1], none[..., 0], none[..., 3]], axis=-1)
    results["shifted"] = check(gpu.download(out, (height, width, 4), np.uint8), want)
    results["by offset"] = [code(driver.cuMemcpyHtoA(array, offset, patch.ctypes.data, 4)) for offset in (0, 4 * width - 2)]
    ok(driver.cuSurfObjectDestroy(surface))
    ok(driver.cuArrayDestroy(array))
    return results


GATHER = """
extern "C" __global__ void gather(cudaTextureObject_t image, float* out, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height)
        out[y * width + x] = tex2D<float>(image, x + 0.5f, y + 0.5f);
}
"""


def pitched_resource(pointer: int, dtype, channels: int, width: int, height: int, pitch: int):
    resource = driver.CUDA_RESOURCE_DESC()
    resource.resType = driver.CUresourcetype.CU_RESOURCE_TYPE_PITCH2D
    rows = resource.res.pitch2D
    rows.devPtr, rows.format, rows.numChannels = driver.CUdeviceptr(pointer), FORMATS[np.dtype(dtype)], channels
    rows.width, rows.height, rows.pitchInBytes = width, height, pitch
    return resource


@case
def textures_of_pitched_and_pinned_memory(gpu: Session):
    """Textures read what the program writes to their memory later: device memory with a pitch, pinned memory by index."""
    width, height = 40, 24
    image = np.random.default_rng(14).integers(-100, 100, (height, width)).astype(np.float32)
    pointer, pitch = ok(driver.cuMemAllocPitch(4 * width, height, 4))
    pointer = int(pointer)
    resource = pitched_resource(pointer, np.float32, 1, width, height, pitch)
    rows = texture(resource, MODES.CU_TR_ADDRESS_MODE_CLAMP, False)
    copy = driver.CUDA_MEMCPY2D()
    copy.srcMemoryType, copy.srcHost, copy.srcPitch = driver.CUmemorytype.CU_MEMORYTYPE_HOST, image.ctypes.data, 4 * width
    copy.dstMemoryType, copy.dstDevice = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE, driver.CUdeviceptr(pointer)
    copy.dstPitch, copy.WidthInBytes, copy.Height = pitch, 4 * width, height
    ok(driver.cuMemcpy2D(copy))
    out, gather = gpu.empty(image.nbytes), gpu.function(GATHER, "gather")
    gpu.launch(gather, (5, 3), (8, 8), handle(rows), out, ctypes.c_int(width), ctypes.c_int(height))
    results = {"pitched": check(gpu.download(out, image.shape, np.float32), image)}
    n = 512
    host = int(ok(driver.cuMemHostAlloc(8 * n, driver.CU_MEMHOSTALLOC_DEVICEMAP)))
    device = int(ok(driver.cuMemHostGetDevicePointer(host, 0)))
    table = np.frombuffer((ctypes.c_uint8 * (8 * n)).from_address(host), np.int32).reshape(n, 2)
    table[:] = np.arange(2 * n).reshape(n, 2)
    line = texture(linear_resource(device, np.int32, 2, 8 * n), MODES.CU_TR_ADDRESS_MODE_CLAMP, False)
    order, picked = gpu.upload(np.arange(n, dtype=np.int32)[::-1].copy()), gpu.empty(8 * n)
    gpu.launch(gpu.function(PICK, "pick"), (n // 128,), (128,), handle(line), order, picked, ctypes.c_int(n))
    results["pinned"] = check(gpu.download(picked, (n, 2), np.int32), table[::-1].copy())
    wrong = {"unaligned": (pointer + 4, width, height, pitch), "odd pitch": (pointer, width, height, pitch - 4),
             "wide": (pointer, pitch, height, pitch), "nothing": (0, width, height, pitch), "flat": (pointer, width, 0, pitch)}
    for label, (start, *size) in wrong.items():
        bad = pitched_resource(start, np.float32, 1, *size)
        results[label] = code(driver.cuTexObjectCreate(bad, driver.CUDA_TEXTURE_DESC(), None))
    for gone in (rows, line):
        ok(driver.cuTexObjectDestroy(gone))
    return results


@case
def extents_of_textures(gpu: Session):
    """How large a texture may say that its memory is. Nobody looks at how much there is before a kernel reads it."""
    pointer, pitch = ok(driver.cuMemAllocPitch(4 * 40, 24, 4))

    def made(resource) -> str:
        status, texture_object = driver.cuTexObjectCreate(resource, driver.CUDA_TEXTURE_DESC(), None)
        if int(status) == 0:
            ok(driver.cuTexObjectDestroy(texture_object))
        return status.name

    sizes = [(width, 24, pitch) for width in (65536, 131072, 131073, 1 << 20)]
    sizes += [(40, height, pitch) for height in (25, 1024, 16384, 131072)]
    sizes += [(40, 24, step) for step in (1024, 32768, 1 << 22)]
    results = {f"pitched {size}": made(pitched_resource(int(pointer), np.float32, 1, *size)) for size in sizes}
    line = gpu.empty(4096)
    return results | {f"linear {bytes_}": made(linear_resource(line, np.float32, 1, bytes_)) for bytes_ in (4096, 1 << 20, 64 * MIB, 1 << 40)}


@case
def object_queries(gpu: Session):
    """Objects are described as they were made, whatever happened to the program's structures since."""
    array = make_array(np.uint8, 64, 32, channels=4, flags=SURFACE_LDST)
    wanted = driver.CUDA_TEXTURE_DESC()
    wanted.addressMode = [MODES.CU_TR_ADDRESS_MODE_WRAP, MODES.CU_TR_ADDRESS_MODE_MIRROR, MODES.CU_TR_ADDRESS_MODE_CLAMP]
    wanted.filterMode, wanted.flags = driver.CUfilter_mode.CU_TR_FILTER_MODE_LINEAR, NORMALIZED
    wanted.borderColor = [0.25, 0.5, 0.75, 1.0]
    resource = array_resource(array)
    made = ok(driver.cuTexObjectCreate(resource, wanted, None))
    wanted.flags = 0
    found = ok(driver.cuTexObjectGetTextureDesc(made))
    results = {"modes": [mode.name for mode in found.addressMode], "filter": found.filterMode.name, "flags": found.flags,
               "border": list(found.borderColor)}
    held = ok(driver.cuTexObjectGetResourceDesc(made))
    results["resource"] = [held.resType.name, held.flags, int(held.res.array.hArray) == int(array)]
    results["no view"] = code(driver.cuTexObjectGetResourceViewDesc(made))
    memory = gpu.empty(4096)
    line = texture(linear_resource(memory, np.float32, 1, 4096), MODES.CU_TR_ADDRESS_MODE_CLAMP, False)
    held = ok(driver.cuTexObjectGetResourceDesc(line)).res.linear
    results["linear"] = [int(held.devPtr) == memory, held.format.name, held.numChannels, held.sizeInBytes]
    drawn = ok(driver.cuSurfObjectCreate(resource))
    held = ok(driver.cuSurfObjectGetResourceDesc(drawn))
    results["surface"] = [held.resType.name, int(held.res.array.hArray) == int(array)]
    integers = make_array(np.int32, 8, 8)
    results["filtered integers"] = code(driver.cuTexObjectCreate(array_resource(integers), found, None))
    results["no surface of memory"] = code(driver.cuSurfObjectCreate(linear_resource(memory, np.float32, 1, 4096)))
    results["beyond memory"] = code(
        driver.cuTexObjectCreate(linear_resource(memory, np.float32, 1, 1 << 40), driver.CUDA_TEXTURE_DESC(), None))
    for gone in (made, line):
        ok(driver.cuTexObjectDestroy(gone))
    ok(driver.cuSurfObjectDestroy(drawn))
    results["gone"] = [code(driver.cuTexObjectGetTextureDesc(made)), code(driver.cuTexObjectDestroy(made)),
                       code(driver.cuSurfObjectGetResourceDesc(drawn)), code(driver.cuSurfObjectDestroy(drawn))]
    for gone in (array, integers):
        ok(driver.cuArrayDestroy(gone))
    return results
