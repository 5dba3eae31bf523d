"""Registered host memory as programs have it: parts of the heap, neighbours of other objects, read by copies of streams."""

from __future__ import annotations

import ctypes

import numpy as np

from cases.sharing import held_stream
from device import Session, code, driver, ok
from registry import case, check

NON_BLOCKING = int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
POINTER = driver.CUpointer_attribute


def on_the_heap(count: int, dtype=np.int32):
    """An array amid a page, between two others."""
    buffer = np.zeros(count + 200, dtype)
    start = 33
    assert buffer[start:].ctypes.data % 4096
    return buffer, buffer[start:start + count]


@case
def registered_heap_memory(gpu: Session):
    """numba.cuda.pinned and cudaHostRegister of a tensor: asynchronous copies both ways, and what queries say."""
    buffer, array = on_the_heap(5000)
    buffer[:] = -1
    array[:] = np.arange(5000)
    host, size = array.ctypes.data, array.nbytes
    results = {"registered": code(driver.cuMemHostRegister(host, size, 0)),
               "twice": code(driver.cuMemHostRegister(host, size, 0)),
               "flags": int(ok(driver.cuMemHostGetFlags(host + 8))),
               "kind": int(ok(driver.cuPointerGetAttribute(POINTER.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, host + 8))),
               "host": int(ok(driver.cuPointerGetAttribute(POINTER.CU_POINTER_ATTRIBUTE_HOST_POINTER, host + 8))) - host}
    device = gpu.empty(size)
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    ok(driver.cuMemcpyHtoDAsync(device, host, size, stream))
    ok(driver.cuStreamSynchronize(stream))
    results["up"] = check(gpu.download(device, 5000, np.int32), np.arange(5000, dtype=np.int32))
    array[:] = 0
    ok(driver.cuMemcpyDtoHAsync(host + 400, device, size - 400, stream))
    ok(driver.cuStreamSynchronize(stream))
    results["down"] = check(array.copy(), np.concatenate([np.zeros(100, np.int32), np.arange(4900, dtype=np.int32)]))
    ok(driver.cuMemcpyHtoD(device, host, size))
    results["synchronous"] = check(gpu.download(device, 5000, np.int32), array)
    array[:] = 9
    ok(driver.cuMemcpyDtoH(host, device, size))
    results["back"] = array.copy()
    outside = np.concatenate([buffer[:33], buffer[5033:]])
    results["neighbours"] = check(outside, np.full(200, -1, np.int32))
    results["unregistered"] = [code(driver.cuMemHostUnregister(host)), code(driver.cuMemHostUnregister(host))]
    array[:] = 4
    ok(driver.cuMemcpyHtoD(device, host, size))
    results["pageable again"] = check(gpu.download(device, 5000, np.int32), array)
    return results


@case
def registered_heap_memory_in_stream_order(gpu: Session):
    """Copies wait their turn without making the program wait: behind a word, behind a host function, behind each other."""
    _keep, array = on_the_heap(3000)
    _also, second = on_the_heap(3000)
    size = array.nbytes
    for each in (array, second):
        ok(driver.cuMemHostRegister(each.ctypes.data, size, 1))
    device = gpu.empty(size)
    stream, word = held_stream()

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def fill(_):
        array[:] = np.arange(3000) * 3

    ok(driver.cuLaunchHostFunc(stream, driver.CUhostFn(_ptr=ctypes.addressof(fill)), 0))
    ok(driver.cuMemcpyHtoDAsync(device, array.ctypes.data, size, stream))
    ok(driver.cuMemcpyDtoHAsync(second.ctypes.data, device, size, stream))
    ok(driver.cuMemsetD8Async(device, 0, size, stream))
    held = [code(driver.cuStreamQuery(stream)), int(array.sum()), int(second.sum())]
    word.value = 1
    # One registered range to the other, for which the driver may make the program wait, and back up from there.
    ok(driver.cuMemcpyAsync(array.ctypes.data + 4, second.ctypes.data, 400, stream))
    ok(driver.cuMemcpyHtoDAsync(device, array.ctypes.data, 404, stream))
    ok(driver.cuStreamSynchronize(stream))
    want = np.arange(3000, dtype=np.int32) * 3
    results = {"held": held, "down": check(second.copy(), want),
               "moved": check(array[1:101].copy(), want[:100]),
               "up": check(gpu.download(device, 101, np.int32), array[:101]),
               "unregistered": [code(driver.cuMemHostUnregister(each.ctypes.data)) for each in (array, second)]}
    return results


@case
def registered_rows(gpu: Session):
    """Pitched copies between the device and a registered window of a larger array."""
    frame = np.zeros((40, 101), np.uint8)
    frame[:] = np.random.default_rng(2).integers(0, 256, frame.shape, dtype=np.uint8)
    before = frame.copy()
    host = frame.ctypes.data + 7
    ok(driver.cuMemHostRegister(host, frame.nbytes - 7, 0))
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    device = gpu.empty(64 * 40)

    def copy(up: bool):
        copy = driver.CUDA_MEMCPY2D()
        host_type, device_type = driver.CUmemorytype.CU_MEMORYTYPE_HOST, driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
        if up:
            copy.srcMemoryType, copy.srcHost, copy.srcPitch = host_type, host, 101
            copy.dstMemoryType, copy.dstDevice, copy.dstPitch = device_type, device, 64
        else:
            copy.srcMemoryType, copy.srcDevice, copy.srcPitch = device_type, device, 64
            copy.dstMemoryType, copy.dstHost, copy.dstPitch = host_type, host, 101
        copy.WidthInBytes, copy.Height = 50, 39
        return copy

    ok(driver.cuMemcpy2DAsync(copy(True), stream))
    ok(driver.cuStreamSynchronize(stream))
    up = check(gpu.download(device, (40, 64), np.uint8)[:39, :50].copy(), before[:39, 7:57])
    ok(driver.cuMemsetD2D8Async(device, 64, 5, 50, 20, stream))
    ok(driver.cuMemcpy2DAsync(copy(False), stream))
    ok(driver.cuStreamSynchronize(stream))
    want = before.copy()
    want[:20, 7:57] = 5
    down = check(frame.copy(), want)
    ok(driver.cuMemcpy2D(copy(True)))
    ok(driver.cuMemHostUnregister(host))
    return {"up": up, "down": down, "again": gpu.download(device, 64 * 40, np.uint8)[:50].copy()}


@case
def mapped_heap_memory(gpu: Session):
    """numba.cuda.mapped of a small array: a kernel works on a part of the heap."""
    _keep, array = on_the_heap(100)
    array[:] = 1
    ok(driver.cuMemHostRegister(array.ctypes.data, array.nbytes, int(driver.CU_MEMHOSTREGISTER_DEVICEMAP)))
    device = int(ok(driver.cuMemHostGetDevicePointer(array.ctypes.data, 0)))
    function = gpu.function('extern "C" __global__ void twice(int* p) { p[threadIdx.x] *= 2; }', "twice")
    gpu.launch(function, (1,), (100,), device)
    gpu.synchronize()
    ok(driver.cuMemHostUnregister(array.ctypes.data))
    return check(array.copy(), np.full(100, 2, np.int32))
