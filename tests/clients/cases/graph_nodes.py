"""Nodes of every kind: what they may copy, what changes in the graph and in the executable graph, what is left when they go."""

from __future__ import annotations

import ctypes
import time

import numpy as np
from cuda.bindings import driver

from cases.command_buffers import AXPY, copy_node, kernel_node, launch, memset_node
from device import Session, attribute_value, code, ok
from registry import case, check

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
KINDS = driver.CUmemorytype
MODE = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
N = 2000


def host_copy(device: int, host: int, to_device: bool, row: int, height: int = 1, depth: int = 1, pitch: int = 0, rows: int = 0):
    """A copy between packed device memory and host memory with this pitch and these rows by slice."""
    node = driver.CUDA_MEMCPY3D()
    pitch, rows = pitch or row, rows or height
    if to_device:
        node.srcMemoryType, node.srcHost, node.srcPitch, node.srcHeight = KINDS.CU_MEMORYTYPE_HOST, host, pitch, rows
        node.dstMemoryType, node.dstDevice, node.dstPitch, node.dstHeight = KINDS.CU_MEMORYTYPE_DEVICE, device, row, height
    else:
        node.srcMemoryType, node.srcDevice, node.srcPitch, node.srcHeight = KINDS.CU_MEMORYTYPE_DEVICE, device, row, height
        node.dstMemoryType, node.dstHost, node.dstPitch, node.dstHeight = KINDS.CU_MEMORYTYPE_HOST, host, pitch, rows
    node.WidthInBytes, node.Height, node.Depth = row, height, depth
    return node


@case
def copies_of_pageable_memory(gpu: Session):
    """To the device, a kernel, back to the host: pageable memory is read and written at every launch, in its place in the graph."""
    function = gpu.function(AXPY, "axpy")
    x, y, stream = gpu.empty(4 * N), gpu.empty(4 * N), ok(driver.cuStreamCreate(NON_BLOCKING))
    source, target, other = (np.zeros(N, np.int32) for _ in range(3))
    gpu.synchronize()
    graph = ok(driver.cuGraphCreate(0))
    up = ok(driver.cuGraphAddMemcpyNode(graph, None, 0, host_copy(x, source.ctypes.data, True, 4 * N), gpu.context))
    params, _keep = kernel_node(function, y, x, ctypes.c_int(2), ctypes.c_int(N))
    kernel = ok(driver.cuGraphAddKernelNode(graph, [up], 1, params))
    down = ok(driver.cuGraphAddMemcpyNode(graph, [kernel], 1, host_copy(y, target.ctypes.data, False, 4 * N), gpu.context))
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    want, results = np.zeros(N, np.int32), {}
    for round_ in range(4):
        source[:] = np.arange(N) + round_
        launch(gpu, execution, stream)
        want += 2 * source
        results[f"round {round_}"] = check(target.copy(), want)
    ok(driver.cuGraphExecMemcpyNodeSetParams(execution, down, host_copy(y, other.ctypes.data, False, 4 * N), gpu.context))
    launch(gpu, execution, stream)
    want += 2 * source
    results["other target"] = check(other.copy(), want)
    check(target, want - 2 * source)
    # Inside another graph, which is updated as a whole.
    outer = ok(driver.cuGraphCreate(0))
    ok(driver.cuGraphAddChildGraphNode(outer, None, 0, graph))
    execution = ok(driver.cuGraphInstantiate(outer, 0))
    ok(driver.cuGraphDestroy(graph))
    launch(gpu, execution, stream)
    want += 2 * source
    results["inside"] = check(target.copy(), want)
    results["update"] = code(driver.cuGraphExecUpdate(execution, outer))
    launch(gpu, execution, stream)
    check(target, want + 2 * source)
    ok(driver.cuGraphExecDestroy(execution))
    return results


@case
def captured_copies_of_pageable_memory(gpu: Session):
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    device, source, target = gpu.empty(4 * N), np.arange(N, dtype=np.int32), np.zeros(N, np.int32)
    gpu.synchronize()
    ok(driver.cuStreamBeginCapture(stream, MODE))
    ok(driver.cuMemcpyHtoDAsync(device, source.ctypes.data, 4 * N, stream))
    ok(driver.cuMemcpyDtoHAsync(target.ctypes.data, device, 4 * N, stream))
    graph = ok(driver.cuStreamEndCapture(stream))
    before = check(target.copy(), np.zeros(N, np.int32))
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    for factor in (3, 5):
        source *= factor
        launch(gpu, execution, stream)
        check(target, source)
    ok(driver.cuGraphExecDestroy(execution))
    return {"before": before, "after": check(target.copy(), 15 * np.arange(N, dtype=np.int32))}


@case
def pitched_copies_in_graphs(gpu: Session):
    """Two and three dimensions, between the device and pinned or pageable memory."""
    row, height, depth, pitch, rows = 60, 5, 3, 128, 7
    stream, packed = ok(driver.cuStreamCreate(NON_BLOCKING)), row * height * depth
    bytes_ = pitch * rows * depth
    pinned = int(ok(driver.cuMemHostAlloc(bytes_, 0)))
    views = {"pinned": np.frombuffer((ctypes.c_char * bytes_).from_address(pinned), np.uint8), "pageable": np.zeros(bytes_, np.uint8)}
    device, results = gpu.empty(packed), {}
    for name, view in views.items():
        at = int(view.ctypes.data)
        for dimensions, size in (("2D", (row, height, 1)), ("3D", (row, height, depth))):
            view[:] = np.random.default_rng(len(results)).integers(0, 256, bytes_, dtype=np.uint8)
            box = view.reshape(depth, rows, pitch)[:size[2], :height, :row].copy()
            ok(driver.cuMemsetD8(device, 0, packed))
            gpu.synchronize()
            graph = ok(driver.cuGraphCreate(0))
            up = ok(driver.cuGraphAddMemcpyNode(graph, None, 0, host_copy(device, at, True, *size, pitch, rows), gpu.context))
            ok(driver.cuGraphAddMemcpyNode(graph, [up], 1, host_copy(device, at + pitch * height, False, row, 1), gpu.context))
            execution = ok(driver.cuGraphInstantiate(graph, 0))
            launch(gpu, execution, stream)
            got = gpu.download(device, packed, np.uint8)[:box.size]
            results[f"{name} {dimensions}"] = check(got, box.reshape(-1))
            results[f"{name} {dimensions} back"] = check(view[pitch * height:pitch * height + row].copy(), box[0, 0])
            ok(driver.cuGraphExecDestroy(execution))
    return results


@case
def edited_graph(gpu: Session):
    """Nodes and edges removed and added, parameters set in the graph, a clone that keeps what it was."""
    function = gpu.function(AXPY, "axpy")
    x, y, z = gpu.upload(np.ones(N, np.int32)), gpu.empty(4 * N), gpu.empty(4 * N)
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    gpu.synchronize()
    graph = ok(driver.cuGraphCreate(0))
    fill = ok(driver.cuGraphAddMemsetNode(graph, None, 0, memset_node(y, 1, N), gpu.context))
    kernels = []
    for factor in (10, 100):
        params, _keep = kernel_node(function, y, x, ctypes.c_int(factor), ctypes.c_int(N))
        kernels.append(ok(driver.cuGraphAddKernelNode(graph, [fill] + kernels, 1 + len(kernels), params)))
    copy = ok(driver.cuGraphAddMemcpyNode(graph, kernels, 2, copy_node(z, y, 4 * N), gpu.context))
    clone = ok(driver.cuGraphClone(graph))
    ok(driver.cuGraphDestroyNode(kernels[0]))
    ok(driver.cuGraphMemsetNodeSetParams(fill, memset_node(y, 2, N)))
    params, _keep = kernel_node(function, y, x, ctypes.c_int(1000), ctypes.c_int(N))
    ok(driver.cuGraphKernelNodeSetParams(kernels[1], params))
    empty = ok(driver.cuGraphAddEmptyNode(graph, [kernels[1]], 1))
    ok(driver.cuGraphRemoveDependencies(graph, [kernels[1]], [copy], None, 1))
    ok(driver.cuGraphAddDependencies(graph, [empty], [copy], None, 1))
    results = {
        "edges": [int(ok(driver.cuGraphGetEdges(g, 0))[-1]) for g in (graph, clone)],
        "nodes": [int(ok(driver.cuGraphGetNodes(g, 0))[1]) for g in (graph, clone)],
    }
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    launch(gpu, execution, stream)
    results["edited"] = check(gpu.download(z, N, np.int32), np.full(N, 1002, np.int32))
    of_clone = ok(driver.cuGraphInstantiate(clone, 0))
    launch(gpu, of_clone, stream)
    results["clone"] = check(gpu.download(z, N, np.int32), np.full(N, 111, np.int32))
    found = ok(driver.cuGraphNodeFindInClone(kernels[1], clone))
    # The clone's own node, in the clone's executable graph.
    params, _keep = kernel_node(function, y, x, ctypes.c_int(5), ctypes.c_int(N))
    ok(driver.cuGraphExecKernelNodeSetParams(of_clone, found, params))
    launch(gpu, of_clone, stream)
    results["clone set"] = check(gpu.download(z, N, np.int32), np.full(N, 16, np.int32))
    for value in (0, 1):
        ok(driver.cuGraphNodeSetEnabled(execution, fill, value))
        ok(driver.cuGraphNodeSetEnabled(execution, copy, value))
        launch(gpu, execution, stream)
        results[f"enabled {value}"] = gpu.download(z, 1, np.int32).tolist() + gpu.download(y, 1, np.int32).tolist()
    return results


@case
def updates_that_do_not_fit(gpu: Session):
    """cuGraphExecUpdate says what differs, and leaves the executable graph as it was."""
    function = gpu.function(AXPY, "axpy")
    x, y = gpu.upload(np.ones(N, np.int32)), gpu.empty(4 * N)
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    gpu.synchronize()

    def graph(*kinds, chained=True):
        made, last = ok(driver.cuGraphCreate(0)), []
        for kind in kinds:
            if kind == "fill":
                node = ok(driver.cuGraphAddMemsetNode(made, last or None, len(last), memset_node(y, 7, N), gpu.context))
            else:
                params, _keep = kernel_node(function, y, x, ctypes.c_int(kind), ctypes.c_int(N))
                node = ok(driver.cuGraphAddKernelNode(made, last or None, len(last), params))
            last = [node] if chained else []
        return made

    execution = ok(driver.cuGraphInstantiate(graph("fill", 1), 0))
    results = {}
    for name, other in (("types", graph(2, 2)), ("more nodes", graph("fill", 2, 2)), ("no edges", graph("fill", 2, chained=False)),
                        ("fits", graph("fill", 3))):
        status, info = driver.cuGraphExecUpdate(execution, other)
        results[name] = [status.name, info.result.name if info is not None else None]
        launch(gpu, execution, stream)
        results[name + " data"] = check(gpu.download(y, N, np.int32), np.full(N, 10 if name == "fits" else 8, np.int32))
    return results


@case
def events_and_functions_set_in_an_executable_graph(gpu: Session):
    """Another event to record and to wait for, another host function."""
    seen = []
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    callback = prototype(lambda data: seen.append(data))
    stream, other = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
    awaited, recorded, second = (ok(driver.cuEventCreate(0)) for _ in range(3))
    graph = ok(driver.cuGraphCreate(0))
    wait = ok(driver.cuGraphAddEventWaitNode(graph, None, 0, awaited))
    node = driver.CUDA_HOST_NODE_PARAMS()
    node.fn, node.userData = ctypes.cast(callback, ctypes.c_void_p).value, 1
    function = ok(driver.cuGraphAddHostNode(graph, [wait], 1, node))
    record = ok(driver.cuGraphAddEventRecordNode(graph, [function], 1, recorded))
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    launch(gpu, execution, stream)
    node.userData = 2
    ok(driver.cuGraphExecHostNodeSetParams(execution, function, node))
    ok(driver.cuGraphExecEventRecordNodeSetEvent(execution, record, second))
    ok(driver.cuGraphExecEventWaitNodeSetEvent(execution, wait, recorded))
    cell = gpu.empty(4)
    # Recorded behind a wait that ends only when the program says so.
    ok(driver.cuStreamWaitValue32(other, cell, 1, 0))
    ok(driver.cuEventRecord(recorded, other))
    ok(driver.cuGraphLaunch(execution, stream))
    results = {"waits": code(driver.cuEventQuery(second)), "seen": list(seen)}
    ok(driver.cuMemsetD32(cell, 1, 1))
    ok(driver.cuStreamSynchronize(stream))
    results["after"] = [code(driver.cuEventQuery(second)), list(seen)]
    results["events"] = [int(ok(driver.cuGraphEventWaitNodeGetEvent(wait))) == int(awaited),
                         int(ok(driver.cuGraphEventRecordNodeGetEvent(record))) == int(recorded)]
    assert seen == [1, 2], seen
    return results


@case
def attributes_of_kernel_nodes(gpu: Session):
    """Set, copied to another node, read back; a cooperative node."""
    function = gpu.function(AXPY, "axpy")
    x, y, stream = gpu.upload(np.ones(N, np.int32)), gpu.empty(4 * N), ok(driver.cuStreamCreate(NON_BLOCKING))
    gpu.synchronize()
    graph, nodes = ok(driver.cuGraphCreate(0)), []
    for factor in (1, 2):
        params, _keep = kernel_node(function, y, x, ctypes.c_int(factor), ctypes.c_int(N))
        nodes.append(ok(driver.cuGraphAddKernelNode(graph, nodes or None, len(nodes), params)))
    ids = driver.CUlaunchAttributeID
    value = lambda name, number: attribute_value(name, number, driver.CUkernelNodeAttrValue)  # noqa: E731
    ok(driver.cuGraphKernelNodeSetAttribute(nodes[0], ids.CU_LAUNCH_ATTRIBUTE_COOPERATIVE, value("COOPERATIVE", 1)))
    ok(driver.cuGraphKernelNodeSetAttribute(nodes[0], ids.CU_LAUNCH_ATTRIBUTE_PRIORITY, value("PRIORITY", -1)))
    ok(driver.cuGraphKernelNodeCopyAttributes(nodes[1], nodes[0]))
    results = {
        "cooperative": [int(ok(driver.cuGraphKernelNodeGetAttribute(node, ids.CU_LAUNCH_ATTRIBUTE_COOPERATIVE)).cooperative) for node in nodes],
        "priority": [int(ok(driver.cuGraphKernelNodeGetAttribute(node, ids.CU_LAUNCH_ATTRIBUTE_PRIORITY)).priority) for node in nodes],
    }
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    launch(gpu, execution, stream)
    results["data"] = check(gpu.download(y, N, np.int32), np.full(N, 3, np.int32))
    params, _keep = kernel_node(function, y, x, ctypes.c_int(10), ctypes.c_int(N))
    ok(driver.cuGraphExecKernelNodeSetParams(execution, nodes[1], params))
    launch(gpu, execution, stream)
    results["changed"] = check(gpu.download(y, N, np.int32), np.full(N, 3 + 11, np.int32))
    return results


@case
def user_objects(gpu: Session):
    """A resource that lives as long as the graphs and executable graphs that refer to it."""
    gone = []
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    destroy = prototype(lambda data: gone.append(data))

    def eventually(count: int) -> bool:
        for _ in range(400):
            if len(gone) == count:
                return True
            time.sleep(0.005)
        return False

    flags, move = driver.CUuserObject_flags.CU_USER_OBJECT_NO_DESTRUCTOR_SYNC, 1
    function = ctypes.cast(destroy, ctypes.c_void_p).value
    made = [ok(driver.cuUserObjectCreate(data, driver.CUhostFn(function), 1, int(flags))) for data in (1, 2)]
    graph = ok(driver.cuGraphCreate(0))
    ok(driver.cuGraphAddEmptyNode(graph, None, 0))
    ok(driver.cuGraphRetainUserObject(graph, made[0], 1, move))
    ok(driver.cuGraphRetainUserObject(graph, made[1], 1, move))
    ok(driver.cuGraphReleaseUserObject(graph, made[1], 1))
    results = {"released": [eventually(1), list(gone)]}
    clone, execution = ok(driver.cuGraphClone(graph)), ok(driver.cuGraphInstantiate(graph, 0))
    ok(driver.cuGraphLaunch(execution, 0))
    gpu.synchronize()
    ok(driver.cuGraphDestroy(graph))
    ok(driver.cuGraphDestroy(clone))
    results["held"] = list(gone)
    ok(driver.cuGraphExecDestroy(execution))
    results["gone"] = [eventually(2), list(gone)]
    assert results["gone"] == [True, [2, 1]] and results["held"] == [2], results
    return results
