"""Kernels whose results depend on shared memory, atomics, shuffles and the layout of parameters."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, ok
from registry import case, check


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
