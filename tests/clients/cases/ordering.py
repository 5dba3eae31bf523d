"""Orderings that frameworks rely on: reused events, callbacks, priorities, work that outlives its stream or memory."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
EVENTS = driver.CUevent_flags
STEP = 'extern "C" __global__ void step(int* d, int f, int a, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) d[i] = d[i] * f + a; }'
SPIN = 'extern "C" __global__ void spin(int* d, int rounds, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) { int v = d[i]; for (int r = 0; r < rounds; r++) v = v * 3 + r; d[i] = v; } }'


def spun(values: np.ndarray, rounds: int) -> np.ndarray:
    for r in range(rounds):
        values = (values * np.int32(3) + np.int32(r)).astype(np.int32)
    return values


@case
def reused_events(gpu: Session):
    """One event recorded again and again: a wait means the record before it, whatever is recorded afterwards."""
    step, n = gpu.function(STEP, "step"), 512
    a, b = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
    event = ok(driver.cuEventCreate(EVENTS.CU_EVENT_DISABLE_TIMING))
    data, want = gpu.empty(4 * n), np.zeros(n, np.int32)
    gpu.synchronize()
    for i in range(60):
        stream, other = (a, b) if i % 2 else (b, a)
        gpu.launch(step, (4,), (128,), data, ctypes.c_int(3), ctypes.c_int(i), ctypes.c_int(n), stream=stream)
        ok(driver.cuEventRecord(event, stream))
        ok(driver.cuStreamWaitEvent(other, event, 0))
        want = (want * np.int32(3) + np.int32(i)).astype(np.int32)
    # Recorded again on an idle stream after the last wait: synchronising means this record.
    ok(driver.cuStreamSynchronize(a))
    ok(driver.cuStreamSynchronize(b))
    ok(driver.cuEventRecord(event, a))
    ok(driver.cuEventSynchronize(event))
    # An event may go as soon as its wait is queued.
    short = ok(driver.cuEventCreate(EVENTS.CU_EVENT_DISABLE_TIMING))
    gpu.launch(step, (4,), (128,), data, ctypes.c_int(5), ctypes.c_int(1), ctypes.c_int(n), stream=a)
    ok(driver.cuEventRecord(short, a))
    ok(driver.cuStreamWaitEvent(b, short, 0))
    ok(driver.cuEventDestroy(short))
    gpu.launch(step, (4,), (128,), data, ctypes.c_int(7), ctypes.c_int(2), ctypes.c_int(n), stream=b)
    ok(driver.cuStreamSynchronize(b))
    want = ((want * np.int32(5) + np.int32(1)) * np.int32(7) + np.int32(2)).astype(np.int32)
    return {"data": check(gpu.download(data, n, np.int32), want)}


@case
def event_flags(gpu: Session):
    """Every kind of event that a runtime creates, and records with flags."""
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    results = {}
    for name in ("DEFAULT", "BLOCKING_SYNC", "DISABLE_TIMING"):
        event = ok(driver.cuEventCreate(getattr(EVENTS, "CU_EVENT_" + name)))
        ok(driver.cuEventRecordWithFlags(event, stream, 0))
        results[name] = code(driver.cuEventSynchronize(event)), code(driver.cuEventQuery(event))
        ok(driver.cuEventDestroy(event))
    both = EVENTS.CU_EVENT_BLOCKING_SYNC | EVENTS.CU_EVENT_DISABLE_TIMING
    event = ok(driver.cuEventCreate(int(both)))
    results["external outside capture"] = code(driver.cuEventRecordWithFlags(
        event, stream, int(driver.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL)))
    results["interprocess with timing"] = code(driver.cuEventCreate(int(EVENTS.CU_EVENT_INTERPROCESS)))
    return results


@case
def callbacks_on_two_streams(gpu: Session):
    """Host functions and stream callbacks: in order within a stream, and around events between streams."""
    step, n = gpu.function(STEP, "step"), 256
    a, b = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
    event = ok(driver.cuEventCreate(EVENTS.CU_EVENT_DISABLE_TIMING))
    host = int(ok(driver.cuMemHostAlloc(4 * n, 0)))
    view = np.ctypeslib.as_array((ctypes.c_int32 * n).from_address(host))
    data, order, sums = gpu.empty(4 * n), [], []
    gpu.synchronize()

    def observe(number):
        order.append(number)
        sums.append(int(view.sum()))

    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(observe)
    legacy = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(lambda stream, status, number: observe(number + 1000 * status))
    address, legacy_address = (ctypes.cast(f, ctypes.c_void_p).value for f in (function, legacy))
    for i in range(1, 7):
        stream, other = (a, b) if i % 2 else (b, a)
        gpu.launch(step, (2,), (128,), data, ctypes.c_int(1), ctypes.c_int(i), ctypes.c_int(n), stream=stream)
        ok(driver.cuMemcpyDtoHAsync(host, data, 4 * n, stream))
        if i % 3:
            ok(driver.cuLaunchHostFunc(stream, address, i))
        else:
            ok(driver.cuStreamAddCallback(stream, legacy_address, i, 0))
        ok(driver.cuEventRecord(event, stream))
        ok(driver.cuStreamWaitEvent(other, event, 0))
    ok(driver.cuStreamSynchronize(a))
    ok(driver.cuStreamSynchronize(b))
    assert order == [1, 2, 3, 4, 5, 6], order
    assert sums == [n * i * (i + 1) // 2 for i in range(1, 7)], sums
    ok(driver.cuMemFreeHost(host))
    return {"order": order, "sums": sums}


@case
def stream_priorities(gpu: Session):
    """Priorities are clamped, told, and do not change what is computed."""
    least, greatest = map(int, ok(driver.cuCtxGetStreamPriorityRange()))
    step, n, told, outs = gpu.function(STEP, "step"), 256, [], []
    for priority in (least + 3, least, greatest, greatest - 3):
        stream = ok(driver.cuStreamCreateWithPriority(NON_BLOCKING, priority))
        told.append([int(ok(driver.cuStreamGetPriority(stream))), int(ok(driver.cuStreamGetFlags(stream)))])
        data = gpu.empty(4 * n)
        gpu.synchronize()
        for i in range(5):
            gpu.launch(step, (2,), (128,), data, ctypes.c_int(2), ctypes.c_int(i), ctypes.c_int(n), stream=stream)
        ok(driver.cuStreamSynchronize(stream))
        outs.append(gpu.download(data, n, np.int32))
    ids = {int(ok(driver.cuStreamGetId(s))) for s in (stream, 0)}
    return {"range": [least, greatest], "told": told, "ids": len(ids),
            "outs": check(np.concatenate(outs), np.full(4 * n, 26, np.int32))}


@case
def stream_destroyed_with_work(gpu: Session):
    """A destroyed stream finishes what it has; an event recorded on it stays good."""
    spin, n = gpu.function(SPIN, "spin"), 2048
    buffers, events = [], []
    for _ in range(6):
        stream = ok(driver.cuStreamCreate(NON_BLOCKING))
        data, event = gpu.empty(4 * n), ok(driver.cuEventCreate(EVENTS.CU_EVENT_DISABLE_TIMING))
        gpu.synchronize()
        for _ in range(4):
            gpu.launch(spin, (16,), (128,), data, ctypes.c_int(50), ctypes.c_int(n), stream=stream)
        ok(driver.cuEventRecord(event, stream))
        ok(driver.cuStreamDestroy(stream))
        buffers.append(data)
        events.append(event)
    for event in events:
        ok(driver.cuEventSynchronize(event))
    want = np.zeros(n, np.int32)
    for _ in range(4):
        want = spun(want, 50)
    got = np.stack([gpu.download(b, n, np.int32) for b in buffers])
    return {"data": check(got, np.stack([want] * 6))}


@case
def free_with_work_pending(gpu: Session):
    """cuMemFree waits for what uses the memory; the next allocation may have its address and nobody sees the other's data."""
    spin, step, n = gpu.function(SPIN, "spin"), gpu.function(STEP, "step"), 4096
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    out = gpu.empty(4 * n)
    gpu.synchronize()
    sums = []
    for i in range(10):
        victim = int(ok(driver.cuMemAlloc(4 * n)))
        ok(driver.cuMemsetD32Async(victim, i, n, stream))
        gpu.launch(spin, (32,), (128,), victim, ctypes.c_int(60), ctypes.c_int(n), stream=stream)
        ok(driver.cuMemcpyDtoDAsync(out, victim, 4 * n, stream))
        ok(driver.cuMemFree(victim))
        fresh = int(ok(driver.cuMemAlloc(4 * n)))
        ok(driver.cuMemsetD32(fresh, 0, n))
        gpu.launch(step, (32,), (128,), fresh, ctypes.c_int(1), ctypes.c_int(9), ctypes.c_int(n))
        mine = gpu.download(fresh, n, np.int32)
        ok(driver.cuStreamSynchronize(stream))
        check(mine, np.full(n, 9, np.int32))
        check(gpu.download(out, n, np.int32), spun(np.full(n, i, np.int32), 60))
        ok(driver.cuMemFree(fresh))
        sums.append(int(mine.sum()))
    return {"sums": sums}
