"""Copies, fills, pinned memory, and what the driver says about memory."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check


@case
def pinned_and_async_copies(gpu: Session):
    n = 1 << 20
    host = ok(driver.cuMemHostAlloc(4 * n, 0))
    view = np.ctypeslib.as_array((ctypes.c_int32 * n).from_address(int(host)))
    view[:] = np.arange(n, dtype=np.int32)
    device = ok(driver.cuMemAlloc(4 * n))
    stream = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    ok(driver.cuMemcpyHtoDAsync(device, int(host), 4 * n, stream))
    ok(driver.cuStreamSynchronize(stream))
    view[:] = 0
    ok(driver.cuMemcpyDtoHAsync(int(host), device, 4 * n, stream))
    ok(driver.cuStreamSynchronize(stream))
    out = check(view.copy(), np.arange(n, dtype=np.int32))
    function = gpu.function(
        'extern "C" __global__ void read(const int* host, long long* out) {'
        " if (threadIdx.x == 0) { long long s = 0; for (int i = 0; i < 1000; i++) s += host[i]; *out = s; } }",
        "read",
    )
    total = gpu.empty(8)
    gpu.launch(function, (1,), (32,), int(host), total)
    ok(driver.cuMemFreeHost(int(host)))
    return {"copy": out, "kernel_reads_pinned": check(gpu.download(total, 1, np.int64), np.array([499500]))}


@case
def copies_and_memsets(gpu: Session):
    rng = np.random.default_rng(7)
    results = {}
    for size in (0, 1, 3, 4095, 4096, 65537, 5_000_001):
        data = rng.integers(0, 256, size, dtype=np.uint8)
        a, b = gpu.upload(data), gpu.empty(max(size, 1))
        ok(driver.cuMemcpyDtoD(b, a, size))
        results[f"copy{size}"] = check(gpu.download(b, size, np.uint8), data)
    block = gpu.empty(4096)
    ok(driver.cuMemsetD32(block, 0xDEADBEEF, 512))
    ok(driver.cuMemsetD16(block + 2048, 0xABCD, 256))
    ok(driver.cuMemsetD8(block + 2560, 0x5A, 100))
    got = gpu.download(block, 4096, np.uint8)
    want = np.zeros(4096, np.uint8)
    want[:2048].view(np.uint32)[:] = 0xDEADBEEF
    want[2048:2560].view(np.uint16)[:] = 0xABCD
    want[2560:2660] = 0x5A
    results["memset"] = check(got, want)
    return results


@case
def out_of_memory(gpu: Session):
    held, result = [], None
    while len(held) < 4096:
        status, pointer = driver.cuMemAlloc(4 << 30)
        if int(status):
            result = status.name
            break
        held.append(pointer)
    for pointer in held:
        ok(driver.cuMemFree(pointer))
    again = code(driver.cuMemAlloc(1 << 30))
    return {"result": result, "some": len(held) > 0, "again": again}


@case
def queries(gpu: Session):
    attribute = driver.CUdevice_attribute
    names = ["CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT", "CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK",
             "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", "CU_DEVICE_ATTRIBUTE_WARP_SIZE"]
    function = gpu.function('extern "C" __global__ void k(int* p, double d) { __shared__ int s[8]; s[threadIdx.x % 8] = d; *p = s[0]; }', "k")
    f = driver.CUfunction_attribute
    pointer = gpu.empty(1000)
    base, size = ok(driver.cuMemGetAddressRange(pointer + 10))
    kind = ok(driver.cuPointerGetAttribute(driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, pointer))
    return {
        "device": {n: ok(driver.cuDeviceGetAttribute(getattr(attribute, n), gpu.device)) for n in names},
        "name": ok(driver.cuDeviceGetName(64, gpu.device)).split(b"\0")[0].decode(),
        "version": ok(driver.cuDriverGetVersion()),
        "shared": ok(driver.cuFuncGetAttribute(f.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function)),
        "params": [list(ok(driver.cuFuncGetParamInfo(function, i))) for i in range(2)],
        "range": [int(base) == pointer, int(size)],
        "kind": int(kind),
    }
