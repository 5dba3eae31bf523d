"""What ends with a context: everything that was made in it, on every side, and nothing else."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
from cuda.bindings import driver

from device import Session, code, compile_ptx, ok
from registry import case, check

MIB = 1 << 20
STEP = 'extern "C" __global__ void step(int* d, int f, int a, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) d[i] = d[i] * f + a; }'
COUNTER = """
__device__ int counter = 5;
extern "C" __global__ void bump(int* out) { out[0] = atomicAdd(&counter, 1); }
"""


def free_bytes() -> int:
    return int(ok(driver.cuMemGetInfo())[0])


def step(gpu: Session, function, data: int, factor: int, add: int, stream: int = 0):
    gpu.launch(function, (2,), (128,), data, ctypes.c_int(factor), ctypes.c_int(add), ctypes.c_int(256), stream=stream)


@case
def destroyed_context_gives_its_memory_back(gpu: Session):
    keep = gpu.upload(np.arange(256, dtype=np.int32))
    # What the first context costs, and what a driver keeps at hand, is not the question.
    ok(driver.cuMemFree(ok(driver.cuMemAlloc(256 * MIB))))
    before = free_bytes()
    results = {}
    for _ in range(3):
        context = ok(driver.cuCtxCreate(None, 0, gpu.device))
        pointers = [ok(driver.cuMemAlloc(64 * MIB)) for _ in range(3)]
        pinned = ok(driver.cuMemAllocHost(4 * MIB))
        managed = ok(driver.cuMemAllocManaged(MIB, driver.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL))
        stream, event = ok(driver.cuStreamCreate(1)), ok(driver.cuEventCreate(0))
        function = gpu.function(STEP, "step")
        for pointer in pointers:
            ok(driver.cuMemsetD8Async(pointer, 0, MIB, stream))
            step(gpu, function, int(pointer), 1, 3, stream)
        ok(driver.cuEventRecord(event, stream))
        taken = before - free_bytes()
        results["taken"] = taken >= 192 * MIB
        # With work of its own under way.
        ok(driver.cuCtxDestroy(context))
        ok(driver.cuCtxSetCurrent(gpu.context))
        results["back"] = before - free_bytes() < 16 * MIB
        results["stale"] = [code(driver.cuMemFree(pointers[0])), code(driver.cuMemsetD8(pointers[1], 0, 16))]
        _ = pinned, managed
    results["kept"] = check(gpu.download(keep, 256, np.int32), np.arange(256, dtype=np.int32))
    return results


@case
def contexts_do_not_own_each_others_memory(gpu: Session):
    """Allocated in one, used and freed while another is current; a stream of one, launched while the other is current."""
    first = gpu.upload(np.arange(256, dtype=np.int32))
    function = gpu.function(STEP, "step")
    stream = ok(driver.cuStreamCreate(1))
    other = ok(driver.cuCtxCreate(None, 0, gpu.device))
    second = gpu.upload(np.ones(256, np.int32))
    results = {"copy": code(driver.cuMemcpyDtoD(second, first, 1024))}
    results["free"] = code(driver.cuMemFree(first))
    host = np.empty(256, np.int32)
    ok(driver.cuCtxPushCurrent(gpu.context))
    again = gpu.upload(np.full(256, 2, np.int32))
    step(gpu, function, again, 5, 1, stream)
    ok(driver.cuStreamSynchronize(stream))
    results["second"] = code(driver.cuMemcpyDtoH(host.ctypes.data, second, 1024))
    ok(driver.cuCtxPopCurrent())
    ok(driver.cuCtxDestroy(other))
    ok(driver.cuCtxSetCurrent(gpu.context))
    results["host"] = check(host, np.arange(256, dtype=np.int32))
    results["again"] = check(gpu.download(again, 256, np.int32), np.full(256, 11, np.int32))
    return results


@case
def destroyed_under_another_thread(gpu: Session):
    """A thread whose current context another thread destroys gets errors, and is well again in a living one."""
    context = ok(driver.cuCtxCreate(None, 0, gpu.device))
    ok(driver.cuCtxPopCurrent())
    ready, gone, said = threading.Event(), threading.Event(), []

    def work():
        ok(driver.cuCtxSetCurrent(context))
        ok(driver.cuMemAlloc(64))
        ready.set()
        gone.wait()
        said.append(code(driver.cuMemAlloc(64)))
        said.append(code(driver.cuCtxSynchronize()))
        ok(driver.cuCtxSetCurrent(gpu.context))
        said.append(code(driver.cuMemAlloc(64)))

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    ok(driver.cuCtxDestroy(context))
    gone.set()
    thread.join()
    return {"said": said}


@case
def reset_primary_context(gpu: Session):
    """cudaDeviceReset and going on: memory is back, variables have their first values, handles are new."""
    ok(driver.cuMemFree(ok(driver.cuMemAlloc(256 * MIB))))
    before = free_bytes()
    image = compile_ptx(COUNTER)
    results = {"rounds": []}
    library = ok(driver.cuLibraryLoadData(image, [], [], 0, [], [], 0))
    kernel = ok(driver.cuLibraryGetKernel(library, b"bump"))
    for _ in range(3):
        module = ok(driver.cuModuleLoadData(image))
        bump = ok(driver.cuModuleGetFunction(module, b"bump"))
        of_library = ok(driver.cuKernelGetFunction(kernel))
        out, big = gpu.empty(64), ok(driver.cuMemAlloc(128 * MIB))
        pinned = ok(driver.cuMemAllocHost(MIB))
        stream = ok(driver.cuStreamCreate(1))
        seen = []
        for function in (bump, bump, of_library, of_library, kernel):
            gpu.launch(driver.CUfunction(int(function)), (1,), (1,), out, stream=stream)
            ok(driver.cuStreamSynchronize(stream))
            seen.append(int(gpu.download(out, 1, np.int32)[0]))
        ok(driver.cuDevicePrimaryCtxReset(gpu.device))
        inactive = int(ok(driver.cuDevicePrimaryCtxGetState(gpu.device))[1])
        context = ok(driver.cuDevicePrimaryCtxRetain(gpu.device))
        ok(driver.cuCtxSetCurrent(context))
        stale = code(driver.cuMemFree(big))
        results["rounds"].append({"seen": seen, "inactive": inactive, "stale": stale, "back": before - free_bytes() < 16 * MIB})
        _ = pinned
    ok(driver.cuLibraryUnload(library))
    check(np.array([r["seen"] for r in results["rounds"]]), np.tile([5, 6, 5, 6, 7], (3, 1)))
    return results


@case
def mappings_outlive_contexts(gpu: Session):
    """Virtual memory management belongs to no context: what is mapped in one that ends stays mapped."""
    context = ok(driver.cuCtxCreate(None, 0, gpu.device))
    prop = driver.CUmemAllocationProp()
    prop.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    size = ok(driver.cuMemGetAllocationGranularity(prop, driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM))
    handle = ok(driver.cuMemCreate(size, prop, 0))
    address = ok(driver.cuMemAddressReserve(size, 0, 0, 0))
    ok(driver.cuMemMap(address, size, 0, handle, 0))
    access = driver.CUmemAccessDesc()
    access.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    ok(driver.cuMemSetAccess(address, size, [access], 1))
    data = np.arange(256, dtype=np.int32)
    ok(driver.cuMemcpyHtoD(address, data.ctypes.data, data.nbytes))
    ok(driver.cuCtxDestroy(context))
    ok(driver.cuCtxSetCurrent(gpu.context))
    found = gpu.download(int(address), 256, np.int32)
    answers = [code(driver.cuMemUnmap(address, size)), code(driver.cuMemRelease(handle)), code(driver.cuMemAddressFree(address, size))]
    return {"found": check(found, data), "answers": answers}


@case
def registered_memory_ends_with_its_context(gpu: Session):
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    size = 16 * 4096
    memory = libc.mmap(None, size, 3, 0x22, -1, 0)
    view = np.ctypeslib.as_array((ctypes.c_int32 * 256).from_address(memory))
    answers = []
    for value in range(3):
        context = ok(driver.cuCtxCreate(None, 0, gpu.device))
        answers.append(code(driver.cuMemHostRegister(memory, size, 0)))
        view[:] = value
        pointer = ok(driver.cuMemAlloc(1024))
        ok(driver.cuMemcpyHtoD(pointer, memory, 1024))
        ok(driver.cuMemcpyDtoH(memory, pointer, 1024))
        answers.append(int(view.sum()))
        ok(driver.cuCtxDestroy(context))
        view[0] = 9
    ok(driver.cuCtxSetCurrent(gpu.context))
    answers.append(code(driver.cuMemHostUnregister(memory)))
    return {"answers": answers}


@case
def arrays_end_with_their_context(gpu: Session):
    """Arrays and texture objects of a context that is destroyed; their handles are not known any more, their memory is back."""
    ok(driver.cuMemFree(ok(driver.cuMemAlloc(256 * MIB))))
    before = free_bytes()
    wanted = driver.CUDA_ARRAY3D_DESCRIPTOR()
    wanted.Width, wanted.Height, wanted.NumChannels = 4096, 4096, 1
    wanted.Format = driver.CUarray_format.CU_AD_FORMAT_FLOAT
    results = []
    for _ in range(2):
        context = ok(driver.cuCtxCreate(None, 0, gpu.device))
        array = ok(driver.cuArray3DCreate(wanted))
        resource = driver.CUDA_RESOURCE_DESC()
        resource.resType = driver.CUresourcetype.CU_RESOURCE_TYPE_ARRAY
        resource.res.array.hArray = array
        ok(driver.cuTexObjectCreate(resource, driver.CUDA_TEXTURE_DESC(), None))
        taken = before - free_bytes() >= 64 * MIB
        ok(driver.cuCtxDestroy(context))
        ok(driver.cuCtxSetCurrent(gpu.context))
        results.append([taken, before - free_bytes() < 16 * MIB])
    return {"results": results}
