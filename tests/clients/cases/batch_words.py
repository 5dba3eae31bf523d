"""Batches of operations on words in memory, in streams and in graphs, and hints for managed memory."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
ORDER = driver.CUmemcpySrcAccessOrder
STREAM = ORDER.CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
DURING_CALL = ORDER.CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL
ANY = ORDER.CU_MEMCPY_SRC_ACCESS_ORDER_ANY
N = 30_000
SLOW = """
extern "C" __global__ void slow(int* d, int v, int n) {
    for (int round = 0; round < 50; round++)
        for (int i = threadIdx.x; i < n; i += blockDim.x) d[i] = v + i;
}"""



@case
def batch_of_prefetches(gpu: Session):
    """Prefetched memory keeps its contents; discarded memory can be written again."""
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    pages = [int(ok(driver.cuMemAllocManaged(1 << 16, 1))) for _ in range(3)]
    views = [np.frombuffer((ctypes.c_char * (1 << 16)).from_address(page), np.int32) for page in pages]
    for index, view in enumerate(views):
        view[:] = index + 1
    kinds = driver.CUmemLocationType
    there, here = driver.CUmemLocation(), driver.CUmemLocation()
    there.type, there.id = kinds.CU_MEM_LOCATION_TYPE_DEVICE, 0
    here.type, here.id = kinds.CU_MEM_LOCATION_TYPE_HOST, 0
    pointers, sizes = [driver.CUdeviceptr(page) for page in pages], [1 << 16] * 3
    results = {
        "prefetch": code(driver.cuMemPrefetchBatchAsync(pointers, sizes, 3, [there, here], [0, 2], 2, 0, stream)),
        "default stream": code(driver.cuMemPrefetchBatchAsync(pointers, sizes, 3, [there], [0], 1, 0, 0)),
        "no location": code(driver.cuMemPrefetchBatchAsync(pointers, sizes, 3, [], [], 0, 0, stream)),
    }
    ok(driver.cuStreamSynchronize(stream))
    results["contents"] = [int(view[77]) for view in views]
    results["discard"] = code(driver.cuMemDiscardBatchAsync(pointers[:2], sizes[:2], 2, 0, stream))
    results["both"] = code(driver.cuMemDiscardAndPrefetchBatchAsync(pointers[:2], sizes[:2], 2, [there], [0], 1, 0, stream))
    ok(driver.cuMemsetD32Async(pages[0], 9, 1 << 14, stream))
    ok(driver.cuStreamSynchronize(stream))
    results["after"] = [int(views[0][5]), int(views[2][5])]
    for page in pages:
        ok(driver.cuMemFree(page))
    return results


def word(kind: str, address: int = 0, value: int = 0, flags: int = 0) -> driver.CUstreamBatchMemOpParams:
    made = driver.CUstreamBatchMemOpParams()
    made.operation = getattr(driver.CUstreamBatchMemOpType, "CU_STREAM_MEM_OP_" + kind)
    if kind == "BARRIER":
        made.memoryBarrier.flags = flags
        return made
    part = made.waitValue if kind.startswith("WAIT") else made.writeValue
    part.address, part.flags = driver.CUdeviceptr(address), flags
    if kind.endswith("64"):
        part.value64 = driver.cuuint64_t(value)
    else:
        part.value = driver.cuuint32_t(value)
    return made


@case
def batch_of_words(gpu: Session):
    """Two streams hand a counter to each other; a barrier between two writes."""
    streams = [ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2)]
    cell = gpu.empty(64)
    for turn in range(4):
        stream = streams[turn % 2]
        operations = [word("WAIT_VALUE_32", cell, turn), word("WRITE_VALUE_64", cell + 8, turn << 33),
                      word("BARRIER"), word("WRITE_VALUE_32", cell, turn + 1)]
        ok(driver.cuStreamBatchMemOp(stream, len(operations), operations, 0))
    for stream in streams:
        ok(driver.cuStreamSynchronize(stream))
    found = gpu.download(cell, 8, np.uint64)
    assert (int(found[0]), int(found[1])) == (4, 3 << 33), found
    results = {
        "words": found,
        "none": code(driver.cuStreamBatchMemOp(streams[0], 0, [], 0)),
        "flags": code(driver.cuStreamBatchMemOp(streams[0], 1, [word("WRITE_VALUE_32", cell)], 1)),
        "crooked": code(driver.cuStreamBatchMemOp(streams[0], 1, [word("WRITE_VALUE_32", cell + 2)], 0)),
        # The first of the two is right, and nothing of a batch with a mistake is done.
        "second": code(driver.cuStreamBatchMemOp(
            streams[0], 2, [word("WRITE_VALUE_32", cell, 99), word("WRITE_VALUE_64", cell + 4)], 0)),
    }
    gpu.synchronize()
    results["untouched"] = check(gpu.download(cell, 8, np.uint64), found)
    return results


@case
def words_in_a_graph(gpu: Session):
    """As nodes of their own and as captured calls; new operations for the executable graph."""
    stream, other = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
    cell = gpu.empty(64)
    gpu.synchronize()
    graph = ok(driver.cuGraphCreate(0))
    node = driver.CUDA_BATCH_MEM_OP_NODE_PARAMS()
    operations = [word("WRITE_VALUE_32", cell, 5), word("WRITE_VALUE_64", cell + 8, 6)]
    node.ctx, node.count, node.paramArray, node.flags = gpu.context, 2, operations, 0
    added = ok(driver.cuGraphAddBatchMemOpNode(graph, None, 0, node))
    execution = ok(driver.cuGraphInstantiate(graph, 0))
    ok(driver.cuGraphLaunch(execution, stream))
    ok(driver.cuStreamSynchronize(stream))
    results = {"first": gpu.download(cell, 2, np.uint64).tolist()}
    operations = [word("WRITE_VALUE_32", cell, 7), word("WRITE_VALUE_64", cell + 8, 1 << 40)]
    node.paramArray = operations
    ok(driver.cuGraphExecBatchMemOpNodeSetParams(execution, added, node))
    ok(driver.cuGraphLaunch(execution, stream))
    ok(driver.cuStreamSynchronize(stream))
    results["second"] = gpu.download(cell, 2, np.uint64).tolist()
    ok(driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED))
    ok(driver.cuStreamWaitValue32(stream, cell, 7, 1))
    ok(driver.cuStreamWriteValue32(stream, cell + 16, 8, 0))
    captured = ok(driver.cuStreamEndCapture(stream))
    execution = ok(driver.cuGraphInstantiate(captured, 0))
    ok(driver.cuStreamWriteValue32(other, cell, 0, 0))
    ok(driver.cuStreamSynchronize(other))
    ok(driver.cuGraphLaunch(execution, stream))
    results["waits"] = code(driver.cuStreamQuery(stream))
    ok(driver.cuStreamWriteValue32(other, cell, 7, 0))
    ok(driver.cuStreamSynchronize(stream))
    results["captured"] = gpu.download(cell, 3, np.uint64).tolist()
    assert results["captured"] == [7, 1 << 40, 8] and results["first"] == [5, 6], results
    return results
