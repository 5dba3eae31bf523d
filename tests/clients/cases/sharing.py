"""Memory and events shared between processes: as PyTorch, NCCL and numba do it."""

from __future__ import annotations

import ctypes
import os

import numpy as np

from device import Session, code, driver, ok
from other import LAZY, Other, event_handle, memory_handle, show
from physical import POSIX_FD, HostMemory, access, properties
from registry import case, check

MIB = 1 << 20
NON_BLOCKING = int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
SHARED_EVENT = int(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING) | int(driver.CUevent_flags.CU_EVENT_INTERPROCESS)


@case
def ipc_memory(gpu: Session):
    """A small block among others, and a large one that is no whole number of pages."""
    small, neighbour = np.arange(125, dtype=np.int32), np.full(125, 7, np.int32)
    large = np.arange(3 * MIB // 4 + 5, dtype=np.int32)
    at_small, at_neighbour, at_large = gpu.upload(small), gpu.upload(neighbour), gpu.upload(large)
    handles = [show(ok(driver.cuIpcGetMemHandle(address))) for address in (at_small, at_large)]
    inside = show(ok(driver.cuIpcGetMemHandle(at_small + 100)))
    other = Other()
    (first, opened_small), (second, opened_large) = (other.call("open", handle) for handle in handles)
    results = {"same": inside == handles[0], "opened": [first, second]}
    results["range"] = other.call("range_of", opened_small)
    check(np.array(other.call("read", opened_small, small.size), np.int32), small)
    end = opened_large + 4 * (large.size - 10)
    check(np.array(other.call("read", end, 10), np.int32), large[-10:])
    other.call("bump", opened_small, small.size, 1000)
    other.call("bump", opened_large, large.size, 3)
    results["small"] = check(gpu.download(at_small, small.size, np.int32), small + 1000)
    results["large"] = check(gpu.download(at_large, large.size, np.int32), large + 3)
    results["neighbour"] = check(gpu.download(at_neighbour, neighbour.size, np.int32), neighbour)
    results["closed"] = [other.call("close", opened_large), other.call("close", opened_small)]
    # Shared again after the other process has let go, and by one that comes later.
    later = Other()
    status, opened = later.call("open", handles[0])
    results["later"] = [status, later.call("read", opened, 3)]
    later.end()
    other.end()
    for address in (at_small, at_neighbour, at_large):
        ok(driver.cuMemFree(address))
    return results


@case
def ipc_memory_rules(gpu: Session):
    """Who may open what, how often, and what is left of it."""
    array = np.arange(1000, dtype=np.int32)
    large = np.arange(MIB, dtype=np.int32)
    device, gone = gpu.upload(array), gpu.upload(large)
    handle, stale = (show(ok(driver.cuIpcGetMemHandle(address))) for address in (device, gone))
    host = int(ok(driver.cuMemHostAlloc(4096, 0)))
    other = Other()
    results = {
        "own": code(driver.cuIpcOpenMemHandle(memory_handle(handle), int(LAZY))),
        "pinned": code(driver.cuIpcGetMemHandle(host)),
        "nothing": code(driver.cuIpcGetMemHandle(0)),
        "flags": other.call("open", handle, 0)[0],
        "zeros": other.call("open", "00" * 64)[0],
        "not opened": other.call("close", 0x1000),
    }
    (_, first), (_, again) = other.call("open", handle), other.call("open", handle)
    results["twice"] = first == again
    capable = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
    results["capable"] = [bool(ok(driver.cuPointerGetAttribute(capable, address))) for address in (device, host)]
    results["freed by the opener"] = other.call("free", first)
    results["inside"] = other.call("close", first + 512)
    results["close"] = [other.call("close", first)]
    results["still there"] = other.call("read", first, 4)
    results["close"] += [other.call("close", first), other.call("close", first)]
    ok(driver.cuMemFree(gone))
    results["stale"] = other.call("open", stale)[0]
    # What comes to lie there has a handle of its own, and the freed one's says nothing about it.
    fresh = gpu.upload(large + 5)
    handle = show(ok(driver.cuIpcGetMemHandle(fresh)))
    _, opened = other.call("open", handle)
    results["fresh"] = [handle != stale, other.call("read", opened, 4)]
    other.end()
    # The exporter's end does not take the memory from those who have it open.
    exporter = Other()
    theirs = exporter.call("allocate", [11, 22, 33, 44])
    status, handle = exporter.call("export", theirs)
    opened = int(ok(driver.cuIpcOpenMemHandle(memory_handle(handle), int(LAZY))))
    results["attributes"] = [
        int(ok(driver.cuPointerGetAttribute(attribute, opened + 4))) - base
        for attribute, base in (
            (driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, 0),
            (driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_POINTER, opened),
            (driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, opened),
            (driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_RANGE_SIZE, 0))]
    exporter.end()
    results["survives"] = gpu.download(opened, 4, np.int32).tolist()
    ok(driver.cuIpcCloseMemHandle(opened))
    for address in (device, fresh):
        ok(driver.cuMemFree(address))
    ok(driver.cuMemFreeHost(host))
    return results


@case
def ipc_memory_of_a_torch_pool(gpu: Session):
    """A caching allocator exports the base of its block and lets the other side add an offset."""
    block = gpu.empty(20 * MIB)
    handle = show(ok(driver.cuIpcGetMemHandle(block + 7 * MIB)))
    offset = 7 * MIB + 512
    ok(driver.cuMemsetD32(block + offset, 41, 1000))
    gpu.synchronize()
    other = Other()
    _, opened = other.call("open", handle)
    other.call("bump", opened + offset, 1000, 1)
    other.end()
    seen = check(gpu.download(block + offset, 1000, np.int32), np.full(1000, 42, np.int32))
    ok(driver.cuMemFree(block))
    return seen


def held_stream():
    """A stream that stops at a word in pinned memory: stream, word, address."""
    host = int(ok(driver.cuMemHostAlloc(4096, 0)))
    word = ctypes.c_uint32.from_address(host)
    word.value = 0
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    ok(driver.cuStreamWaitValue32(stream, host, 1, int(driver.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_GEQ)))
    return stream, word


@case
def ipc_events(gpu: Session):
    """Work of one process behind work of another, in both directions."""
    event, private = ok(driver.cuEventCreate(SHARED_EVENT)), ok(driver.cuEventCreate(2))
    results = {"private": code(driver.cuIpcGetEventHandle(private)),
               "with timing": code(driver.cuEventCreate(int(driver.CUevent_flags.CU_EVENT_INTERPROCESS)))}
    handle = show(ok(driver.cuIpcGetEventHandle(event)))
    other = Other()
    status, theirs = other.call("open_event", handle)
    results["opened"] = [status, other.call("query", theirs), other.call("synchronize", theirs)]
    stream, word = held_stream()
    ok(driver.cuEventRecord(event, stream))
    results["held"] = [code(driver.cuEventQuery(event)), other.call("query", theirs)]
    behind = other.call("event")
    results["behind"] = [other.call("wait", theirs), other.call("record", behind), other.call("query", behind)]
    other.send("synchronize", theirs)
    word.value = 1
    results["released"] = [other.result(), other.call("synchronize", behind), other.call("query", theirs)]
    ok(driver.cuEventSynchronize(event))
    # The other way: recorded there, waited for here, while an earlier wait stays with the record it was made for.
    ok(driver.cuStreamSynchronize(stream))
    stream, word = held_stream()
    ok(driver.cuEventRecord(event, stream))
    gate = ok(driver.cuEventCreate(SHARED_EVENT))
    _, their_gate = other.call("open_event", show(ok(driver.cuIpcGetEventHandle(gate))))
    ok(driver.cuEventRecord(gate, stream))
    results["gated"] = [other.call("wait", their_gate), other.call("record", theirs)]
    mine = ok(driver.cuStreamCreate(NON_BLOCKING))
    ok(driver.cuStreamWaitEvent(mine, event, 0))
    results["waiting"] = [code(driver.cuStreamQuery(mine)), code(driver.cuEventQuery(event))]
    word.value = 1
    results["after"] = [code(driver.cuEventSynchronize(event)), code(driver.cuStreamSynchronize(mine)), code(driver.cuEventQuery(event))]
    results["elapsed"] = code(driver.cuEventElapsedTime(event, event))
    results["garbage"] = code(driver.cuIpcOpenEventHandle(event_handle("5a" * 64))) == "CUDA_SUCCESS"
    other.end()
    for each in (event, private, gate):
        ok(driver.cuEventDestroy(each))
    return results


@case
def ipc_events_with_a_native_process(gpu: Session):
    """The handle is the driver's: the other process runs without LightOS."""
    event = ok(driver.cuEventCreate(SHARED_EVENT))
    other = Other(native=True)
    status, theirs = other.call("open_event", show(ok(driver.cuIpcGetEventHandle(event))))
    stream, word = held_stream()
    ok(driver.cuEventRecord(event, stream))
    behind = other.call("event")
    results = {"held": [status, other.call("query", theirs), other.call("wait", theirs), other.call("record", behind), other.call("query", behind)]}
    word.value = 1
    results["released"] = [other.call("synchronize", behind), other.call("query", theirs), code(driver.cuEventSynchronize(event))]
    # An event of theirs, which a stream of ours waits for.
    shared = other.call("event", SHARED_EVENT)
    opened = ok(driver.cuIpcOpenEventHandle(event_handle(other.call("event_handle", shared))))
    results["recorded there"] = other.call("record", shared)
    ok(driver.cuStreamWaitEvent(stream, opened, 0))
    results["reached"] = [code(driver.cuStreamSynchronize(stream)), code(driver.cuEventQuery(opened))]
    ok(driver.cuEventDestroy(opened))
    other.end()
    ok(driver.cuEventDestroy(event))
    return results


@case
def ipc_memory_of_a_native_process(gpu: Session):
    exporter = Other(native=True)
    status, handle = exporter.call("export", exporter.call("allocate", [1, 2, 3]))
    opened = int(ok(driver.cuIpcOpenMemHandle(memory_handle(handle), int(LAZY))))
    seen = gpu.download(opened, 3, np.int32).tolist()
    ok(driver.cuIpcCloseMemHandle(opened))
    exporter.end()
    return [status, seen]


def share_by_descriptor(gpu: Session, other: Other, size: int):
    """Memory made here and mapped there, then memory made there and mapped here."""
    handle = ok(driver.cuMemCreate(size, properties(gpu, POSIX_FD), 0))
    address = int(ok(driver.cuMemAddressReserve(size, 0, 0, 0)))
    ok(driver.cuMemMap(address, size, 0, handle, 0))
    ok(driver.cuMemSetAccess(address, size, access(gpu), 1))
    count = size // 4
    ok(driver.cuMemsetD32(address, 5, count))
    gpu.synchronize()
    fd = int(ok(driver.cuMemExportToShareableHandle(handle, POSIX_FD, 0)))
    theirs = other.call("map", size, fds=[fd])
    os.close(fd)
    ok(driver.cuMemRelease(handle))
    seen = other.call("read", theirs + size - 16, 4)
    other.call("bump", theirs, count, 10)
    mine = check(gpu.download(address, count, np.int32), np.full(count, 15, np.int32))
    other.call("unmap", theirs, size)
    ok(driver.cuMemUnmap(address, size))
    their_address, fd = other.call("create", size)
    imported = ok(driver.cuMemImportFromShareableHandle(fd, POSIX_FD))
    os.close(fd)
    found = ok(driver.cuMemGetAllocationPropertiesFromHandle(imported))
    ok(driver.cuMemMap(address, size, 0, imported, 0))
    ok(driver.cuMemSetAccess(address, size, access(gpu), 1))
    ok(driver.cuMemsetD32(address, 70, count))
    gpu.synchronize()
    other.call("bump", their_address, count, 7)
    back = check(gpu.download(address, count, np.int32), np.full(count, 77, np.int32))
    ok(driver.cuMemRelease(imported))
    retained = ok(driver.cuMemRetainAllocationHandle(address))
    ok(driver.cuMemRelease(retained))
    other.call("unmap", their_address, size)
    alive = check(gpu.download(address, count, np.int32), back)
    ok(driver.cuMemUnmap(address, size))
    ok(driver.cuMemAddressFree(address, size))
    return {"seen": seen, "mine": mine, "back": alive, "location": [int(found.location.type), int(found.location.id)]}


@case
def memory_by_descriptor(gpu: Session):
    """Expandable segments and NCCL: physical memory crosses as a file descriptor."""
    other = Other()
    results = share_by_descriptor(gpu, other, 4 * MIB)
    other.end()
    return results


@case
def memory_by_descriptor_with_a_native_process(gpu: Session):
    """The other process runs without LightOS: a descriptor is the driver's, whoever made it."""
    other = Other(native=True)
    results = share_by_descriptor(gpu, other, 2 * MIB)
    other.end()
    return results


@case
def host_memory_by_descriptor(gpu: Session):
    """NCCL's shared host buffers: the device of one process and the processor of another work on the same memory."""
    size = 2 * MIB
    memory = HostMemory(gpu, size, driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_HOST_NUMA, POSIX_FD)
    handle, address, view = memory.handle, memory.address, memory.view
    fd = int(ok(driver.cuMemExportToShareableHandle(handle, POSIX_FD, 0)))
    other = Other()
    theirs = other.call("map", size, fds=[fd])
    os.close(fd)
    other.call("bump", theirs, size // 4, 6)
    seen = check(view.copy(), np.arange(size // 4, dtype=np.int32) + 6)
    view[5] = 77
    results = {"seen": seen, "there": other.call("read", theirs + 16, 3)}
    other.call("unmap", theirs, size)
    other.end()
    del view, memory.view
    ok(driver.cuMemUnmap(address, size))
    ok(driver.cuMemRelease(handle))
    ok(driver.cuMemAddressFree(address, size))
    return results


@case
def descriptor_rules(gpu: Session):
    size = 2 * MIB
    private = properties(gpu)
    closed = ok(driver.cuMemCreate(size, private, 0))
    open_ = ok(driver.cuMemCreate(size, properties(gpu, POSIX_FD), 0))
    fd = int(ok(driver.cuMemExportToShareableHandle(open_, POSIX_FD, 0)))
    again = int(ok(driver.cuMemExportToShareableHandle(open_, POSIX_FD, 0)))
    with open("/dev/null") as nothing:
        wrong = code(driver.cuMemImportFromShareableHandle(nothing.fileno(), POSIX_FD)) == "CUDA_SUCCESS"
    results = {
        "not exportable": code(driver.cuMemExportToShareableHandle(closed, POSIX_FD, 0)),
        "flags": code(driver.cuMemExportToShareableHandle(open_, POSIX_FD, 1)),
        "two descriptors": fd != again,
        "no memory": wrong,
    }
    # In the process that made it: one more reference, by whatever handle.
    imported = ok(driver.cuMemImportFromShareableHandle(fd, POSIX_FD))
    for each in (fd, again):
        os.close(each)
    ok(driver.cuMemRelease(open_))
    address = int(ok(driver.cuMemAddressReserve(size, 0, 0, 0)))
    ok(driver.cuMemMap(address, size, 0, imported, 0))
    ok(driver.cuMemSetAccess(address, size, access(gpu), 1))
    ok(driver.cuMemsetD32(address, 9, size // 4))
    results["contents"] = check(gpu.download(address, 8, np.int32), np.full(8, 9, np.int32))
    ok(driver.cuMemUnmap(address, size))
    results["released"] = [code(driver.cuMemRelease(imported)), code(driver.cuMemRelease(imported)), code(driver.cuMemRelease(closed))]
    ok(driver.cuMemAddressFree(address, size))
    return results
