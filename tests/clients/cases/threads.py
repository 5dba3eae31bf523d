"""Many threads on one device: own streams, per-thread default streams, threads that end while their work runs."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
from cuda.bindings import driver

from device import Session, ok
from registry import case, check

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
STEP = 'extern "C" __global__ void step(int* d, int f, int a, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) d[i] = d[i] * f + a; }'
PER_THREAD = 2
N = 1024


def in_threads(count: int, work):
    failures = []

    def guarded(index):
        try:
            work(index)
        except Exception as error:  # noqa: BLE001: raised below.
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def chain(gpu: Session, step, data: int, index: int, stream, rounds: int = 60) -> int:
    value = 0
    for i in range(rounds):
        gpu.launch(step, (8,), (128,), data, ctypes.c_int(3), ctypes.c_int(i + index), ctypes.c_int(N), stream=stream)
        value = (value * 3 + i + index) & 0xFFFFFFFF
    return value


@case
def launches_from_threads(gpu: Session):
    """Eight threads, each with its own stream and chain, all of the same function."""
    step, sums = gpu.function(STEP, "step"), [0] * 8

    def work(index):
        ok(driver.cuCtxSetCurrent(gpu.context))
        stream, data = ok(driver.cuStreamCreate(NON_BLOCKING)), int(ok(driver.cuMemAlloc(4 * N)))
        ok(driver.cuMemsetD32Async(data, 0, N, stream))
        value = chain(gpu, step, data, index, stream)
        got = np.empty(N, np.uint32)
        ok(driver.cuMemcpyDtoHAsync(got.ctypes.data, data, got.nbytes, stream))
        ok(driver.cuStreamSynchronize(stream))
        check(got, np.full(N, value, np.uint32))
        sums[index] = int(got.sum())
        ok(driver.cuStreamDestroy(stream))
        ok(driver.cuMemFree(data))

    in_threads(8, work)
    return {"sums": sums}


@case
def threads_that_end(gpu: Session):
    """Threads queue work on the per-thread default stream and on their own, and end without waiting."""
    step = gpu.function(STEP, "step")
    cells = [gpu.empty(4 * N) for _ in range(12)]
    gpu.synchronize()
    values, kept = [0] * 12, []

    def work(index):
        ok(driver.cuCtxSetCurrent(gpu.context))
        stream = PER_THREAD if index % 2 else ok(driver.cuStreamCreate(NON_BLOCKING))
        kept.append(stream)
        values[index] = chain(gpu, step, cells[index], index, stream, rounds=30)

    for round_ in range(3):
        in_threads(4, lambda i, r=round_: work(4 * r + i))
    gpu.synchronize()
    got = np.stack([gpu.download(c, N, np.uint32) for c in cells])
    return {"data": check(got, np.repeat(np.array(values, np.uint32)[:, None], N, axis=1))}


@case
def per_thread_handles(gpu: Session):
    """The handle 2 in explicit calls: each thread has its own order, and the legacy stream waits for all."""
    step, results = gpu.function(STEP, "step"), {}
    cells = [gpu.empty(4 * N) for _ in range(6)]
    gpu.synchronize()
    values = [0] * 6

    def work(index):
        ok(driver.cuCtxSetCurrent(gpu.context))
        values[index] = chain(gpu, step, cells[index], index, PER_THREAD)
        if index % 2:
            ok(driver.cuStreamSynchronize(PER_THREAD))

    in_threads(6, work)
    # On the legacy stream, without any synchronisation before it.
    total = gpu.empty(4 * N)
    gather = gpu.function('extern "C" __global__ void gather(int* out, const int* in, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) out[i] += in[i]; }', "gather")
    for cell in cells:
        gpu.launch(gather, (8,), (128,), total, cell, ctypes.c_int(N))
    results["total"] = check(gpu.download(total, N, np.uint32), np.full(N, sum(values) & 0xFFFFFFFF, np.uint32))
    return results


@case
def per_thread_entry_points(gpu: Session):
    """The same case in a process whose bindings resolve the per-thread (_ptsz, _ptds) entry points."""
    if os.environ.get("CUDA_PYTHON_CUDA_PER_THREAD_DEFAULT_STREAM") != "1":
        env = os.environ | {"CUDA_PYTHON_CUDA_PER_THREAD_DEFAULT_STREAM": "1"}
        done = subprocess.run([sys.executable, sys.argv[0], "per_thread_entry_points"], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return {"inner": done.stdout, "stderr": done.stderr}
    step, sums = gpu.function(STEP, "step"), [0] * 6

    def work(index):
        ok(driver.cuCtxSetCurrent(gpu.context))
        data = int(ok(driver.cuMemAlloc(4 * N)))
        ok(driver.cuMemsetD32Async(data, 0, N, 0))
        value = chain(gpu, step, data, index, 0)
        event = ok(driver.cuEventCreate(0))
        ok(driver.cuEventRecord(event, 0))
        ok(driver.cuEventSynchronize(event))
        got = gpu.download(data, N, np.uint32)
        check(got, np.full(N, value, np.uint32))
        pooled = int(ok(driver.cuMemAllocAsync(4 * N, 0)))
        ok(driver.cuMemcpyDtoDAsync(pooled, data, 4 * N, 0))
        ok(driver.cuMemcpyDtoHAsync(got.ctypes.data, pooled, got.nbytes, 0))
        ok(driver.cuMemFreeAsync(pooled, 0))
        ok(driver.cuStreamSynchronize(0))
        check(got, np.full(N, value, np.uint32))
        sums[index] = int(got.sum())

    in_threads(6, work)
    return {"sums": sums}
