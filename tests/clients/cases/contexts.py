"""Contexts: limits, flags, current and not, created beside the primary one."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
STEP = 'extern "C" __global__ void step(int* d, int f, int a, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) d[i] = d[i] * f + a; }'


@case
def context_limits(gpu: Session):
    """Limits as Triton, CuPy and Numba set them; what is read back is what was set."""
    limits = driver.CUlimit
    results = {}
    for name, value in (("STACK_SIZE", 8192), ("PRINTF_FIFO_SIZE", 4 << 20), ("MALLOC_HEAP_SIZE", 32 << 20)):
        limit = getattr(limits, "CU_LIMIT_" + name)
        results[name] = code(driver.cuCtxSetLimit(limit, value)), int(ok(driver.cuCtxGetLimit(limit))) >= value
    results["unknown"] = code(driver.cuCtxGetLimit(limits.CU_LIMIT_MAX))
    function, data = gpu.function(STEP, "step"), gpu.empty(1024)
    gpu.launch(function, (2,), (128,), data, ctypes.c_int(1), ctypes.c_int(3), ctypes.c_int(256))
    results["data"] = check(gpu.download(data, 256, np.int32), np.full(256, 3, np.int32))
    return results


@case
def deep_stack(gpu: Session):
    """A recursion that needs a larger stack than a thread has by default: the limit has to reach the device."""
    function = gpu.function(
        """
        __device__ __noinline__ int depth(int n, int salt) {
            volatile int frame[64];
            for (int i = 0; i < 64; i++) frame[i] = salt + i;
            int below = n == 0 ? 0 : depth(n - 1, salt + 1);
            return below + frame[n & 63] - frame[0] + 1;
        }
        extern "C" __global__ void recurse(int* out, int n) { out[threadIdx.x] = depth(n, threadIdx.x); }""",
        "recurse",
    )
    ok(driver.cuCtxSetLimit(driver.CUlimit.CU_LIMIT_STACK_SIZE, 64 * 1024))
    out, n = gpu.empty(4 * 32), 100
    gpu.launch(function, (1,), (32,), out, ctypes.c_int(n))
    want = sum((i & 63) + 1 for i in range(n + 1))
    return {"out": check(gpu.download(out, 32, np.int32), np.full(32, want, np.int32))}


@case
def current_contexts(gpu: Session):
    """Push, pop, set, per thread; what is current decides what calls mean."""
    results, seen = {"flags": int(ok(driver.cuCtxGetFlags()))}, []
    ok(driver.cuCtxPushCurrent(gpu.context))
    results["popped"] = int(ok(driver.cuCtxPopCurrent())) == int(gpu.context)
    results["still"] = int(ok(driver.cuCtxGetCurrent())) == int(gpu.context)

    def other():
        seen.append(code(driver.cuMemAlloc(64)))
        seen.append(int(ok(driver.cuCtxGetCurrent())) == 0)
        seen.append(code(driver.cuCtxGetDevice()))
        ok(driver.cuCtxSetCurrent(gpu.context))
        seen.append(code(driver.cuMemAlloc(64)))
        seen.append(int(ok(driver.cuCtxGetDevice())))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    active = ok(driver.cuDevicePrimaryCtxGetState(gpu.device))
    results["primary"] = [int(v) for v in active]
    results["version"] = int(ok(driver.cuCtxGetApiVersion(gpu.context)))
    return results | {"thread": seen}


@case
def created_context(gpu: Session):
    """cuCtxCreate beside the primary context: allocate, load and launch in it, destroy it, go on in the first."""
    first = gpu.upload(np.arange(256, dtype=np.int32))
    created = ok(driver.cuCtxCreate(None, 0, gpu.device))
    results = {"current": int(ok(driver.cuCtxGetCurrent())) == int(created)}
    function, data = gpu.function(STEP, "step"), gpu.empty(1024)
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    gpu.synchronize()
    gpu.launch(function, (2,), (128,), data, ctypes.c_int(1), ctypes.c_int(8), ctypes.c_int(256), stream=stream)
    ok(driver.cuStreamSynchronize(stream))
    results["inside"] = check(gpu.download(data, 256, np.int32), np.full(256, 8, np.int32))
    ok(driver.cuCtxDestroy(created))
    results["after"] = int(ok(driver.cuCtxGetCurrent())) == int(created)
    ok(driver.cuCtxSetCurrent(gpu.context))
    function = gpu.function(STEP, "step")
    gpu.launch(function, (2,), (128,), first, ctypes.c_int(2), ctypes.c_int(1), ctypes.c_int(256))
    results["first"] = check(gpu.download(first, 256, np.int32), 2 * np.arange(256, dtype=np.int32) + 1)
    return results


@case
def primary_context_again(gpu: Session):
    """The primary context released to nothing and retained anew, as between two runtimes in one process."""
    first = gpu.function(STEP, "step")
    data = gpu.empty(1024)
    gpu.launch(first, (2,), (128,), data, ctypes.c_int(1), ctypes.c_int(4), ctypes.c_int(256))
    before = check(gpu.download(data, 256, np.int32), np.full(256, 4, np.int32))
    ok(driver.cuDevicePrimaryCtxRelease(gpu.device))
    inactive = int(ok(driver.cuDevicePrimaryCtxGetState(gpu.device))[1])
    context = ok(driver.cuDevicePrimaryCtxRetain(gpu.device))
    ok(driver.cuCtxSetCurrent(context))
    function, data = gpu.function(STEP, "step"), gpu.empty(1024)
    gpu.launch(function, (2,), (128,), data, ctypes.c_int(1), ctypes.c_int(6), ctypes.c_int(256))
    return {"before": before, "inactive": inactive, "after": check(gpu.download(data, 256, np.int32), np.full(256, 6, np.int32))}


@case
def peers_on_one_device(gpu: Session):
    """Peer access between contexts of one device, which no driver gives: each error by its name."""
    other = ok(driver.cuCtxCreate(None, 0, gpu.device))
    ok(driver.cuCtxSetCurrent(gpu.context))
    results = {
        "can": int(ok(driver.cuDeviceCanAccessPeer(gpu.device, gpu.device))),
        "can with none": code(driver.cuDeviceCanAccessPeer(gpu.device, driver.CUdevice(77))),
        "same device": code(driver.cuCtxEnablePeerAccess(other, 0)),
        "itself": code(driver.cuCtxEnablePeerAccess(gpu.context, 0)),
        "flags": code(driver.cuCtxEnablePeerAccess(other, 1)),
        "null": code(driver.cuCtxEnablePeerAccess(driver.CUcontext(0), 0)),
        "never enabled": code(driver.cuCtxDisablePeerAccess(other)),
        "current": int(ok(driver.cuCtxGetCurrent())) == int(gpu.context),
    }
    ok(driver.cuCtxDestroy(other))
    return results
