"""Calls that carry several operations: batched copies of every kind of memory, batched waits and writes, hints for managed memory."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

ORDER = driver.CUmemcpySrcAccessOrder
DURING = ORDER.CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL
IN_STREAM = ORDER.CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
ANY = ORDER.CU_MEMCPY_SRC_ACCESS_ORDER_ANY
STEP = 'extern "C" __global__ void step(int* d, int f, int a, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) d[i] = d[i] * f + a; }'
N = 4096


def attributes(order) -> driver.CUmemcpyAttributes:
    found = driver.CUmemcpyAttributes()
    found.srcAccessOrder = order
    return found


def copy_batch(pairs, sizes, orders, firsts, stream):
    targets, sources = [int(t) for t, _ in pairs], [int(s) for _, s in pairs]
    listed = [attributes(order) for order in orders]
    return driver.cuMemcpyBatchAsync([driver.CUdeviceptr(t) for t in targets], [driver.CUdeviceptr(s) for s in sources], list(sizes),
                                     len(sizes), listed, list(firsts), len(firsts), stream)


@case
def batched_copies(gpu: Session):
    """Host to device, device to device, device to host and pinned memory in batches that follow each other on one stream."""
    stream = ok(driver.cuStreamCreate(1))
    size = 4 * N
    first = np.arange(N, dtype=np.int32)
    second = first[::-1].copy()
    a, b, c = (gpu.empty(size) for _ in range(3))
    pinned = ok(driver.cuMemHostAlloc(size, 0))
    pinned_view = np.ctypeslib.as_array((ctypes.c_int32 * N).from_address(int(pinned)))
    pinned_view[:] = 7
    ok(copy_batch([(a, first.ctypes.data), (b, second.ctypes.data), (c, pinned)], [size, size // 2, size], [DURING, ANY], [0, 2], stream))
    step = gpu.function(STEP, "step")
    for pointer in (a, b, c):
        gpu.launch(step, (N // 256,), (256,), pointer, ctypes.c_int(2), ctypes.c_int(1), ctypes.c_int(N), stream=stream)
    back, other = np.zeros(N, np.int32), np.zeros(N, np.int32)
    ok(copy_batch([(back.ctypes.data, a), (other.ctypes.data, b), (pinned, c)], [size] * 3, [IN_STREAM], [0], stream))
    ok(driver.cuStreamSynchronize(stream))
    want = np.concatenate([second[: N // 2] * 2 + 1, np.ones(N // 2, np.int32)])
    results = {"a": check(back, first * 2 + 1), "b": check(other, want), "pinned": check(pinned_view.copy(), np.full(N, 15, np.int32))}
    ok(copy_batch([(a, b), (b, c)], [size, size], [ANY], [0], stream))
    ok(driver.cuStreamSynchronize(stream))
    return results | {"moved": check(gpu.download(b, N, np.int32), np.full(N, 15, np.int32))}


@case
def batched_copy_in_stream_order(gpu: Session):
    """A pageable source that an earlier host function of the stream writes, read in stream order."""
    stream = ok(driver.cuStreamCreate(1))
    source = np.zeros(N, np.int32)
    target = gpu.empty(4 * N)

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def fill(_):
        source[:] = 5

    ok(driver.cuLaunchHostFunc(stream, driver.CUhostFn(ctypes.cast(fill, ctypes.c_void_p).value), 0))
    ok(copy_batch([(target, source.ctypes.data)], [4 * N], [IN_STREAM], [0], stream))
    ok(driver.cuStreamSynchronize(stream))
    return {"target": check(gpu.download(target, N, np.int32), np.full(N, 5, np.int32))}


@case
def batched_copy_errors(gpu: Session):
    stream = ok(driver.cuStreamCreate(1))
    a, b = gpu.empty(64), gpu.empty(64)
    good = [(a, b)]
    return {
        "none": code(copy_batch([], [], [ANY], [0], stream)),
        "legacy": code(copy_batch(good, [64], [ANY], [0], 0)),
        "no attributes": code(copy_batch(good, [64], [], [], stream)),
        "first": code(copy_batch(good * 2, [64] * 2, [ANY], [1], stream)),
        "order": code(copy_batch(good, [64], [ORDER.CU_MEMCPY_SRC_ACCESS_ORDER_INVALID], [0], stream)),
        "good": code(copy_batch(good, [64], [ANY], [0], stream)),
    }


@case
def batched_words(gpu: Session):
    """cuStreamBatchMemOp: waits and writes in the order of the list, and what is wrong with a list."""
    stream, other = ok(driver.cuStreamCreate(1)), ok(driver.cuStreamCreate(1))
    words = gpu.empty(64)
    types = driver.CUstreamBatchMemOpType

    def operation(kind, offset: int, value: int, flags: int = 0):
        params = driver.CUstreamBatchMemOpParams()
        if "WAIT" in kind:
            params.operation = getattr(types, "CU_STREAM_MEM_OP_" + kind)
            part = params.waitValue
        else:
            params.operation = getattr(types, "CU_STREAM_MEM_OP_" + kind)
            part = params.writeValue
        part.operation = getattr(types, "CU_STREAM_MEM_OP_" + kind)
        part.address = driver.CUdeviceptr(words + offset)
        if kind.endswith("64"):
            part.value64 = driver.cuuint64_t(value)
        else:
            part.value = driver.cuuint32_t(value)
        part.flags = flags
        return params

    waits = [operation("WAIT_VALUE_32", 0, 3), operation("WRITE_VALUE_64", 8, 1 << 40), operation("WRITE_VALUE_32", 4, 9)]
    ok(driver.cuStreamBatchMemOp(stream, len(waits), waits, 0))
    before = gpu.download(words, 4, np.uint32)
    ok(driver.cuStreamBatchMemOp(other, 1, [operation("WRITE_VALUE_32", 0, 3)], 0))
    ok(driver.cuStreamSynchronize(stream))
    after = gpu.download(words, 4, np.uint32)
    return {
        "before": check(before, np.array([0, 0, 0, 0], np.uint32)),
        "after": check(after, np.array([3, 9, 0, 256], np.uint32)),
        "none": code(driver.cuStreamBatchMemOp(stream, 0, waits, 0)),
        "flags": code(driver.cuStreamBatchMemOp(stream, 1, waits[:1], 1)),
        "unaligned": code(driver.cuStreamBatchMemOp(stream, 1, [operation("WRITE_VALUE_32", 2, 1)], 0)),
        "nowhere": code(driver.cuStreamBatchMemOp(stream, 1, [operation("WRITE_VALUE_32", -(1 << 20), 1)], 0)),
    }


@case
def batched_boxes(gpu: Session):
    """Three-dimensional copies between pitched memory, several at once."""
    width, height, depth, pitch = 48, 5, 3, 64
    stream = ok(driver.cuStreamCreate(1))
    host = np.arange(width * height * depth, dtype=np.uint8).reshape(depth, height, width)
    middle, last = gpu.empty(pitch * height * depth), gpu.empty(width * height * depth)
    back = np.zeros_like(host)

    def operand(address: int, row: int):
        found = driver.CUmemcpy3DOperand()
        found.type = driver.CUmemcpy3DOperandType.CU_MEMCPY_OPERAND_TYPE_POINTER
        found.op.ptr.ptr = driver.CUdeviceptr(address)
        found.op.ptr.rowLength, found.op.ptr.layerHeight = row, height if row else 0
        return found

    def box(target, source, order=DURING):
        found = driver.CUDA_MEMCPY3D_BATCH_OP()
        found.src, found.dst = source, target
        found.extent.width, found.extent.height, found.extent.depth = width, height, depth
        found.srcAccessOrder = order
        return found

    ok(driver.cuMemcpy3DBatchAsync(1, [box(operand(middle, pitch), operand(host.ctypes.data, 0))], 0, stream))
    ok(driver.cuMemcpy3DBatchAsync(1, [box(operand(last, 0), operand(middle, pitch))], 0, stream))
    ok(driver.cuMemcpy3DBatchAsync(1, [box(operand(back.ctypes.data, width), operand(last, 0))], 0, stream))
    ok(driver.cuStreamSynchronize(stream))
    wanted = driver.CUDA_ARRAY3D_DESCRIPTOR()
    wanted.Width, wanted.Height, wanted.Depth, wanted.NumChannels = width // 4, height, depth, 1
    wanted.Format = driver.CUarray_format.CU_AD_FORMAT_SIGNED_INT32
    array = ok(driver.cuArray3DCreate(wanted))

    def of_array(x: int, y: int, z: int):
        found = driver.CUmemcpy3DOperand()
        found.type = driver.CUmemcpy3DOperandType.CU_MEMCPY_OPERAND_TYPE_ARRAY
        found.op.array.array = array
        found.op.array.offset.x, found.op.array.offset.y, found.op.array.offset.z = x, y, z
        return found

    def part(target, source, elements: int, rows: int, slices: int):
        found = box(target, source)
        found.extent.width, found.extent.height, found.extent.depth = elements, rows, slices
        return found

    through = np.zeros((2, 3, 8 * 4), np.uint8)
    whole = part(of_array(0, 0, 0), operand(host.ctypes.data, 0), width // 4, height, depth)
    inner = part(operand(through.ctypes.data, 0), of_array(2, 1, 1), 8, 3, 2)
    for copy in (whole, inner):
        ok(driver.cuMemcpy3DBatchAsync(1, [copy], 0, stream))
    ok(driver.cuStreamSynchronize(stream))
    empty = box(operand(last, 0), operand(middle, pitch))
    empty.extent.depth = 0
    return {
        "back": check(back, host),
        "through": check(through, host[1:3, 1:4, 8:40]),
        "none": code(driver.cuMemcpy3DBatchAsync(0, [], 0, stream)),
        "flags": code(driver.cuMemcpy3DBatchAsync(1, [box(operand(last, 0), operand(middle, pitch))], 1, stream)),
        "empty": code(driver.cuMemcpy3DBatchAsync(1, [empty], 0, stream)),
        "legacy": code(driver.cuMemcpy3DBatchAsync(1, [box(operand(last, 0), operand(middle, pitch))], 0, 0)),
    }
