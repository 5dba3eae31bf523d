"""Graphs that allocate and free memory: by hand, by capture, freed in the graph, behind it, or by the next launch."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok, parameters
from registry import case, check

STEP = 'extern "C" __global__ void step(int* d, int f, int a, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) d[i] = d[i] * f + a; }'
N = 4096
THREAD_LOCAL = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
AUTO_FREE = 1


def wanted(size: int):
    params = driver.CUDA_MEM_ALLOC_NODE_PARAMS()
    params.poolProps.allocType = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    params.poolProps.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    params.poolProps.location.id = 0
    params.bytesize = size
    return params


def fill_node(graph, after, address: int):
    params = driver.CUDA_MEMSET_NODE_PARAMS()
    params.dst, params.value, params.elementSize, params.width, params.height = driver.CUdeviceptr(address), 3, 4, N, 1
    return ok(driver.cuGraphAddMemsetNode(graph, after, len(after), params, ok(driver.cuCtxGetCurrent())))


def copy_node(graph, after, target: int, source: int):
    copy = driver.CUDA_MEMCPY3D()
    copy.srcMemoryType = copy.dstMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
    copy.srcDevice, copy.dstDevice = driver.CUdeviceptr(source), driver.CUdeviceptr(target)
    copy.WidthInBytes, copy.Height, copy.Depth = 4 * N, 1, 1
    return ok(driver.cuGraphAddMemcpyNode(graph, after, len(after), copy, ok(driver.cuCtxGetCurrent())))


@case
def allocating_nodes(gpu: Session):
    """Allocate, fill, copy out, free: every launch anew; what the nodes say of themselves."""
    out = gpu.empty(4 * N)
    graph = ok(driver.cuGraphCreate(0))
    params = wanted(4 * N)
    allocation = ok(driver.cuGraphAddMemAllocNode(graph, None, 0, params))
    address = int(params.dptr)
    fill = fill_node(graph, [allocation], address)
    copy = copy_node(graph, [fill], out, address)
    free = ok(driver.cuGraphAddMemFreeNode(graph, [copy], 1, address))
    said = ok(driver.cuGraphMemAllocNodeGetParams(allocation))
    results = {
        "types": [ok(driver.cuGraphNodeGetType(node)).name for node in (allocation, fill, copy, free)],
        "bytes": int(said.bytesize), "same": int(said.dptr) == address,
        "freed": int(ok(driver.cuGraphMemFreeNodeGetParams(free))) == address,
        "twice": code(driver.cuGraphAddMemFreeNode(graph, [copy], 1, address)),
        "foreign": code(driver.cuGraphAddMemFreeNode(graph, [copy], 1, out)),
        "clone": code(driver.cuGraphClone(graph)),
        "child": code(driver.cuGraphAddChildGraphNode(ok(driver.cuGraphCreate(0)), None, 0, graph)),
        "node": code(driver.cuGraphDestroyNode(free)),
    }
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    results["second"] = code(driver.cuGraphInstantiate(graph, 0))
    stream = ok(driver.cuStreamCreate(1))
    results["launches"] = [code(driver.cuGraphLaunch(execution, stream)) for _ in range(4)]
    ok(driver.cuStreamSynchronize(stream))
    results["out"] = check(gpu.download(out, N, np.int32), np.full(N, 3, np.int32))
    results["not allocated"] = code(driver.cuMemFree(address))
    ok(driver.cuGraphExecDestroy(execution))
    results["again"] = code(driver.cuGraphInstantiate(graph, 0))
    return results


@case
def allocation_freed_behind_the_graph(gpu: Session):
    """The memory outlives the launch: the program uses it, frees it, and may launch again only then, unless the graph frees it itself."""
    stream = ok(driver.cuStreamCreate(1))
    graph = ok(driver.cuGraphCreate(0))
    params = wanted(4 * N)
    allocation = ok(driver.cuGraphAddMemAllocNode(graph, None, 0, params))
    address = int(params.dptr)
    fill_node(graph, [allocation], address)
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    results = {"early": code(driver.cuMemFree(address))}
    ok(driver.cuGraphLaunch(execution, stream))
    ok(driver.cuStreamSynchronize(stream))
    results["out"] = check(gpu.download(address, N, np.int32), np.full(N, 3, np.int32))
    results["still"] = code(driver.cuGraphLaunch(execution, stream))
    results["free"] = code(driver.cuMemFreeAsync(address, stream))
    results["once more"] = code(driver.cuMemFreeAsync(address, stream))
    results["anew"] = code(driver.cuGraphLaunch(execution, stream))
    ok(driver.cuStreamSynchronize(stream))
    ok(driver.cuGraphExecDestroy(execution))
    ok(driver.cuGraphDestroy(graph))
    results["survives"] = check(gpu.download(address, N, np.int32), np.full(N, 3, np.int32))
    results["last"] = [code(driver.cuMemFree(address)), code(driver.cuMemFree(address))]

    graph = ok(driver.cuGraphCreate(0))
    params = wanted(4 * N)
    ok(driver.cuGraphAddMemAllocNode(graph, None, 0, params))
    execution = ok(driver.cuGraphInstantiate(graph, AUTO_FREE))
    results["by itself"] = [code(driver.cuGraphLaunch(execution, stream)) for _ in range(3)]
    ok(driver.cuStreamSynchronize(stream))
    return results


@case
def captured_allocation(gpu: Session):
    """cuMemAllocAsync and cuMemFreeAsync in a capture, as cudaMallocAsync allocators do under CUDA graphs."""
    stream = ok(driver.cuStreamCreate(1))
    step = gpu.function(STEP, "step")
    out = gpu.empty(4 * N)
    ok(driver.cuStreamBeginCapture(stream, THREAD_LOCAL))
    address = int(ok(driver.cuMemAllocAsync(4 * N, stream)))
    ok(driver.cuMemsetD32Async(address, 1, N, stream))
    for value in range(3):
        gpu.launch(step, (N // 256,), (256,), address, ctypes.c_int(2), ctypes.c_int(value), ctypes.c_int(N), stream=stream)
    ok(driver.cuMemcpyDtoDAsync(out, address, 4 * N, stream))
    ok(driver.cuMemFreeAsync(address, stream))
    graph = ok(driver.cuStreamEndCapture(stream))
    nodes, count = driver.cuGraphGetNodes(graph, 32)[1:]
    kinds = [ok(driver.cuGraphNodeGetType(node)).name for node in nodes[:count]]
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    for _ in range(3):
        ok(driver.cuGraphLaunch(execution, stream))
    ok(driver.cuStreamSynchronize(stream))
    # ((1 * 2 + 0) * 2 + 1) * 2 + 2
    return {"kinds": sorted(kinds), "out": check(gpu.download(out, N, np.int32), np.full(N, 12, np.int32))}


@case
def graph_memory_comes_back(gpu: Session):
    size = 128 << 20
    ok(driver.cuMemFree(ok(driver.cuMemAlloc(256 << 20))))
    before = int(ok(driver.cuMemGetInfo())[0])
    for _ in range(3):
        graph = ok(driver.cuGraphCreate(0))
        params = wanted(size)
        allocation = ok(driver.cuGraphAddMemAllocNode(graph, None, 0, params))
        ok(driver.cuGraphAddMemFreeNode(graph, [allocation], 1, params.dptr))
        execution = ok(driver.cuGraphInstantiate(graph, 0))
        ok(driver.cuGraphLaunch(execution, 0))
        ok(driver.cuCtxSynchronize())
        ok(driver.cuGraphExecDestroy(execution))
        ok(driver.cuGraphDestroy(graph))
    ok(driver.cuDeviceGraphMemTrim(gpu.device))
    return {"back": before - int(ok(driver.cuMemGetInfo())[0]) < 16 << 20}


@case
def memory_of_failed_captures(gpu: Session):
    """A capture that fails makes no graph, and keeps no memory either."""
    stream, results = ok(driver.cuStreamCreate(1)), []
    reserved = lambda: int(ok(driver.cuDeviceGetGraphMemAttribute(gpu.device, driver.CUgraphMem_attribute.CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT)))  # noqa: E731
    before = reserved()
    for _ in range(3):
        ok(driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        address = ok(driver.cuMemAllocAsync(8 << 20, stream))
        ok(driver.cuMemsetD8Async(address, 1, 100, stream))
        results.append(code(driver.cuStreamSynchronize(stream)))
        results.append(driver.cuStreamEndCapture(stream)[0].name)
        results.append(reserved() - before)
    return {"codes": results}
