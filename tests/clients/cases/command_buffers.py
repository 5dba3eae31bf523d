"""Graphs built node by node, updated and nested, as XLA's command buffers are."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, attribute_value, code, ok, parameters
from registry import case, check

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
AXPY = 'extern "C" __global__ void axpy(int* y, const int* x, int a, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] += a * x[i]; }'
N = 2000


def kernel_node(function, *args, shared: int = 0):
    """The node's parameters, and what has to live until the call that takes them returns."""
    keep, pointers = parameters(*args)
    node = driver.CUDA_KERNEL_NODE_PARAMS()
    node.func = function
    node.gridDimX, node.gridDimY, node.gridDimZ = (N + 127) // 128, 1, 1
    node.blockDimX, node.blockDimY, node.blockDimZ = 128, 1, 1
    node.sharedMemBytes = shared
    node.kernelParams = ctypes.addressof(pointers)
    return node, (keep, pointers)


def memset_node(address: int, value: int, count: int):
    node = driver.CUDA_MEMSET_NODE_PARAMS()
    node.dst, node.elementSize, node.value, node.width, node.height = address, 4, value, count, 1
    return node


def copy_node(target: int, source: int, bytes_: int):
    node = driver.CUDA_MEMCPY3D()
    node.srcMemoryType = node.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
    node.srcDevice, node.dstDevice = source, target
    node.WidthInBytes, node.Height, node.Depth = bytes_, 1, 1
    return node


def launch(gpu: Session, execution, stream):
    ok(driver.cuGraphLaunch(execution, stream))
    ok(driver.cuStreamSynchronize(stream))


@case
def command_buffer(gpu: Session):
    """Create, run, update each kind of node in the executable graph, run again."""
    function = gpu.function(AXPY, "axpy")
    x, y, z = gpu.upload(np.arange(N, dtype=np.int32)), gpu.empty(4 * N), gpu.empty(4 * N)
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    gpu.synchronize()
    graph = ok(driver.cuGraphCreate(0))
    fill = ok(driver.cuGraphAddMemsetNode(graph, None, 0, memset_node(y, 5, N), gpu.context))
    params, keep = kernel_node(function, y, x, ctypes.c_int(2), ctypes.c_int(N))
    kernel = ok(driver.cuGraphAddKernelNode(graph, [fill], 1, params))
    ok(driver.cuGraphKernelNodeSetAttribute(
        kernel, driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PRIORITY,
        attribute_value("PRIORITY", -1, driver.CUkernelNodeAttrValue)))
    empty = ok(driver.cuGraphAddEmptyNode(graph, [kernel], 1))
    copy = ok(driver.cuGraphAddMemcpyNode(graph, [empty], 1, copy_node(z, y, 4 * N), gpu.context))
    execution = ok(driver.cuGraphInstantiate(graph, 8))
    launch(gpu, execution, stream)
    index = np.arange(N, dtype=np.int32)
    first = check(gpu.download(z, N, np.int32), 5 + 2 * index)
    params, keep = kernel_node(function, y, x, ctypes.c_int(10), ctypes.c_int(N))
    ok(driver.cuGraphExecKernelNodeSetParams(execution, kernel, params))
    ok(driver.cuGraphExecMemsetNodeSetParams(execution, fill, memset_node(y, 7, N), gpu.context))
    target = gpu.empty(4 * N)
    gpu.synchronize()
    ok(driver.cuGraphExecMemcpyNodeSetParams(execution, copy, copy_node(target, y, 4 * N), gpu.context))
    launch(gpu, execution, stream)
    second = check(gpu.download(target, N, np.int32), 7 + 10 * index)
    untouched = check(gpu.download(z, N, np.int32), first)
    ok(driver.cuGraphNodeSetEnabled(execution, kernel, 0))
    enabled = int(ok(driver.cuGraphNodeGetEnabled(execution, kernel)))
    launch(gpu, execution, stream)
    disabled = check(gpu.download(target, N, np.int32), np.full(N, 7, np.int32))
    ok(driver.cuGraphNodeSetEnabled(execution, kernel, 1))
    launch(gpu, execution, stream)
    back = check(gpu.download(target, N, np.int32), second)
    del keep
    return {"first": first, "second": second, "untouched": untouched, "disabled": disabled, "enabled": enabled, "back": back}


@case
def nested_command_buffers(gpu: Session):
    """Child graphs, cloned and moved; new parameters for a child; cuGraphAddNode."""
    function = gpu.function(AXPY, "axpy")
    x, y = gpu.upload(np.arange(N, dtype=np.int32)), gpu.empty(4 * N)
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    gpu.synchronize()

    def child(factor: int, nodes: int = 3):
        graph, last = ok(driver.cuGraphCreate(0)), []
        for _ in range(nodes):
            params, _keep = kernel_node(function, y, x, ctypes.c_int(factor), ctypes.c_int(N))
            last = [ok(driver.cuGraphAddKernelNode(graph, last or None, len(last), params))]
        return graph

    graph = ok(driver.cuGraphCreate(0))
    fill = ok(driver.cuGraphAddMemsetNode(graph, None, 0, memset_node(y, 0, N), gpu.context))
    cloned = child(1)
    first = ok(driver.cuGraphAddChildGraphNode(graph, [fill], 1, cloned))
    moved = driver.CUgraphNodeParams()
    moved.type = driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_GRAPH
    moved.graph.graph = child(100)
    moved.graph.ownership = driver.CUgraphChildGraphNodeOwnership.CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE
    ok(driver.cuGraphAddNode(graph, [first], None, 1, moved))
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    launch(gpu, execution, stream)
    index = np.arange(N, dtype=np.int32)
    before = check(gpu.download(y, N, np.int32), 303 * index)
    inside = ok(driver.cuGraphChildGraphNodeGetGraph(first))
    count = int(ok(driver.cuGraphGetNodes(inside, 0))[1])
    ok(driver.cuGraphExecChildGraphNodeSetParams(execution, first, child(5)))
    launch(gpu, execution, stream)
    after = check(gpu.download(y, N, np.int32), 315 * index)
    return {"before": before, "after": after, "count": count}


@case
def traced_command_buffer(gpu: Session):
    """Captured into a graph that has nodes already, and updated as a whole by a graph of the same shape."""
    function = gpu.function(AXPY, "axpy")
    x, y = gpu.upload(np.arange(N, dtype=np.int32)), gpu.empty(4 * N)
    stream, tracing = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
    gpu.synchronize()
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

    def traced(factor: int, repeats: int = 2):
        graph = ok(driver.cuGraphCreate(0))
        first = ok(driver.cuGraphAddMemsetNode(graph, None, 0, memset_node(y, factor, N), gpu.context))
        ok(driver.cuStreamBeginCaptureToGraph(tracing, graph, [first], [driver.CUgraphEdgeData()], 1, mode))
        for _ in range(repeats):
            gpu.launch(function, ((N + 127) // 128,), (128,), y, x, ctypes.c_int(factor), ctypes.c_int(N), stream=tracing)
        captured = ok(driver.cuStreamEndCapture(tracing))
        assert int(captured) == int(graph)
        return graph

    graph = traced(2)
    roots = int(ok(driver.cuGraphGetRootNodes(graph, 0))[1])
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    launch(gpu, execution, stream)
    index = np.arange(N, dtype=np.int32)
    first = check(gpu.download(y, N, np.int32), 2 + 4 * index)
    status, info = driver.cuGraphExecUpdate(execution, traced(9))
    assert int(status) == 0, status
    launch(gpu, execution, stream)
    second = check(gpu.download(y, N, np.int32), 9 + 18 * index)
    refused = code(driver.cuGraphExecUpdate(execution, traced(3, repeats=4)))
    launch(gpu, execution, stream)
    kept = check(gpu.download(y, N, np.int32), second)
    return {"roots": roots, "first": first, "second": second, "updated": info.result.name, "refused": refused, "kept": kept}


@case
def command_buffer_with_shared_memory(gpu: Session):
    """A node whose kernel needs more than 48 KiB: the attribute is set just before the node is added."""
    function = gpu.function(
        """
        extern "C" __global__ void turn(int* data, int n) {
            extern __shared__ int tile[];
            for (int i = threadIdx.x; i < n; i += blockDim.x) tile[i] = data[i];
            __syncthreads();
            for (int i = threadIdx.x; i < n; i += blockDim.x) data[i] = tile[n - 1 - i];
        }""",
        "turn",
    )
    count, shared = 16384, 65536
    data, stream = gpu.upload(np.arange(count, dtype=np.int32)), ok(driver.cuStreamCreate(NON_BLOCKING))
    gpu.synchronize()
    ok(driver.cuFuncSetAttribute(
        function, driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared))
    graph = ok(driver.cuGraphCreate(0))
    params, _keep = kernel_node(function, data, ctypes.c_int(count), shared=shared)
    params.gridDimX = 1
    ok(driver.cuGraphAddKernelNode(graph, None, 0, params))
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    launch(gpu, execution, stream)
    once = check(gpu.download(data, count, np.int32), np.arange(count, dtype=np.int32)[::-1])
    trimmed = code(driver.cuDeviceGraphMemTrim(gpu.device))
    return {"once": once, "trimmed": trimmed}


@case
def host_and_event_nodes(gpu: Session):
    """Host functions inside a graph run at every launch; recorded events are seen outside."""
    order = []
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    callback = prototype(lambda data: order.append(data))
    function = gpu.function(AXPY, "axpy")
    x, y = gpu.upload(np.ones(N, np.int32)), gpu.empty(4 * N)
    stream, other = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
    event = ok(driver.cuEventCreate(0))
    gpu.synchronize()
    graph = ok(driver.cuGraphCreate(0))
    params, _keep = kernel_node(function, y, x, ctypes.c_int(1), ctypes.c_int(N))
    last = ok(driver.cuGraphAddKernelNode(graph, None, 0, params))
    for data in (11, 22):
        host = driver.CUDA_HOST_NODE_PARAMS()
        host.fn, host.userData = ctypes.cast(callback, ctypes.c_void_p).value, data
        last = ok(driver.cuGraphAddHostNode(graph, [last], 1, host))
    ok(driver.cuGraphAddEventRecordNode(graph, [last], 1, event))
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    for _ in range(3):
        ok(driver.cuGraphLaunch(execution, stream))
    ok(driver.cuStreamWaitEvent(other, event, 0))
    ok(driver.cuStreamSynchronize(other))
    ok(driver.cuStreamSynchronize(stream))
    assert order == [11, 22] * 3, order
    return {"order": order, "y": check(gpu.download(y, N, np.int32), np.full(N, 3, np.int32)),
            "event": code(driver.cuEventQuery(event))}
