"""The cases of the client suite: each is a program on cuda-bindings that returns plain values and arrays.

`python cases.py NAME` runs one and prints its results as one JSON line: arrays as SHA-256 of their bytes, so that a
native run and a run under the shim can be compared bit for bit. A case checks itself against numpy as well, so equal but
wrong results fail too.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def check(got: np.ndarray, want: np.ndarray, tolerance: float = 0.0):
    if tolerance == 0.0:
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got, want, rtol=tolerance)
    return got


@case
def reduction(gpu: Session):
    function = gpu.function(
        """
        extern "C" __global__ void reduce(const float* in, float* out, int n) {
            extern __shared__ float tile[];
            float sum = 0.f;
            for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += in[i];
            tile[threadIdx.x] = sum;
            __syncthreads();
            for (int s = blockDim.x / 2; s > 0; s >>= 1) {
                if (threadIdx.x < s) tile[threadIdx.x] += tile[threadIdx.x + s];
                __syncthreads();
            }
            if (threadIdx.x == 0) out[blockIdx.x] = tile[0];
        }""",
        "reduce",
    )
    data = np.random.default_rng(1).random(100_003, dtype=np.float32)
    source, out = gpu.upload(data), gpu.empty(4 * 64)
    gpu.launch(function, (64,), (256,), source, out, ctypes.c_int(data.size), shared=1024)
    partial = gpu.download(out, 64, np.float32)
    check(np.array([partial.sum(dtype=np.float64)]), np.array([data.sum(dtype=np.float64)]), 1e-5)
    return {"partial": partial}


@case
def histogram(gpu: Session):
    function = gpu.function(
        """
        extern "C" __global__ void histogram(const unsigned char* in, unsigned* bins, int n) {
            __shared__ unsigned local[256];
            for (int i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
            __syncthreads();
            for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
                atomicAdd(&local[in[i]], 1u);
            __syncthreads();
            for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&bins[i], local[i]);
        }""",
        "histogram",
    )
    data = np.random.default_rng(2).integers(0, 256, 200_000, dtype=np.uint8)
    source, bins = gpu.upload(data), gpu.empty(1024)
    gpu.launch(function, (32,), (128,), source, bins, ctypes.c_int(data.size))
    return {"bins": check(gpu.download(bins, 256, np.uint32), np.bincount(data, minlength=256).astype(np.uint32))}


@case
def sort_in_shared_memory(gpu: Session):
    function = gpu.function(
        """
        extern "C" __global__ void bitonic(int* data) {
            __shared__ int tile[512];
            unsigned t = threadIdx.x;
            tile[t] = data[blockIdx.x * 512 + t];
            __syncthreads();
            for (unsigned k = 2; k <= 512; k <<= 1)
                for (unsigned j = k >> 1; j > 0; j >>= 1) {
                    unsigned other = t ^ j;
                    if (other > t) {
                        bool up = (t & k) == 0;
                        if ((tile[t] > tile[other]) == up) { int x = tile[t]; tile[t] = tile[other]; tile[other] = x; }
                    }
                    __syncthreads();
                }
            data[blockIdx.x * 512 + t] = tile[t];
        }""",
        "bitonic",
    )
    data = np.random.default_rng(3).integers(-(2**31), 2**31, (20, 512), dtype=np.int32)
    pointer = gpu.upload(data)
    gpu.launch(function, (20,), (512,), pointer)
    return {"sorted": check(gpu.download(pointer, data.shape, np.int32), np.sort(data, axis=1))}


@case
def scan_with_shuffles(gpu: Session):
    function = gpu.function(
        """
        extern "C" __global__ void scan(const int* in, int* out) {
            __shared__ int sums[32];
            int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
            int v = in[blockIdx.x * blockDim.x + threadIdx.x];
            for (int d = 1; d < 32; d <<= 1) { int up = __shfl_up_sync(~0u, v, d); if (lane >= d) v += up; }
            if (lane == 31) sums[warp] = v;
            __syncthreads();
            if (warp == 0) {
                int s = lane < blockDim.x / 32 ? sums[lane] : 0;
                for (int d = 1; d < 32; d <<= 1) { int up = __shfl_up_sync(~0u, s, d); if (lane >= d) s += up; }
                sums[lane] = s;
            }
            __syncthreads();
            out[blockIdx.x * blockDim.x + threadIdx.x] = v + (warp ? sums[warp - 1] : 0);
        }""",
        "scan",
    )
    data = np.random.default_rng(4).integers(-1000, 1000, (30, 256), dtype=np.int32)
    source, out = gpu.upload(data), gpu.empty(data.nbytes)
    gpu.launch(function, (30,), (256,), source, out)
    return {"scan": check(gpu.download(out, data.shape, np.int32), np.cumsum(data, axis=1, dtype=np.int32))}


@case
def struct_arguments(gpu: Session):
    """A structure by value that holds device pointers, and 3 KiB of parameters in one."""

    class Job(ctypes.Structure):
        _fields_ = [("tag", ctypes.c_char), ("scale", ctypes.c_double), ("source", ctypes.c_uint64),
                    ("target", ctypes.c_uint64), ("count", ctypes.c_int)]

    class Table(ctypes.Structure):
        _fields_ = [("pointers", ctypes.c_uint64 * 320), ("sizes", ctypes.c_int * 128)]

    source = """
        struct Job { char tag; double scale; const float* source; float* target; int count; };
        struct Table { float* pointers[320]; int sizes[128]; };
        extern "C" __global__ void run(Job job, short bias) {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < job.count) job.target[i] = (float)(job.source[i] * job.scale) + bias + job.tag;
        }
        extern "C" __global__ void multi(char first, Table t, float add) {
            int which = blockIdx.x;
            for (int i = threadIdx.x; i < t.sizes[which]; i += blockDim.x) t.pointers[which][i] += add + first;
        }"""
    module = gpu.module(source)
    run, multi = (ok(driver.cuModuleGetFunction(module, n)) for n in (b"run", b"multi"))
    data = np.arange(1000, dtype=np.float32)
    src, dst = gpu.upload(data), gpu.empty(data.nbytes)
    job = Job(b"\x05", 1.5, src, dst, data.size)
    gpu.launch(run, (8,), (128,), job, ctypes.c_short(-7))
    out = check(gpu.download(dst, data.shape, np.float32), (data * 1.5 - 7 + 5).astype(np.float32))
    table = Table()
    rows = [np.full(i + 1, i, np.float32) for i in range(100)]
    pointers = [gpu.upload(r) for r in rows]
    for i, p in enumerate(pointers):
        table.pointers[i], table.sizes[i] = p, rows[i].size
    gpu.launch(multi, (100,), (64,), ctypes.c_char(b"\x02"), table, ctypes.c_float(0.5))
    got = np.concatenate([gpu.download(p, r.shape, np.float32) for p, r in zip(pointers, rows)])
    return {"run": out, "multi": check(got, np.concatenate(rows) + np.float32(2.5))}


@case
def module_globals(gpu: Session):
    module = gpu.module(
        """
        __device__ int counter = 41;
        __constant__ float weights[4] = {1.f, 2.f, 3.f, 4.f};
        __device__ float result[4];
        extern "C" __global__ void step() {
            atomicAdd(&counter, 1);
            if (blockIdx.x == 0 && threadIdx.x < 4) result[threadIdx.x] = weights[threadIdx.x] * 10.f;
        }"""
    )
    step = ok(driver.cuModuleGetFunction(module, b"step"))
    counter, counter_bytes = ok(driver.cuModuleGetGlobal(module, b"counter"))
    weights, _ = ok(driver.cuModuleGetGlobal(module, b"weights"))
    result, result_bytes = ok(driver.cuModuleGetGlobal(module, b"result"))
    new = np.array([1, 2, 4, 8], np.float32)
    ok(driver.cuMemcpyHtoD(weights, new.ctypes.data, new.nbytes))
    gpu.launch(step, (10,), (10,))
    missing = code(driver.cuModuleGetGlobal(module, b"absent"))
    return {
        "counter": check(gpu.download(int(counter), 1, np.int32), np.array([141], np.int32)),
        "result": check(gpu.download(int(result), 4, np.float32), new * 10),
        "sizes": [int(counter_bytes), int(result_bytes)],
        "missing": missing,
    }


@case
def streams_and_events(gpu: Session):
    function = gpu.function(
        """
        extern "C" __global__ void bump(int* data, int n, int factor, int add) {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < n) data[i] = data[i] * factor + add;
        }""",
        "bump",
    )
    n = 20_000
    data = gpu.upload(np.arange(n, dtype=np.int32))
    flag = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
    streams = [ok(driver.cuStreamCreate(flag)) for _ in range(4)]
    events = [ok(driver.cuEventCreate(0)) for _ in range(9)]
    want = np.arange(n, dtype=np.int32)
    # A chain across streams: wrong order changes the result, because the steps do not commute.
    for step in range(8):
        stream = streams[step % 4]
        if step:
            ok(driver.cuStreamWaitEvent(stream, events[step - 1], 0))
        gpu.launch(function, (80,), (256,), data, ctypes.c_int(n), ctypes.c_int(3), ctypes.c_int(step), stream=stream)
        ok(driver.cuEventRecord(events[step], stream))
        want = (want * np.int32(3) + np.int32(step)).astype(np.int32)
    ok(driver.cuEventSynchronize(events[7]))
    done = [code(driver.cuEventQuery(e)) for e in events]
    elapsed = ok(driver.cuEventElapsedTime(events[0], events[7]))
    queries = [code(driver.cuStreamQuery(s)) for s in streams]
    for s in streams:
        ok(driver.cuStreamSynchronize(s))
    out = check(gpu.download(data, n, np.int32), want)
    unrecorded = code(driver.cuEventElapsedTime(events[8], events[7]))
    for e in events:
        ok(driver.cuEventDestroy(e))
    for s in streams:
        ok(driver.cuStreamDestroy(s))
    return {"data": out, "done": done, "queries": queries, "elapsed_positive": elapsed >= 0.0, "unrecorded": unrecorded}


@case
def legacy_stream_order(gpu: Session):
    """Work on the NULL stream waits for blocking streams and they for it."""
    function = gpu.function(
        'extern "C" __global__ void bump(int* d, int f, int a) { d[threadIdx.x] = d[threadIdx.x] * f + a; }', "bump"
    )
    a, b = (ok(driver.cuStreamCreate(0)) for _ in range(2))
    data = gpu.upload(np.arange(32, dtype=np.int32))
    want = np.arange(32, dtype=np.int32)
    for step in range(30):
        stream = (a, 0, b, 0)[step % 4]
        gpu.launch(function, (1,), (32,), data, ctypes.c_int(3), ctypes.c_int(step), stream=stream)
        want = (want * np.int32(3) + np.int32(step)).astype(np.int32)
    return {"data": check(gpu.download(data, 32, np.int32), want)}


@case
def captured_graph(gpu: Session):
    function = gpu.function(
        'extern "C" __global__ void axpy(float* y, const float* x, float a, int n) {'
        " int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] += a * x[i]; }",
        "axpy",
    )
    n = 4096
    x, y = gpu.upload(np.ones(n, np.float32)), gpu.empty(4 * n)
    stream = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    side = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    fork, join = (ok(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)) for _ in range(2))
    z = gpu.empty(4 * n)
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    ok(driver.cuStreamBeginCapture(stream, mode))
    ok(driver.cuMemsetD32Async(z, 0, n, stream))
    ok(driver.cuEventRecord(fork, stream))
    ok(driver.cuStreamWaitEvent(side, fork, 0))
    gpu.launch(function, (16,), (256,), y, x, ctypes.c_float(2.0), ctypes.c_int(n), stream=stream)
    gpu.launch(function, (16,), (256,), z, x, ctypes.c_float(3.0), ctypes.c_int(n), stream=side)
    ok(driver.cuEventRecord(join, side))
    ok(driver.cuStreamWaitEvent(stream, join, 0))
    gpu.launch(function, (16,), (256,), y, z, ctypes.c_float(1.0), ctypes.c_int(n), stream=stream)
    graph = ok(driver.cuStreamEndCapture(stream))
    before = gpu.download(y, n, np.float32)
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    nodes = ok(driver.cuGraphGetNodes(graph, 0))[1]
    for _ in range(10):
        ok(driver.cuGraphLaunch(execution, stream))
    ok(driver.cuStreamSynchronize(stream))
    out = gpu.download(y, n, np.float32)
    check(before, np.zeros(n, np.float32))
    check(out, np.full(n, 50.0, np.float32))
    ok(driver.cuGraphExecDestroy(execution))
    ok(driver.cuGraphDestroy(graph))
    return {"before": before, "out": out, "nodes": int(nodes)}


@case
def explicit_graph(gpu: Session):
    """A graph built node by node, then updated, as XLA's command buffers do."""
    function = gpu.function(
        'extern "C" __global__ void fill(int* out, int value) { out[threadIdx.x] += value; }', "fill"
    )
    out = gpu.empty(256)
    graph = ok(driver.cuGraphCreate(0))

    def parameters(value):
        keep = [ctypes.c_uint64(out), ctypes.c_int(value)]
        pointers = (ctypes.c_void_p * 2)(*(ctypes.addressof(k) for k in keep))
        p = driver.CUDA_KERNEL_NODE_PARAMS()
        p.func = function
        p.gridDimX = p.gridDimY = p.gridDimZ = 1
        p.blockDimX, p.blockDimY, p.blockDimZ = 64, 1, 1
        p.kernelParams = ctypes.addressof(pointers)
        return p, (keep, pointers)

    p, keep = parameters(5)
    first = ok(driver.cuGraphAddKernelNode(graph, None, 0, p))
    second = ok(driver.cuGraphAddKernelNode(graph, [first], 1, p))
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    ok(driver.cuGraphLaunch(execution, 0))
    p, keep = parameters(100)
    ok(driver.cuGraphExecKernelNodeSetParams(execution, second, p))
    ok(driver.cuGraphLaunch(execution, 0))
    gpu.synchronize()
    return {"out": check(gpu.download(out, 64, np.int32), np.full(64, 115, np.int32))}


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
def host_functions(gpu: Session):
    order = []
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    callback = prototype(lambda data: order.append(data))
    function = gpu.function('extern "C" __global__ void set(int* p, int v) { *p = v; }', "set")
    cell = gpu.empty(4)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    for i in range(1, 6):
        gpu.launch(function, (1,), (1,), cell, ctypes.c_int(i))
        ok(driver.cuLaunchHostFunc(0, driver.CUhostFn(_ptr=0) if address is None else address, i))
    gpu.synchronize()
    assert order == [1, 2, 3, 4, 5], order
    return {"order": order, "cell": gpu.download(cell, 1, np.int32)}


@case
def bad_inputs(gpu: Session):
    """The CUresult of every mistake, at the call where native reports it."""
    function = gpu.function('extern "C" __global__ void k(int* p) { p[threadIdx.x] = 1; }', "k")
    cell = ctypes.c_uint64(gpu.empty(4096))
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(cell))
    args = ctypes.addressof(pointers)

    def launch(grid=(1, 1, 1), block=(32, 1, 1), shared=0, stream=0, params=args, extra=0):
        return code(driver.cuLaunchKernel(function, *grid, *block, shared, stream, params, extra))

    freed = int(ok(driver.cuMemAlloc(1 << 21)))
    ok(driver.cuMemFree(freed))
    host = np.zeros(16, np.uint8)
    module = gpu.module('extern "C" __global__ void only() {}')
    results = {
        "grid zero": launch(grid=(0, 1, 1)),
        "grid y zero": launch(grid=(1, 0, 1)),
        "block zero": launch(block=(0, 1, 1)),
        "block too large": launch(block=(2048, 1, 1)),
        "block product too large": launch(block=(1024, 2, 1)),
        "block z too large": launch(block=(1, 1, 65)),
        "grid y too large": launch(grid=(1, 65536, 1)),
        "shared too large": launch(shared=1 << 20),
        "unknown function": code(driver.cuModuleGetFunction(module, b"absent")),
        "free null": code(driver.cuMemFree(0)),
        "double free": code(driver.cuMemFree(freed)),
        "free inside": code(driver.cuMemFree(cell.value + 64)),
        "copy from freed": code(driver.cuMemcpyDtoH(host.ctypes.data, freed, 16)),
        "copy to null": code(driver.cuMemcpyHtoD(0, host.ctypes.data, 16)),
        "alloc zero": code(driver.cuMemAlloc(0)),
        "alloc absurd": code(driver.cuMemAlloc(1 << 50)),
        "alloc after absurd": code(driver.cuMemAlloc(1 << 20)),
        "not ptx": code(driver.cuModuleLoadData(b"this is not PTX\0")),
        "stream flags": code(driver.cuStreamCreate(0x80)),
        "event flags": code(driver.cuEventCreate(0x80)),
        "still alive": launch(),
    }
    gpu.synchronize()
    return results


@case
def bad_launch_arguments(gpu: Session):
    """kernelParams, extra and contexts used wrongly."""
    function = gpu.function(
        'extern "C" __global__ void k(int* p, int v, double d) { p[threadIdx.x] = v + (int)d; }', "k")
    cell = gpu.empty(4096)

    class Packed(ctypes.Structure):
        _fields_ = [("p", ctypes.c_uint64), ("v", ctypes.c_int), ("d", ctypes.c_double)]

    def by_extra(declared: int, flag_end: int = 0):
        packed, size = Packed(cell, 40, 2.0), ctypes.c_size_t(declared)
        extra = (ctypes.c_void_p * 5)(1, ctypes.addressof(packed), 2, ctypes.addressof(size), flag_end)
        return code(driver.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, 0, ctypes.addressof(extra)))

    exact = by_extra(24)
    value = int(gpu.download(cell, 1, np.int32)[0])
    values = [ctypes.c_uint64(cell), ctypes.c_int(1), ctypes.c_double(0)]
    pointers = (ctypes.c_void_p * 3)(*(ctypes.addressof(v) for v in values))
    both_size, both_packed = ctypes.c_size_t(24), Packed(cell, 1, 0)
    both = (ctypes.c_void_p * 5)(1, ctypes.addressof(both_packed), 2, ctypes.addressof(both_size), 0)
    results = {
        "extra exact": [exact, value],
        "extra short": by_extra(20),
        "extra long": by_extra(64),
        "neither": code(driver.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0)),
        "both": code(driver.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, ctypes.addressof(pointers), ctypes.addressof(both))),
        "null function": code(driver.cuLaunchKernel(driver.CUfunction(0), 1, 1, 1, 32, 1, 1, 0, 0, ctypes.addressof(pointers), 0)),
        "cooperative too large": code(driver.cuLaunchCooperativeKernel(function, 1 << 20, 1, 1, 1024, 1, 1, 0, 0, ctypes.addressof(pointers))),
        "cooperative": code(driver.cuLaunchCooperativeKernel(function, 2, 1, 1, 32, 1, 1, 0, 0, ctypes.addressof(pointers))),
    }
    gpu.synchronize()
    ok(driver.cuCtxSetCurrent(driver.CUcontext(0)))
    results["no context"] = code(driver.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, ctypes.addressof(pointers), 0))
    results["alloc without context"] = code(driver.cuMemAlloc(64))
    results["stream without context"] = code(driver.cuStreamCreate(0))
    results["sync without context"] = code(driver.cuCtxSynchronize())
    return results


@case
def bad_memory_arguments(gpu: Session):
    pointer, host = gpu.empty(1000), np.zeros(4096, np.uint8)
    freed = gpu.empty(4 << 20)
    ok(driver.cuMemFree(freed))
    attribute = driver.CUpointer_attribute
    return {
        "memset freed": code(driver.cuMemsetD8(freed, 1, 16)),
        "memset null": code(driver.cuMemsetD32(0, 1, 16)),
        "memset misaligned": code(driver.cuMemsetD32(pointer + 1, 1, 4)),
        "memset zero": code(driver.cuMemsetD8(pointer, 1, 0)),
        "copy past a large allocation": code(driver.cuMemcpyDtoH(host.ctypes.data, gpu.empty(2 << 20) + (2 << 20) - 16, 32)),
        "device to device from freed": code(driver.cuMemcpyDtoD(pointer, freed, 16)),
        "copy zero bytes": code(driver.cuMemcpyHtoD(pointer, host.ctypes.data, 0)),
        "host null": code(driver.cuMemcpyHtoD(pointer, 0, 16)),
        "unified host to host": code(driver.cuMemcpy(host.ctypes.data, host.ctypes.data + 2048, 16)),
        "range of unknown": code(driver.cuMemGetAddressRange(0x1234)),
        "attribute of unknown": code(driver.cuPointerGetAttribute(attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, host.ctypes.data)),
        "attribute of freed": code(driver.cuPointerGetAttribute(attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, freed)),
        "free host unknown": code(driver.cuMemFreeHost(host.ctypes.data)),
        "host alloc zero": code(driver.cuMemHostAlloc(0, 0)),
        "host alloc flags": code(driver.cuMemHostAlloc(64, 0x100)),
        "pitch zero": code(driver.cuMemAllocPitch(0, 4, 4)),
        "pitch": [int(ok(driver.cuMemAllocPitch(100, 4, 4))[1]), int(ok(driver.cuMemAllocPitch(513, 4, 16))[1])],
    }


@case
def bad_handles_and_states(gpu: Session):
    untimed = ok(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING))
    a, b = (ok(driver.cuEventCreate(0)) for _ in range(2))
    results = {
        "query unrecorded": code(driver.cuEventQuery(a)),
        "synchronize unrecorded": code(driver.cuEventSynchronize(a)),
        "elapsed unrecorded": code(driver.cuEventElapsedTime(a, b)),
    }
    ok(driver.cuEventRecord(untimed, 0))
    ok(driver.cuEventRecord(a, 0))
    gpu.synchronize()
    results |= {
        "elapsed untimed": code(driver.cuEventElapsedTime(untimed, a)),
        "elapsed same": ok(driver.cuEventElapsedTime(a, a)),
        "wait unrecorded": code(driver.cuStreamWaitEvent(0, b, 0)),
        "wait flags": code(driver.cuStreamWaitEvent(0, a, 0x40)),
        "record null": code(driver.cuEventRecord(driver.CUevent(0), 0)),
        "query null event": code(driver.cuEventQuery(driver.CUevent(0))),
        "destroy null stream": code(driver.cuStreamDestroy(driver.CUstream(0))),
        "query null stream": code(driver.cuStreamQuery(0)),
        "unload null": code(driver.cuModuleUnload(driver.CUmodule(0))),
        "graph launch null": code(driver.cuGraphLaunch(driver.CUgraphExec(0), 0)),
        "priorities": list(map(int, ok(driver.cuCtxGetStreamPriorityRange()))),
    }
    return results


@case
def capture_rules(gpu: Session):
    """What a capture forbids, and what breaks it."""
    function = gpu.function('extern "C" __global__ void k(int* p) { p[threadIdx.x] = 1; }', "k")
    cell, host = gpu.empty(4096), np.zeros(64, np.uint8)
    stream = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    modes = driver.CUstreamCaptureMode
    results = {}

    def broken_by(name, action, mode=modes.CU_STREAM_CAPTURE_MODE_GLOBAL):
        ok(driver.cuStreamBeginCapture(stream, mode))
        gpu.launch(function, (1,), (32,), cell, stream=stream)
        result = action()
        status = ok(driver.cuStreamIsCapturing(stream)).name
        results[name] = [code(result), status, code(driver.cuStreamEndCapture(stream))]

    broken_by("stream synchronize", lambda: driver.cuStreamSynchronize(stream))
    broken_by("stream query", lambda: driver.cuStreamQuery(stream))
    broken_by("context synchronize", lambda: driver.cuCtxSynchronize())
    broken_by("legacy launch", lambda: driver.cuMemsetD8Async(cell, 0, 64, 0))
    broken_by("sync copy", lambda: driver.cuMemcpyHtoD(cell, host.ctypes.data, 64))
    broken_by("alloc global", lambda: driver.cuMemAlloc(64))
    broken_by("alloc relaxed", lambda: driver.cuMemAlloc(64), modes.CU_STREAM_CAPTURE_MODE_RELAXED)
    broken_by("end twice", lambda: driver.cuStreamEndCapture(stream))
    broken_by("begin twice", lambda: driver.cuStreamBeginCapture(stream, modes.CU_STREAM_CAPTURE_MODE_GLOBAL))
    results["end without begin"] = code(driver.cuStreamEndCapture(stream))
    results["begin on null"] = code(driver.cuStreamBeginCapture(0, modes.CU_STREAM_CAPTURE_MODE_GLOBAL))
    return results


@case
def sticky_fault(gpu: Session):
    """A kernel that writes to an unmapped address breaks the context at the next synchronisation, and stays broken."""
    function = gpu.function('extern "C" __global__ void k(int* p) { *p = 1; }', "k")
    gpu.launch(function, (1,), (1,), 0x10)
    first = code(driver.cuCtxSynchronize())
    return {"sync": first, "alloc after": code(driver.cuMemAlloc(16)), "sync after": code(driver.cuCtxSynchronize())}


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
def library_api(gpu: Session):
    from device import compile_ptx

    ptx = compile_ptx('extern "C" __global__ void twice(int* p) { p[threadIdx.x] *= 2; } __device__ int seed = 9;')
    library = ok(driver.cuLibraryLoadData(ptx, [], [], 0, [], [], 0))
    kernel = ok(driver.cuLibraryGetKernel(library, b"twice"))
    function = ok(driver.cuKernelGetFunction(kernel))
    seed, size = ok(driver.cuLibraryGetGlobal(library, b"seed"))
    data = gpu.upload(np.arange(32, dtype=np.int32))
    gpu.launch(function, (1,), (32,), data)
    gpu.launch(driver.CUfunction(int(kernel)), (1,), (32,), data)
    out = check(gpu.download(data, 32, np.int32), np.arange(32, dtype=np.int32) * 4)
    name = ok(driver.cuFuncGetName(function))
    seed_value = gpu.download(int(seed), 1, np.int32)
    ok(driver.cuLibraryUnload(library))
    return {"out": out, "name": name.decode() if isinstance(name, bytes) else str(name), "seed": check(seed_value, np.array([9], np.int32)), "size": int(size)}


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


def digest(value):
    if isinstance(value, np.ndarray):
        return {"sha256": hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest(), "shape": list(value.shape)}
    if isinstance(value, dict):
        return {k: digest(v) for k, v in value.items()}
    return value


def main(name: str) -> int:
    print(json.dumps(digest(CASES[name](Session())), sort_keys=True))
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in CASES:
        print("usage: cases.py NAME, one of:", *sorted(CASES), file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv[1]))
