"""What other interception layers got wrong and no other area's cases cover; docs/PITFALLS.md has the whole list."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from cases.threads import in_threads
from device import Session, code, ok
from registry import case, check

MIB = 1 << 20
ADD = 'extern "C" __global__ void add(unsigned* d, unsigned long n) { unsigned long i = blockIdx.x * (unsigned long)blockDim.x + threadIdx.x; if (i < n) d[i] += i; }'


@case
def thread_without_context(gpu: Session):
    """NCCL and vLLM ask on threads that never had a context: the answers are native's, never another thread's context."""
    said = {}

    def ask(index: int):
        prop = driver.CUmemAllocationProp()
        prop.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        prop.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        created, handle = driver.cuMemCreate(2 * MIB, prop, 0)
        said[index] = {
            "device": code(driver.cuCtxGetDevice()),
            "current": int(ok(driver.cuCtxGetCurrent())),
            "synchronize": code(driver.cuCtxSynchronize()),
            "alloc": code(driver.cuMemAlloc(64)),
            "info": code(driver.cuMemGetInfo()),
            "stream": code(driver.cuStreamCreate(0)),
            "create": created.name,
            "release": code(driver.cuMemRelease(handle)),
        }
        # From here on the thread works like any other.
        ok(driver.cuCtxSetCurrent(gpu.context))
        said[index]["then"] = code(driver.cuCtxGetDevice())

    in_threads(4, ask)
    assert all(said[index] == said[0] for index in said), said
    return said[0]


@case
def large_transfer(gpu: Session):
    """A tensor of more than 256 MiB, in one copy each way, with a kernel that touches its ends."""
    count = 320 * MIB // 4
    host = np.zeros(count, np.uint32)
    host[::4097] = np.arange(len(host[::4097]), dtype=np.uint32)
    pointer = gpu.upload(host)
    add = gpu.function(ADD, "add")
    ends = 1024
    gpu.launch(add, (4,), (256,), pointer, ctypes.c_ulong(ends))
    gpu.launch(add, (4,), (256,), pointer + host.nbytes - 4 * ends, ctypes.c_ulong(ends))
    back = gpu.download(pointer, count, np.uint32)
    host[:ends] += np.arange(ends, dtype=np.uint32)
    host[-ends:] += np.arange(ends, dtype=np.uint32)
    ok(driver.cuMemFree(pointer))
    np.testing.assert_array_equal(back, host)
    return {"first": back[:ends], "last": back[-ends:], "sum": int(back.sum(dtype=np.uint64))}


@case
def copies_beside_kernels(gpu: Session):
    """A non-blocking stream is not ordered against NULL-stream copies: only its own synchronisation makes its data whole, and a
    NULL-stream copy that follows a blocking stream's kernel sees its result without any."""
    add = gpu.function(ADD, "add")
    n = 1 << 18
    grid, block = (n // 256,), (256,)
    blocking = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_DEFAULT))
    free = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    one, two = gpu.empty(4 * n), gpu.empty(4 * n)
    for _ in range(20):
        gpu.launch(add, grid, block, one, ctypes.c_ulong(n), stream=blocking)
        gpu.launch(add, grid, block, two, ctypes.c_ulong(n), stream=free)
    ordered = gpu.download(one, n, np.uint32)
    ok(driver.cuStreamSynchronize(free))
    synchronised = gpu.download(two, n, np.uint32)
    want = 20 * np.arange(n, dtype=np.uint32)
    return {"ordered": check(ordered, want), "synchronised": check(synchronised, want)}


@case
def kernels_without_parameters(gpu: Session):
    """Neither a parameter list nor a buffer: both forms of "none", by the plain call and by the one with attributes."""
    module = gpu.module('__device__ int counter; extern "C" __global__ void bump() { atomicAdd(&counter, 1); }')
    bump = ok(driver.cuModuleGetFunction(module, b"bump"))
    address, size = ok(driver.cuModuleGetGlobal(module, b"counter"))
    ok(driver.cuMemsetD8(address, 0, size))
    ok(driver.cuLaunchKernel(bump, 3, 1, 1, 32, 1, 1, 0, 0, 0, 0))
    gpu.launch(bump, (3,), (32,))
    gpu.launch_ex(bump, (3,), (32,))
    config = driver.CUlaunchConfig()
    config.gridDimX = config.gridDimY = config.gridDimZ = config.blockDimY = config.blockDimZ = 1
    config.blockDimX = 32
    ok(driver.cuLaunchKernelEx(config, bump, 0, 0))
    return {"count": int(check(gpu.download(int(address), 1, np.int32), np.array([10 * 32], np.int32))[0])}


@case
def events_destroyed_between_queries(gpu: Session):
    """Frameworks keep lists of events and destroy some of them before they ask for the rest."""
    add = gpu.function(ADD, "add")
    data = gpu.empty(4 * 1024)
    events = [ok(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)) for _ in range(64)]
    for event in events:
        gpu.launch(add, (4,), (256,), data, ctypes.c_ulong(1024))
        ok(driver.cuEventRecord(event, 0))
    for event in events[::2]:
        ok(driver.cuEventDestroy(event))
    ok(driver.cuEventSynchronize(events[-1]))
    answers = {code(driver.cuEventQuery(event)) for event in events[1::2]}
    again = ok(driver.cuEventCreate(0))
    unrecorded = code(driver.cuEventQuery(again))
    return {"answers": sorted(answers), "unrecorded": unrecorded,
            "data": check(gpu.download(data, 1024, np.uint32), 64 * np.arange(1024, dtype=np.uint32))}
