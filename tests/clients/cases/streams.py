"""Streams, events, host functions: what is ordered after what."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check


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
