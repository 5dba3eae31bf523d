"""Stream-ordered allocation and the churn of many small allocations."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
FILL = 'extern "C" __global__ void fill(int* d, int v, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) d[i] = v + i; }'
SUM = 'extern "C" __global__ void sum(const int* d, int n, long long* out) { long long s = 0; for (int i = threadIdx.x; i < n; i += 32) s += d[i]; for (int k = 16; k; k /= 2) s += __shfl_down_sync(~0u, s, k); if (!threadIdx.x) *out += s; }'


@case
def pool_churn(gpu: Session):
    """cudaMallocAsync: allocate, use and free in stream order, on two streams, with a threshold that keeps memory."""
    fill, total = gpu.function(FILL, "fill"), gpu.function(SUM, "sum")
    pool = ok(driver.cuDeviceGetDefaultMemPool(gpu.device))
    attribute = driver.CUmemPool_attribute
    results = {"set": code(driver.cuMemPoolSetAttribute(
        pool, attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, driver.cuuint64_t(1 << 40)))}
    results["threshold"] = int(ok(driver.cuMemPoolGetAttribute(pool, attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)))
    streams = [ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2)]
    outs = [gpu.empty(8) for _ in streams]
    gpu.synchronize()
    want = [0, 0]
    for i in range(120):
        stream, n = streams[i % 2], 100 + 37 * i
        pointer = int(ok(driver.cuMemAllocAsync(4 * n, stream)))
        gpu.launch(fill, ((n + 127) // 128,), (128,), pointer, ctypes.c_int(i), ctypes.c_int(n), stream=stream)
        gpu.launch(total, (1,), (32,), pointer, ctypes.c_int(n), outs[i % 2], stream=stream)
        ok(driver.cuMemFreeAsync(pointer, stream))
        want[i % 2] += n * i + n * (n - 1) // 2
    for stream in streams:
        ok(driver.cuStreamSynchronize(stream))
    results["sums"] = [int(gpu.download(out, 1, np.int64)[0]) for out in outs]
    assert results["sums"] == want
    results["used"] = int(ok(driver.cuMemPoolGetAttribute(pool, attribute.CU_MEMPOOL_ATTR_USED_MEM_CURRENT)))
    results["trim"] = code(driver.cuMemPoolTrimTo(pool, 0))
    results["reserved"] = int(ok(driver.cuMemPoolGetAttribute(pool, attribute.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)))
    # Freed by the other function, and the other way round.
    pointer = int(ok(driver.cuMemAllocAsync(1 << 20, streams[0])))
    ok(driver.cuStreamSynchronize(streams[0]))
    results["cuMemFree"] = code(driver.cuMemFree(pointer))
    plain = int(ok(driver.cuMemAlloc(1 << 20)))
    results["cuMemFreeAsync"] = code(driver.cuMemFreeAsync(plain, streams[0]))
    ok(driver.cuStreamSynchronize(streams[0]))
    return results


@case
def freed_on_another_stream(gpu: Session):
    """Allocated on one stream, used on a second after an event, freed there."""
    fill, total = gpu.function(FILL, "fill"), gpu.function(SUM, "sum")
    a, b = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
    event = ok(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING))
    out, n, want = gpu.empty(8), 5000, 0
    gpu.synchronize()
    for i in range(30):
        pointer = int(ok(driver.cuMemAllocAsync(4 * n, a)))
        gpu.launch(fill, (40,), (128,), pointer, ctypes.c_int(i), ctypes.c_int(n), stream=a)
        ok(driver.cuEventRecord(event, a))
        ok(driver.cuStreamWaitEvent(b, event, 0))
        gpu.launch(total, (1,), (32,), pointer, ctypes.c_int(n), out, stream=b)
        ok(driver.cuMemFreeAsync(pointer, b))
        want += n * i + n * (n - 1) // 2
    ok(driver.cuStreamSynchronize(b))
    assert int(gpu.download(out, 1, np.int64)[0]) == want
    return {"sum": want}


@case
def small_allocations_from_threads(gpu: Session):
    """Eight threads allocate, fill, check and free: thousands of allocations of odd sizes, none of which overlap."""
    failures, counts = [], [0] * 8

    def work(index: int):
        try:
            ok(driver.cuCtxSetCurrent(gpu.context))
            random, held = np.random.default_rng(index), []
            stream = ok(driver.cuStreamCreate(NON_BLOCKING))
            for i in range(250):
                size = int(random.integers(1, 20_000))
                pointer = int(ok(driver.cuMemAlloc(size)))
                ok(driver.cuMemsetD8Async(pointer, (index * 31 + i) % 256, size, stream))
                held.append((pointer, size, (index * 31 + i) % 256))
                if len(held) > 20:
                    pointer, size, value = held.pop(int(random.integers(0, len(held))))
                    got = np.empty(size, np.uint8)
                    ok(driver.cuMemcpyDtoHAsync(got.ctypes.data, pointer, size, stream))
                    ok(driver.cuStreamSynchronize(stream))
                    assert (got == value).all(), (index, i)
                    ok(driver.cuMemFree(pointer))
                    counts[index] += 1
            for pointer, _, _ in held:
                ok(driver.cuMemFree(pointer))
        except Exception as error:  # noqa: BLE001: raised by the case below.
            failures.append(error)

    before = ok(driver.cuMemGetInfo())
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    bad = code(driver.cuMemFree(1 << 40))
    return {"counts": counts, "total": int(before[1]), "bad": bad}


@case
def exportable_pool(gpu: Session):
    """A pool whose memory could be given to other processes, used in this one."""
    props = driver.CUmemPoolProps()
    props.allocType = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    props.handleTypes = driver.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
    props.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    props.location.id = int(gpu.device)
    pool = ok(driver.cuMemPoolCreate(props))
    memory = int(ok(driver.cuMemAllocFromPoolAsync(400, pool, 0)))
    ok(driver.cuMemsetD32Async(memory, 6, 100, 0))
    seen = check(gpu.download(memory, 100, np.int32), np.full(100, 6, np.int32))
    ok(driver.cuMemFreeAsync(memory, 0))
    ok(driver.cuStreamSynchronize(0))
    ok(driver.cuMemPoolDestroy(pool))
    return seen
