"""Graphs: captured and built node by node."""

from __future__ import annotations

import ctypes
import threading
import time

import numpy as np
from cuda.bindings import driver

from device import Session, ok
from registry import case, check


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
def user_objects_outlive_launches(gpu: Session):
    """What a graph keeps is let go when its last executable graph is gone and its work is done, not before."""
    stream = ok(driver.cuStreamCreate(1))
    word, flag = gpu.empty(64), gpu.empty(64)
    alive = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def gone(_):
        alive.append("gone")

    destroy = driver.CUhostFn(ctypes.cast(gone, ctypes.c_void_p).value)
    kept = ok(driver.cuUserObjectCreate(0, destroy, 1, 1))
    spin = gpu.function(
        'extern "C" __global__ void spin(volatile int* go, int* done) { while (!*go) {} *done = 1; }', "spin")
    ok(driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
    gpu.launch(spin, (1,), (1,), word, flag, stream=stream)
    graph = ok(driver.cuStreamEndCapture(stream))
    ok(driver.cuGraphRetainUserObject(graph, kept, 1, driver.CUuserObjectRetain_flags.CU_GRAPH_USER_OBJECT_MOVE))
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    ok(driver.cuGraphDestroy(graph))
    ok(driver.cuGraphLaunch(execution, stream))
    seen = [list(alive)]
    other = ok(driver.cuStreamCreate(1))

    def release():
        ok(driver.cuCtxSetCurrent(gpu.context))
        seen.append(list(alive))
        ok(driver.cuMemsetD32Async(word, 1, 1, other))

    thread = threading.Timer(0.3, release)
    thread.start()
    ok(driver.cuGraphExecDestroy(execution))
    thread.join()
    ok(driver.cuStreamSynchronize(stream))
    deadline = time.monotonic() + 10
    while not alive and time.monotonic() < deadline:
        time.sleep(0.01)
    return {"before": seen, "after": list(alive), "done": int(gpu.download(flag, 1, np.int32)[0])}
