"""Virtual memory management as frameworks use it: PyTorch's expandable segments, XLA's allocators."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from physical import POSIX_FD, HostMemory, access, properties
from registry import case, check

MIB = 1 << 20
BUMP = 'extern "C" __global__ void bump(int* p, int n, int v) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) p[i] += v + i; }'


def rdma_capable(gpu: Session) -> bool:
    name = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED
    return bool(ok(driver.cuDeviceGetAttribute(name, gpu.device)))


def fill(gpu: Session, function, address: int, count: int, value: int, stream: int = 0):
    gpu.launch(function, ((count + 255) // 256,), (256,), address, ctypes.c_int(count), ctypes.c_int(value), stream=stream)


@case
def expandable_segments(gpu: Session):
    """PyTorch: a range larger than the device, grown and shrunk in pieces at its end, in the middle, and again."""
    segment, total = 2 * MIB, ok(driver.cuMemGetInfo())[1]
    size = (total + total // 8) // segment * segment
    base = int(ok(driver.cuMemAddressReserve(size, 0, 0, 0)))
    prop = properties(gpu, POSIX_FD, rdma_capable(gpu))
    stream = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    function = gpu.function(BUMP, "bump")
    handles = {}

    def grow(first: int, count: int):
        for i in range(first, first + count):
            handles[i] = ok(driver.cuMemCreate(segment, prop, 0))
            ok(driver.cuMemMap(base + i * segment, segment, 0, handles[i], 0))
        ok(driver.cuMemSetAccess(base + first * segment, count * segment, access(gpu), 1))

    def shrink(first: int, count: int):
        ok(driver.cuStreamSynchronize(stream))
        for i in range(first, first + count):
            ok(driver.cuMemUnmap(base + i * segment, segment))
            ok(driver.cuMemRelease(handles.pop(i)))

    grow(0, 3)
    ok(driver.cuMemsetD32Async(base, 0, 3 * segment // 4, stream))
    fill(gpu, function, base + segment - 4096, 2048, 7, stream)
    grow(3, 5)
    ok(driver.cuMemsetD32Async(base + 3 * segment, 1, 5 * segment // 4, stream))
    fill(gpu, function, base + 3 * segment - 4096, 2048, 9, stream)
    ok(driver.cuStreamSynchronize(stream))
    across = gpu.download(base + segment - 4096, 2048, np.int32)
    seam = gpu.download(base + 3 * segment - 4096, 2048, np.int32)
    check(across, np.arange(2048, dtype=np.int32) + 7)
    check(seam, np.arange(2048, dtype=np.int32) + 9 + (np.arange(2048) >= 1024).astype(np.int32))
    shrink(2, 2)
    host = np.zeros(16, np.uint8)
    hole = code(driver.cuMemcpyDtoH(host.ctypes.data, base + 2 * segment + 64, 16))
    grow(2, 2)
    ok(driver.cuMemsetD32Async(base + 2 * segment, 5, segment // 4, stream))
    fill(gpu, function, base + 2 * segment, 5000, 11, stream)
    ok(driver.cuStreamSynchronize(stream))
    again = check(gpu.download(base + 2 * segment, 5000, np.int32), np.arange(5000, dtype=np.int32) + 16)
    kept = check(gpu.download(base + segment - 4096, 2048, np.int32), across)
    shrink(0, 8)
    ok(driver.cuMemAddressFree(base, size))
    return {"across": across, "seam": seam, "again": again, "kept": kept, "hole": hole}


@case
def many_expandable_segments(gpu: Session):
    """PyTorch reserves such a range for every stream, size class and private pool."""
    segment, total = 20 * MIB, ok(driver.cuMemGetInfo())[1]
    size = (total + total // 8) // segment * segment
    prop = properties(gpu, POSIX_FD)
    function, ranges = gpu.function(BUMP, "bump"), []
    for i in range(24):
        base = int(ok(driver.cuMemAddressReserve(size, 0, 0, 0)))
        handle = ok(driver.cuMemCreate(segment, prop, 0))
        ok(driver.cuMemMap(base, segment, 0, handle, 0))
        ok(driver.cuMemSetAccess(base, segment, access(gpu), 1))
        ok(driver.cuMemsetD32(base, 0, 1024))
        fill(gpu, function, base, 1024, i)
        ranges.append((base, handle))
    sums = [int(gpu.download(base, 1024, np.int32).sum()) for base, _ in ranges]
    assert sums == [1024 * i + 1023 * 512 for i in range(24)], sums
    for base, handle in ranges:
        ok(driver.cuMemUnmap(base, segment))
        ok(driver.cuMemRelease(handle))
        ok(driver.cuMemAddressFree(base, size))
    return {"sums": sums}


@case
def xla_allocations(gpu: Session):
    """XLA: one reservation per buffer, freed by what the driver says of the address."""
    prop = properties(gpu, POSIX_FD, rdma_capable(gpu))
    recommended = driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_RECOMMENDED
    granularity = int(ok(driver.cuMemGetAllocationGranularity(prop, recommended)))
    function, results = gpu.function(BUMP, "bump"), []
    for bytes_ in (1, 3 * MIB, 33 * MIB + 5):
        padded = (bytes_ + granularity - 1) // granularity * granularity
        handle = ok(driver.cuMemCreate(padded, prop, 0))
        address = int(ok(driver.cuMemAddressReserve(padded, granularity, 0, 0)))
        ok(driver.cuMemMap(address, padded, 0, handle, 0))
        ok(driver.cuMemSetAccess(address, padded, access(gpu), 1))
        ok(driver.cuMemRelease(handle))
        ok(driver.cuMemsetD8(address, 0, padded))
        fill(gpu, function, address + padded - 4096, 1024, 3)
        results.append(check(gpu.download(address + padded - 4096, 1024, np.int32), np.arange(1024, dtype=np.int32) + 3))
        base, size = ok(driver.cuMemGetAddressRange(address + 100))
        assert (int(base), int(size)) == (address, padded)
        retained = ok(driver.cuMemRetainAllocationHandle(address))
        found = ok(driver.cuMemGetAllocationPropertiesFromHandle(retained))
        assert int(found.location.id) == int(gpu.device)
        ok(driver.cuMemUnmap(address, int(size)))
        ok(driver.cuMemRelease(retained))
        ok(driver.cuMemAddressFree(address, int(size)))
    return {"granularity": granularity, "last": np.concatenate(results)}


@case
def one_allocation_at_two_addresses(gpu: Session):
    """XLA maps the same physical memory into several reservations, so that replayed graphs keep their addresses."""
    size, prop = 4 * MIB, properties(gpu)
    handle = ok(driver.cuMemCreate(size, prop, 0))
    first, second = (int(ok(driver.cuMemAddressReserve(size, 0, 0, 0))) for _ in range(2))
    for address in (first, second):
        ok(driver.cuMemMap(address, size, 0, handle, 0))
        ok(driver.cuMemSetAccess(address, size, access(gpu), 1))
    function = gpu.function(BUMP, "bump")
    ok(driver.cuMemsetD8(first, 0, size))
    gpu.synchronize()
    fill(gpu, function, second, 1000, 1)
    gpu.synchronize()
    fill(gpu, function, first, 1000, 2)
    seen = check(gpu.download(second, 1000, np.int32), 2 * np.arange(1000, dtype=np.int32) + 3)
    ok(driver.cuMemUnmap(first, size))
    still = check(gpu.download(second, 1000, np.int32), seen)
    ok(driver.cuMemUnmap(second, size))
    ok(driver.cuMemRelease(handle))
    for address in (first, second):
        ok(driver.cuMemAddressFree(address, size))
    return {"seen": seen, "still": still}


@case
def timeline_of_deferred_frees(gpu: Session):
    """XLA's VMM allocator: the stream writes sequence numbers into a pinned word; the host frees what was reached."""
    host = int(ok(driver.cuMemHostAlloc(8, driver.CU_MEMHOSTALLOC_PORTABLE)))
    word = ctypes.c_uint64.from_address(host)
    word.value = 0
    device = ok(driver.cuMemHostGetDevicePointer(host, 0))
    stream = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    function, cell = gpu.function(BUMP, "bump"), gpu.empty(4096)
    seen = []
    for number in range(1, 21):
        fill(gpu, function, cell, 1000, 1, stream)
        ok(driver.cuStreamWriteValue64(stream, device, number, 0))
        if number % 5 == 0:
            ok(driver.cuStreamSynchronize(stream))
            seen.append(word.value)
    ok(driver.cuMemFreeHost(host))
    want = 20 * (np.arange(1000, dtype=np.int32) + 1)
    return {"seen": seen, "data": check(gpu.download(cell, 1000, np.int32), want)}


@case
def memory_of_the_host(gpu: Session):
    """NCCL's host buffers: physical memory of the host or of a NUMA node, mapped for the device and for the processor."""
    size, results = 4 * MIB, {}
    kinds = driver.CUmemLocationType
    function = gpu.function(BUMP, "bump")
    for name, kind in (("host", kinds.CU_MEM_LOCATION_TYPE_HOST), ("node", kinds.CU_MEM_LOCATION_TYPE_HOST_NUMA)):
        memory = HostMemory(gpu, size, kind)
        handle, address, view = memory.handle, memory.address, memory.view
        fill(gpu, function, address, 1000, 1)
        gpu.synchronize()
        bumped = check(view[:1001].copy(), np.concatenate([2 * np.arange(1000, dtype=np.int32) + 1, [1000]]).astype(np.int32))
        # As a host pointer and as a device's, from and to every kind of memory; a synchronous copy is done when it returns.
        device, array = gpu.empty(4000), np.full(1000, 8, np.int32)
        ok(driver.cuMemcpyHtoD(device, address, 4000))
        up = check(gpu.download(device, 1000, np.int32), bumped[:1000])
        ok(driver.cuMemcpyHtoD(address, array.ctypes.data, 4000))
        check(view[:1000], array)
        ok(driver.cuMemsetD32(address, 3, 500))
        check(view[:500], np.full(500, 3, np.int32))
        ok(driver.cuMemcpyDtoH(address + 4000, device, 4000))
        check(view[1000:2000], bumped[:1000])
        ok(driver.cuMemcpyDtoH(array.ctypes.data, address + 4000, 4000))
        found = ok(driver.cuMemGetAllocationPropertiesFromHandle(handle))
        asked = driver.CUpointer_attribute
        results[name] = {
            "bumped": bumped, "up": up, "down": check(array, bumped[:1000]),
            "location": [int(found.location.type), int(found.location.id)],
            "kind": int(ok(driver.cuPointerGetAttribute(asked.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address))),
            "host": int(ok(driver.cuPointerGetAttribute(asked.CU_POINTER_ATTRIBUTE_HOST_POINTER, address))) - address}
        del view, memory.view
        ok(driver.cuMemRelease(handle))
        ok(driver.cuMemUnmap(address, size))
        ok(driver.cuMemAddressFree(address, size))
    return results
