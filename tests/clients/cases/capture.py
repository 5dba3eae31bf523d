"""Stream capture as PyTorch does it: modes, exchanges of the mode, side streams, pools, replays."""

from __future__ import annotations

import ctypes
import tempfile
import threading
from pathlib import Path

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

MODES = driver.CUstreamCaptureMode
GLOBAL, THREAD_LOCAL, RELAXED = (
    MODES.CU_STREAM_CAPTURE_MODE_GLOBAL, MODES.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, MODES.CU_STREAM_CAPTURE_MODE_RELAXED)
AUTO_FREE_AND_PRIORITY = 1 | 8
NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
DISABLE_TIMING = driver.CUevent_flags.CU_EVENT_DISABLE_TIMING
STEP = 'extern "C" __global__ void step(int* d, const int* add, int f, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) d[i] = d[i] * f + add[i]; }'
N = 3000


def allocate_while_capturing(bytes_: int) -> int:
    """As a caching allocator does: the thread's mode is relaxed around the call and put back."""
    before = ok(driver.cuThreadExchangeStreamCaptureMode(RELAXED))
    pointer = int(ok(driver.cuMemAlloc(bytes_)))
    ok(driver.cuThreadExchangeStreamCaptureMode(before))
    return pointer


@case
def torch_graph(gpu: Session):
    """Capture with allocations inside and a side stream, instantiate, drop the graph, replay on two streams."""
    function = gpu.function(STEP, "step")
    stream, side, other = (ok(driver.cuStreamCreateWithPriority(NON_BLOCKING, p)) for p in (0, -1, 0))
    fork, join = (ok(driver.cuEventCreate(DISABLE_TIMING)) for _ in range(2))
    data, add = gpu.empty(4 * N), gpu.upload(np.arange(N, dtype=np.int32))
    gpu.synchronize()
    results = {}
    for mode in (GLOBAL, THREAD_LOCAL, RELAXED):
        ok(driver.cuStreamBeginCapture(stream, mode))
        info = ok(driver.cuStreamGetCaptureInfo(stream))
        pool = allocate_while_capturing(4 * N)
        ok(driver.cuMemsetD32Async(pool, 1, N, stream))
        ok(driver.cuEventRecord(fork, stream))
        ok(driver.cuStreamWaitEvent(side, fork, 0))
        side_status = ok(driver.cuStreamIsCapturing(side)).name
        same_id = int(ok(driver.cuStreamGetCaptureInfo(side))[1]) == int(info[1])
        gpu.launch(function, (12,), (256,), data, add, ctypes.c_int(3), ctypes.c_int(N), stream=stream)
        gpu.launch(function, (12,), (256,), pool, add, ctypes.c_int(2), ctypes.c_int(N), stream=side)
        ok(driver.cuEventRecord(join, side))
        ok(driver.cuStreamWaitEvent(stream, join, 0))
        ok(driver.cuMemcpyDtoDAsync(add, pool, 4 * N, stream))
        graph = ok(driver.cuStreamEndCapture(stream))
        nodes = int(ok(driver.cuGraphGetNodes(graph, 0))[1])
        execution = ok(driver.cuGraphInstantiate(graph, AUTO_FREE_AND_PRIORITY))
        ok(driver.cuGraphDestroy(graph))
        ok(driver.cuGraphUpload(execution, stream))
        want, adding = np.zeros(N, np.int32), np.arange(N, dtype=np.int32)
        ok(driver.cuMemcpyHtoDAsync(add, adding.ctypes.data, adding.nbytes, stream))
        ok(driver.cuMemsetD32Async(data, 0, N, stream))
        for replay in range(12):
            target = stream if replay % 3 else other
            # A replay on another stream is ordered by an event, as torch.cuda.Stream.wait_stream does.
            ok(driver.cuEventRecord(fork, stream if target is other else other))
            ok(driver.cuStreamWaitEvent(target, fork, 0))
            ok(driver.cuGraphLaunch(execution, target))
            want = (want * np.int32(3) + adding).astype(np.int32)
            adding = (2 + adding).astype(np.int32)
        ok(driver.cuStreamSynchronize(stream))
        ok(driver.cuStreamSynchronize(other))
        results[mode.name] = [side_status, same_id, nodes]
        results[mode.name + " data"] = check(gpu.download(data, N, np.int32), want)
        before = ok(driver.cuThreadExchangeStreamCaptureMode(RELAXED))
        ok(driver.cuGraphExecDestroy(execution))
        ok(driver.cuThreadExchangeStreamCaptureMode(before))
        ok(driver.cuMemFree(pool))
    return results


@case
def graphs_of_one_pool(gpu: Session):
    """Several graphs captured over the same memory, kept and replayed in order, as compiled functions share a pool."""
    function = gpu.function(STEP, "step")
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    data, add = gpu.empty(4 * N), gpu.upload(np.ones(N, np.int32))
    executions, want = [], np.zeros(N, np.int32)
    for factor in (2, 3, 5, 7):
        ok(driver.cuStreamBeginCapture(stream, THREAD_LOCAL))
        for _ in range(factor):
            gpu.launch(function, (12,), (256,), data, add, ctypes.c_int(factor), ctypes.c_int(N), stream=stream)
        graph = ok(driver.cuStreamEndCapture(stream))
        executions.append((factor, graph, ok(driver.cuGraphInstantiate(graph, AUTO_FREE_AND_PRIORITY))))
    for _ in range(5):
        for factor, _graph, execution in executions:
            ok(driver.cuGraphLaunch(execution, stream))
            for _ in range(factor):
                want = (want * np.int32(factor) + np.int32(1)).astype(np.int32)
    # Destroyed with replays still under way, as when a program drops its graphs.
    for _, graph, execution in executions:
        ok(driver.cuGraphExecDestroy(execution))
        ok(driver.cuGraphDestroy(graph))
    ok(driver.cuStreamSynchronize(stream))
    return {"data": check(gpu.download(data, N, np.int32), want)}


@case
def capture_beside_other_threads(gpu: Session):
    """While one thread captures, a data loader's thread copies and synchronises on its own stream."""
    function = gpu.function(STEP, "step")
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    data, add, other = gpu.empty(4 * N), gpu.upload(np.ones(N, np.int32)), gpu.empty(4 * N)
    gpu.synchronize()
    seen, failures = [], []
    capturing, done = threading.Event(), threading.Event()

    def loader():
        try:
            ok(driver.cuCtxSetCurrent(gpu.context))
            mine = ok(driver.cuStreamCreate(NON_BLOCKING))
            event = ok(driver.cuEventCreate(DISABLE_TIMING))
            assert capturing.wait(30)
            host = int(ok(driver.cuMemHostAlloc(4 * N, 0)))
            view = np.ctypeslib.as_array((ctypes.c_int32 * N).from_address(host))
            for i in range(20):
                view[:] = i
                ok(driver.cuMemcpyHtoDAsync(other, host, 4 * N, mine))
                ok(driver.cuEventRecord(event, mine))
                while code(driver.cuEventQuery(event)) == "CUDA_ERROR_NOT_READY":
                    pass
                ok(driver.cuMemcpyDtoHAsync(host, other, 4 * N, mine))
                ok(driver.cuStreamSynchronize(mine))
                seen.append(int(view.sum()))
            ok(driver.cuMemFreeHost(host))
        except Exception as error:  # noqa: BLE001: raised by the case below.
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=loader)
    thread.start()
    ok(driver.cuStreamBeginCapture(stream, THREAD_LOCAL))
    capturing.set()
    for _ in range(10):
        gpu.launch(function, (12,), (256,), data, add, ctypes.c_int(2), ctypes.c_int(N), stream=stream)
    assert done.wait(60)
    thread.join()
    graph = ok(driver.cuStreamEndCapture(stream))
    if failures:
        raise failures[0]
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    ok(driver.cuGraphLaunch(execution, stream))
    ok(driver.cuStreamSynchronize(stream))
    assert seen == [i * N for i in range(20)], seen
    return {"seen": seen, "data": check(gpu.download(data, N, np.int32), np.full(N, 1023, np.int32))}


@case
def graph_inspection(gpu: Session):
    """What programs ask of a captured graph: nodes, types, edges, parameters, clones, the dot file."""
    function = gpu.function(STEP, "step")
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    data, add = gpu.empty(4 * N), gpu.upload(np.ones(N, np.int32))
    ok(driver.cuStreamBeginCapture(stream, THREAD_LOCAL))
    ok(driver.cuMemsetD32Async(data, 4, N, stream))
    gpu.launch(function, (12,), (256,), data, add, ctypes.c_int(2), ctypes.c_int(N), stream=stream)
    ok(driver.cuMemcpyDtoDAsync(add, data, 4 * N, stream))
    graph = ok(driver.cuStreamEndCapture(stream))
    count = int(ok(driver.cuGraphGetNodes(graph, 0))[1])
    nodes = ok(driver.cuGraphGetNodes(graph, count))[0]
    types = [ok(driver.cuGraphNodeGetType(node)).name for node in nodes]
    edges = int(ok(driver.cuGraphGetEdges(graph, 0))[-1])
    roots = int(ok(driver.cuGraphGetRootNodes(graph, 0))[1])
    kernel = nodes[types.index("CU_GRAPH_NODE_TYPE_KERNEL")]
    found = ok(driver.cuGraphKernelNodeGetParams(kernel))
    clone = ok(driver.cuGraphClone(graph))
    ok(driver.cuGraphDestroy(graph))
    with tempfile.TemporaryDirectory() as folder:
        dot = Path(folder) / "graph.dot"
        flags = driver.CUgraphDebugDot_flags.CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE
        printed = code(driver.cuGraphDebugDotPrint(clone, str(dot).encode(), int(flags)))
        has_dot = dot.exists() and "digraph" in dot.read_text()
    parameters = driver.CUDA_GRAPH_INSTANTIATE_PARAMS()
    parameters.flags, parameters.hUploadStream = 2, stream
    execution = ok(driver.cuGraphInstantiateWithParams(clone, parameters))
    ok(driver.cuGraphLaunch(execution, stream))
    ok(driver.cuStreamSynchronize(stream))
    return {
        "types": types, "edges": edges, "roots": roots, "grid": int(found.gridDimX), "block": int(found.blockDimX),
        "dot": [printed, has_dot], "result": int(parameters.result_out),
        "data": check(gpu.download(add, N, np.int32), np.full(N, 9, np.int32)),
    }
