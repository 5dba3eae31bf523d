"""Copies and fills in the forms that the CUDA runtime translates its calls to, and what it asks about pointers."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
KINDS = driver.CUmemorytype


def pinned(count: int, dtype=np.int32, flags: int = 0):
    bytes_ = count * np.dtype(dtype).itemsize
    host = int(ok(driver.cuMemHostAlloc(bytes_, flags)))
    return host, np.frombuffer((ctypes.c_char * bytes_).from_address(host), dtype)


@case
def unified_copies(gpu: Session):
    """cuMemcpyAsync, which finds the direction itself, with pinned, pageable and device memory at both ends."""
    n = 50_000
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    first, first_view = pinned(n)
    second, second_view = pinned(n)
    pageable, a, b = np.zeros(n, np.int32), gpu.empty(4 * n), gpu.empty(4 * n)
    first_view[:] = np.arange(n)
    gpu.synchronize()
    ok(driver.cuMemcpyAsync(a, first, 4 * n, stream))
    ok(driver.cuMemcpyAsync(b, a, 4 * n, stream))
    ok(driver.cuMemcpyAsync(second, b, 4 * n, stream))
    ok(driver.cuMemcpyAsync(pageable.ctypes.data, b, 4 * n, stream))
    ok(driver.cuStreamSynchronize(stream))
    results = {"pinned": check(second_view.copy(), first_view), "pageable": check(pageable.copy(), first_view)}
    pageable[:] = pageable[::-1]
    ok(driver.cuMemcpyAsync(a, pageable.ctypes.data, 4 * n, stream))
    # Pageable memory belongs to the program again as soon as the call has returned.
    pageable[:] = -1
    ok(driver.cuMemcpyAsync(first, a, 4 * n, stream))
    ok(driver.cuMemcpyAsync(second + 400, first + 800, 4000, stream))
    ok(driver.cuStreamSynchronize(stream))
    results["back"] = check(first_view.copy(), np.arange(n, dtype=np.int32)[::-1])
    results["host to host"] = check(second_view[100:1100].copy(), first_view[200:1200])
    part = np.zeros(100, np.int32)
    ok(driver.cuMemcpy(part.ctypes.data, a + 400, 400))
    results["offset"] = check(part, first_view[100:200])
    for host in (first, second):
        ok(driver.cuMemFreeHost(host))
    return results


@case
def registered_host_memory(gpu: Session):
    """The program's own pages, registered: PyTorch's and XLA's other way to pinned memory."""
    n = 1 << 16
    buffer = np.zeros(n + 2048, np.int32)
    offset = (-buffer.ctypes.data % 4096) // 4
    view = buffer[offset:offset + n]
    portable = driver.CU_MEMHOSTREGISTER_PORTABLE
    results = {"register": code(driver.cuMemHostRegister(view.ctypes.data, view.nbytes, portable)),
               "twice": code(driver.cuMemHostRegister(view.ctypes.data, view.nbytes, portable))}
    stream, device = ok(driver.cuStreamCreate(NON_BLOCKING)), gpu.empty(view.nbytes)
    gpu.synchronize()
    view[:] = np.arange(n)
    ok(driver.cuMemcpyHtoDAsync(device, view.ctypes.data, view.nbytes, stream))
    ok(driver.cuStreamSynchronize(stream))
    view[:] = 0
    ok(driver.cuMemcpyDtoHAsync(view.ctypes.data, device, view.nbytes, stream))
    ok(driver.cuStreamSynchronize(stream))
    results["data"] = check(view.copy(), np.arange(n, dtype=np.int32))
    results["unregister"] = code(driver.cuMemHostUnregister(view.ctypes.data))
    results["unregister twice"] = code(driver.cuMemHostUnregister(view.ctypes.data))
    return results


@case
def registered_memory_in_kernels(gpu: Session):
    """A kernel reads and writes registered pages under the address that the driver gives for them."""
    function = gpu.function('extern "C" __global__ void twice(int* p) { p[threadIdx.x] *= 2; }', "twice")
    buffer = np.zeros(4096, np.int32)
    offset = (-buffer.ctypes.data % 4096) // 4
    view = buffer[offset:offset + 1024]
    view[:] = np.arange(1024)
    ok(driver.cuMemHostRegister(view.ctypes.data, view.nbytes, driver.CU_MEMHOSTREGISTER_DEVICEMAP))
    device = int(ok(driver.cuMemHostGetDevicePointer(view.ctypes.data, 0)))
    gpu.launch(function, (1,), (256,), device)
    gpu.synchronize()
    want = np.arange(1024, dtype=np.int32)
    want[:256] *= 2
    out = check(view.copy(), want)
    ok(driver.cuMemHostUnregister(view.ctypes.data))
    return {"out": out}


@case
def pitched_copies(gpu: Session):
    """2D and 3D, between every two kinds of memory, with offsets inside wider rows."""
    width, height, depth, pitch_host = 100, 17, 3, 256
    device, pitch = (int(v) for v in ok(driver.cuMemAllocPitch(width * 2, height * depth, 4)))
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    host, view = pinned(pitch_host * height * depth, np.uint8)
    view[:] = np.random.default_rng(5).integers(0, 256, view.size, dtype=np.uint8)
    gpu.synchronize()
    ok(driver.cuMemsetD2D8Async(device, pitch, 0xEE, width * 2, height * depth, stream))
    copy = driver.CUDA_MEMCPY2D()
    copy.srcMemoryType, copy.srcHost, copy.srcPitch, copy.srcXInBytes, copy.srcY = KINDS.CU_MEMORYTYPE_HOST, host, pitch_host, 7, 1
    copy.dstMemoryType, copy.dstDevice, copy.dstPitch, copy.dstXInBytes, copy.dstY = KINDS.CU_MEMORYTYPE_DEVICE, device, pitch, 50, 2
    copy.WidthInBytes, copy.Height = width, height - 2
    ok(driver.cuMemcpy2DAsync(copy, stream))
    back = driver.CUDA_MEMCPY2D()
    out = np.zeros((height, width * 2), np.uint8)
    back.srcMemoryType, back.srcDevice, back.srcPitch = KINDS.CU_MEMORYTYPE_UNIFIED, device, pitch
    back.dstMemoryType, back.dstHost, back.dstPitch = KINDS.CU_MEMORYTYPE_HOST, out.ctypes.data, width * 2
    back.WidthInBytes, back.Height = width * 2, height
    ok(driver.cuMemcpy2DAsync(back, stream))
    ok(driver.cuStreamSynchronize(stream))
    rows = view.reshape(-1, pitch_host)
    want = np.full((height, width * 2), 0xEE, np.uint8)
    want[2:height, 50:50 + width] = rows[1:height - 1, 7:7 + width]
    results = {"2D": check(out, want)}
    cube = driver.CUDA_MEMCPY3D()
    cube.srcMemoryType, cube.srcHost, cube.srcPitch, cube.srcHeight = KINDS.CU_MEMORYTYPE_HOST, host, pitch_host, height
    cube.dstMemoryType, cube.dstDevice, cube.dstPitch, cube.dstHeight = KINDS.CU_MEMORYTYPE_DEVICE, device, pitch, height
    cube.WidthInBytes, cube.Height, cube.Depth = width, height, depth
    ok(driver.cuMemcpy3DAsync(cube, stream))
    ok(driver.cuStreamSynchronize(stream))
    full = gpu.download(device, (height * depth, pitch), np.uint8)[:, :width]
    results["3D"] = check(full.copy(), rows[:, :width])
    ok(driver.cuMemFreeHost(host))
    return results


@case
def fills_of_every_shape(gpu: Session):
    width, height = 60, 40
    results = {}
    for name, element, value in (("D8", np.uint8, 0xA5), ("D16", np.uint16, 0xBEEF), ("D32", np.uint32, 0xDEADBEEF)):
        size = np.dtype(element).itemsize
        for suffix in ("", "Async"):
            device, pitch = (int(v) for v in ok(driver.cuMemAllocPitch(width * size, height, 4)))
            ok(driver.cuMemsetD8(device, 0x11, pitch * height))
            fill = getattr(driver, f"cuMemsetD2{name}{suffix}")
            ok(fill(device, pitch, value, width - 10, height - 1, *((0,) if suffix else ())))
            got = gpu.download(device, (height, pitch), np.uint8)
            want = np.full((height, pitch), 0x11, np.uint8)
            want[:height - 1, :(width - 10) * size] = np.full(width - 10, value, element).view(np.uint8)
            results[name + suffix] = check(got, want)
            ok(driver.cuMemFree(device))
    return results


@case
def pointer_attributes(gpu: Session):
    """The lists that cudaPointerGetAttributes and the frameworks' own checks ask for, of every kind of memory."""
    names = driver.CUpointer_attribute
    asked = [names.CU_POINTER_ATTRIBUTE_CONTEXT, names.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, names.CU_POINTER_ATTRIBUTE_DEVICE_POINTER,
             names.CU_POINTER_ATTRIBUTE_HOST_POINTER, names.CU_POINTER_ATTRIBUTE_IS_MANAGED, names.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL]
    more = ["RANGE_START_ADDR", "RANGE_SIZE", "MAPPED", "ALLOWED_HANDLE_TYPES", "MEMPOOL_HANDLE", "SYNC_MEMOPS"]
    host, _view = pinned(1000)
    device, pageable = gpu.empty(4000), np.zeros(100, np.int32)
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    pooled = int(ok(driver.cuMemAllocAsync(4000, stream)))
    ok(driver.cuStreamSynchronize(stream))
    results = {}
    for name, base in (("device", device), ("pinned", host), ("pooled", pooled), ("pageable", int(pageable.ctypes.data))):
        values = ok(driver.cuPointerGetAttributes(len(asked), asked, base + 64))
        context, kind, at_device, at_host, managed, ordinal = (int(v) if v is not None else 0 for v in values)
        results[name] = {
            "context": context == int(gpu.context), "kind": kind, "device": at_device - base if at_device else None,
            "host": at_host - base if at_host else None, "managed": bool(managed), "ordinal": ordinal}
        for attribute in more:
            status, value = driver.cuPointerGetAttribute(getattr(names, "CU_POINTER_ATTRIBUTE_" + attribute), base + 64)
            shown = None if value is None or int(status) else int(value)
            if shown is not None and attribute == "RANGE_START_ADDR":
                shown -= base
            if shown is not None and attribute == "MEMPOOL_HANDLE":
                shown = shown != 0
            results[name][attribute] = [status.name, shown]
    ok(driver.cuMemFreeHost(host))
    return results
