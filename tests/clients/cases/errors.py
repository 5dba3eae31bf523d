"""The CUresult of every mistake, at the call where native reports it."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, launch_attribute, ok, parameters
from registry import case


@case
def bad_inputs(gpu: Session):
    """The CUresult of every mistake, at the call where native reports it."""
    function = gpu.function('extern "C" __global__ void k(int* p) { p[threadIdx.x] = 1; }', "k")
    cell = ctypes.c_uint64(gpu.empty(4096))
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(cell))
    args = ctypes.addressof(pointers)

    def launch(grid=(1, 1, 1), block=(32, 1, 1), shared=0, stream=0, params=args, extra=0):
        return code(driver.cuLaunchKernel(function, *grid, *block, shared, stream, params, extra))

    freed = int(ok(driver.cuMemAlloc(1 << 21)))
    ok(driver.cuMemFree(freed))
    host = np.zeros(16, np.uint8)
    module = gpu.module('extern "C" __global__ void only() {}')
    results = {
        "grid zero": launch(grid=(0, 1, 1)),
        "grid y zero": launch(grid=(1, 0, 1)),
        "block zero": launch(block=(0, 1, 1)),
        "block too large": launch(block=(2048, 1, 1)),
        "block product too large": launch(block=(1024, 2, 1)),
        "block z too large": launch(block=(1, 1, 65)),
        "grid y too large": launch(grid=(1, 65536, 1)),
        "shared too large": launch(shared=1 << 20),
        "unknown function": code(driver.cuModuleGetFunction(module, b"absent")),
        "free null": code(driver.cuMemFree(0)),
        "double free": code(driver.cuMemFree(freed)),
        "free inside": code(driver.cuMemFree(cell.value + 64)),
        "copy from freed": code(driver.cuMemcpyDtoH(host.ctypes.data, freed, 16)),
        "copy to null": code(driver.cuMemcpyHtoD(0, host.ctypes.data, 16)),
        "alloc zero": code(driver.cuMemAlloc(0)),
        "alloc absurd": code(driver.cuMemAlloc(1 << 50)),
        "alloc after absurd": code(driver.cuMemAlloc(1 << 20)),
        "not ptx": code(driver.cuModuleLoadData(b"this is not PTX\0")),
        "stream flags": code(driver.cuStreamCreate(0x80)),
        "event flags": code(driver.cuEventCreate(0x80)),
        "still alive": launch(),
    }
    gpu.synchronize()
    return results


@case
def launch_limits(gpu: Session):
    """What a function allows, by its own declaration and by what was asked for it: refused at the launch, in every way to launch."""
    source = """
    extern "C" __global__ void __launch_bounds__(128) narrow(int* p) { p[threadIdx.x] = 1; }
    extern "C" __global__ void wide(int* p) { extern __shared__ int s[]; s[threadIdx.x] = 2; p[threadIdx.x] = s[threadIdx.x]; }
    extern "C" __global__ void fixed(int* p) { __shared__ int s[8192]; s[threadIdx.x] = 3; __syncthreads(); p[threadIdx.x] = s[threadIdx.x ^ 1]; }
    """
    module = gpu.module(source)
    narrow, wide, fixed = (ok(driver.cuModuleGetFunction(module, name)) for name in (b"narrow", b"wide", b"fixed"))
    _keep, pointers = parameters(gpu.empty(4096))
    args = ctypes.addressof(pointers)
    dynamic = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    limit = int(ok(driver.cuDeviceGetAttribute(
        driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, gpu.device)))

    def plain(function, grid, block, shared=0):
        return code(driver.cuLaunchKernel(function, *grid, *block, shared, 0, args, 0))

    def cooperative(function, grid, block, shared=0):
        return code(driver.cuLaunchCooperativeKernel(function, *grid, *block, shared, 0, args))

    def extended(function, grid, block, shared=0, attributes=()):
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = block
        config.sharedMemBytes, config.attrs, config.numAttrs = shared, list(attributes), len(attributes)
        return code(driver.cuLaunchKernelEx(config, function, args, 0))

    def node(function, grid, block, shared=0):
        """By a graph: what adding the node says, or instantiating, or launching."""
        wanted = driver.CUDA_KERNEL_NODE_PARAMS()
        wanted.func = function
        wanted.gridDimX, wanted.gridDimY, wanted.gridDimZ = grid
        wanted.blockDimX, wanted.blockDimY, wanted.blockDimZ = block
        wanted.sharedMemBytes, wanted.kernelParams = shared, args
        graph = ok(driver.cuGraphCreate(0))
        added = code(driver.cuGraphAddKernelNode(graph, None, 0, wanted))
        if added != "CUDA_SUCCESS":
            return [added]
        made, executable = driver.cuGraphInstantiate(graph, 0)
        return [added, made.name, code(driver.cuGraphLaunch(executable, 0))] if made == 0 else [added, made.name]

    results, one = {}, (1, 1, 1)
    for way in (plain, cooperative, extended, node):
        results[way.__name__] = {
            "grid zero": way(wide, (1, 0, 1), (32, 1, 1)),
            "block zero": way(wide, one, (1, 1, 0)),
            "block too large": way(wide, one, (2048, 1, 1)),
            "block product too large": way(wide, one, (512, 2, 2)),
            "beyond launch bounds": way(narrow, one, (256, 1, 1)),
            "at launch bounds": way(narrow, one, (128, 1, 1)),
            "dynamic without asking": way(wide, one, (32, 1, 1), 49152 + 1024),
            "dynamic as given": way(wide, one, (32, 1, 1), 49152),
            "dynamic beside fixed": way(fixed, one, (32, 1, 1), 16384 + 1024),
            "dynamic beside fixed, as given": way(fixed, one, (32, 1, 1), 16384),
        }
    results["ask for too much"] = code(driver.cuFuncSetAttribute(wide, dynamic, limit + 1024))
    results["ask beside fixed"] = code(driver.cuFuncSetAttribute(fixed, dynamic, limit - 32768 + 1024))
    results["ask"] = code(driver.cuFuncSetAttribute(wide, dynamic, 65536))
    results["asked"] = [plain(wide, one, (32, 1, 1), shared) for shared in (65536, 65537, limit)]
    results["cooperative too large"] = [
        cooperative(wide, (1 << 20, 1, 1), (32, 1, 1)),
        extended(wide, (1 << 20, 1, 1), (32, 1, 1), attributes=[launch_attribute("COOPERATIVE", 1)]),
    ]
    gpu.synchronize()
    results["still alive"] = plain(fixed, one, (32, 1, 1))
    gpu.synchronize()
    return results


@case
def bad_launch_arguments(gpu: Session):
    """kernelParams, extra and contexts used wrongly."""
    function = gpu.function(
        'extern "C" __global__ void k(int* p, int v, double d) { p[threadIdx.x] = v + (int)d; }', "k")
    cell = gpu.empty(4096)

    class Packed(ctypes.Structure):
        _fields_ = [("p", ctypes.c_uint64), ("v", ctypes.c_int), ("d", ctypes.c_double)]

    def by_extra(declared: int, flag_end: int = 0):
        packed, size = Packed(cell, 40, 2.0), ctypes.c_size_t(declared)
        extra = (ctypes.c_void_p * 5)(1, ctypes.addressof(packed), 2, ctypes.addressof(size), flag_end)
        return code(driver.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, 0, ctypes.addressof(extra)))

    exact = by_extra(24)
    value = int(gpu.download(cell, 1, np.int32)[0])
    values = [ctypes.c_uint64(cell), ctypes.c_int(1), ctypes.c_double(0)]
    pointers = (ctypes.c_void_p * 3)(*(ctypes.addressof(v) for v in values))
    both_size, both_packed = ctypes.c_size_t(24), Packed(cell, 1, 0)
    both = (ctypes.c_void_p * 5)(1, ctypes.addressof(both_packed), 2, ctypes.addressof(both_size), 0)
    results = {
        "extra exact": [exact, value],
        "extra short": by_extra(20),
        "extra long": by_extra(64),
        "neither": code(driver.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, 0, 0)),
        "both": code(driver.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, ctypes.addressof(pointers), ctypes.addressof(both))),
        "null function": code(driver.cuLaunchKernel(driver.CUfunction(0), 1, 1, 1, 32, 1, 1, 0, 0, ctypes.addressof(pointers), 0)),
        "cooperative too large": code(driver.cuLaunchCooperativeKernel(function, 1 << 20, 1, 1, 1024, 1, 1, 0, 0, ctypes.addressof(pointers))),
        "cooperative": code(driver.cuLaunchCooperativeKernel(function, 2, 1, 1, 32, 1, 1, 0, 0, ctypes.addressof(pointers))),
    }
    gpu.synchronize()
    ok(driver.cuCtxSetCurrent(driver.CUcontext(0)))
    results["no context"] = code(driver.cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, ctypes.addressof(pointers), 0))
    results["alloc without context"] = code(driver.cuMemAlloc(64))
    results["stream without context"] = code(driver.cuStreamCreate(0))
    results["sync without context"] = code(driver.cuCtxSynchronize())
    return results


@case
def parameter_buffers_of_wrong_size(gpu: Session):
    """`extra` buffers shorter and longer than the parameters: what the launch returns and what the kernel reads."""
    results = {}
    for name, declaration, size in (("12", "int* p, int v", 12), ("24", "int* p, int v, double d", 24), ("8", "int* p", 8)):
        function = gpu.function(f'extern "C" __global__ void k({declaration}) {{ *p = {"v" if "v" in declaration else 7}; }}', "k")
        for declared in (8, 11, 12, 13, 16, 20, 23, 24, 25, 28, 32, 64, 4096, 4097, 32764, 32765, 1 << 20):
            cell = gpu.empty(64)
            packed = (ctypes.c_uint64 * 8192)(cell, 41)
            bytes_ = ctypes.c_size_t(declared)
            extra = (ctypes.c_void_p * 5)(1, ctypes.addressof(packed), 2, ctypes.addressof(bytes_), 0)
            result = code(driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, 0, ctypes.addressof(extra)))
            row = [result]
            # What a kernel reads past a short buffer is undefined, and may be an address.
            if declared >= size:
                row.append(int(gpu.download(cell, 1, np.int32)[0]))
            results[f"{name} declared {declared}"] = row
            gpu.synchronize()
    return results


@case
def bad_memory_arguments(gpu: Session):
    pointer, host = gpu.empty(1000), np.zeros(4096, np.uint8)
    large = gpu.empty(2 << 20)
    # Nothing is allocated after it is freed: the memory would be in use again.
    freed = gpu.empty(4 << 20)
    ok(driver.cuMemFree(freed))
    attribute = driver.CUpointer_attribute
    return {
        "memset freed": code(driver.cuMemsetD8(freed, 1, 16)),
        "memset null": code(driver.cuMemsetD32(0, 1, 16)),
        "memset misaligned": code(driver.cuMemsetD32(pointer + 1, 1, 4)),
        "memset zero": code(driver.cuMemsetD8(pointer, 1, 0)),
        "copy past a large allocation": code(driver.cuMemcpyDtoH(host.ctypes.data, large + (2 << 20) - 16, 32)),
        "device to device from freed": code(driver.cuMemcpyDtoD(pointer, freed, 16)),
        "copy zero bytes": code(driver.cuMemcpyHtoD(pointer, host.ctypes.data, 0)),
        "host null": code(driver.cuMemcpyHtoD(pointer, 0, 16)),
        "unified host to host": code(driver.cuMemcpy(host.ctypes.data, host.ctypes.data + 2048, 16)),
        "range of unknown": code(driver.cuMemGetAddressRange(0x1234)),
        "attribute of unknown": code(driver.cuPointerGetAttribute(attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, host.ctypes.data)),
        "attribute of freed": code(driver.cuPointerGetAttribute(attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, freed)),
        "free host unknown": code(driver.cuMemFreeHost(host.ctypes.data)),
        "host alloc zero": [code(driver.cuMemHostAlloc(0, 0)), int(driver.cuMemHostAlloc(0, 0)[1] or 0)],
        "host alloc zero, first form": [code(driver.cuMemAllocHost(0)), int(driver.cuMemAllocHost(0)[1] or 0)],
        "free host null": code(driver.cuMemFreeHost(0)),
        "host alloc flags": code(driver.cuMemHostAlloc(64, 0x100)),
        "pitch zero": code(driver.cuMemAllocPitch(0, 4, 4)),
        "pitch": [int(ok(driver.cuMemAllocPitch(100, 4, 4))[1]), int(ok(driver.cuMemAllocPitch(513, 4, 16))[1])],
    }


@case
def bad_handles_and_states(gpu: Session):
    untimed = ok(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING))
    a, b = (ok(driver.cuEventCreate(0)) for _ in range(2))
    results = {
        "query unrecorded": code(driver.cuEventQuery(a)),
        "synchronize unrecorded": code(driver.cuEventSynchronize(a)),
        "elapsed unrecorded": code(driver.cuEventElapsedTime(a, b)),
    }
    ok(driver.cuEventRecord(untimed, 0))
    ok(driver.cuEventRecord(a, 0))
    gpu.synchronize()
    results |= {
        "elapsed untimed": code(driver.cuEventElapsedTime(untimed, a)),
        "elapsed same": ok(driver.cuEventElapsedTime(a, a)),
        "wait unrecorded": code(driver.cuStreamWaitEvent(0, b, 0)),
        "wait flags": code(driver.cuStreamWaitEvent(0, a, 0x40)),
        "record null": code(driver.cuEventRecord(driver.CUevent(0), 0)),
        "synchronize null stream": code(driver.cuStreamSynchronize(0)),
        "query null event": code(driver.cuEventQuery(driver.CUevent(0))),
        "destroy null stream": code(driver.cuStreamDestroy(driver.CUstream(0))),
        "query null stream": code(driver.cuStreamQuery(0)),
        "unload null": code(driver.cuModuleUnload(driver.CUmodule(0))),
        "graph launch null": code(driver.cuGraphLaunch(driver.CUgraphExec(0), 0)),
        "priorities": list(map(int, ok(driver.cuCtxGetStreamPriorityRange()))),
    }
    return results


@case
def capture_rules(gpu: Session):
    """What a capture forbids, and what breaks it."""
    function = gpu.function('extern "C" __global__ void k(int* p) { p[threadIdx.x] = 1; }', "k")
    cell, host = gpu.empty(4096), np.zeros(64, np.uint8)
    stream = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    modes = driver.CUstreamCaptureMode
    results = {}

    def broken_by(name, action, mode=modes.CU_STREAM_CAPTURE_MODE_GLOBAL):
        ok(driver.cuStreamBeginCapture(stream, mode))
        gpu.launch(function, (1,), (32,), cell, stream=stream)
        result = action()
        status = ok(driver.cuStreamIsCapturing(stream)).name
        results[name] = [code(result), status, code(driver.cuStreamEndCapture(stream))]

    broken_by("stream synchronize", lambda: driver.cuStreamSynchronize(stream))
    broken_by("stream query", lambda: driver.cuStreamQuery(stream))
    broken_by("context synchronize", lambda: driver.cuCtxSynchronize())
    broken_by("legacy launch", lambda: driver.cuMemsetD8Async(cell, 0, 64, 0))
    broken_by("sync copy", lambda: driver.cuMemcpyHtoD(cell, host.ctypes.data, 64))
    broken_by("alloc global", lambda: driver.cuMemAlloc(64))
    broken_by("alloc relaxed", lambda: driver.cuMemAlloc(64), modes.CU_STREAM_CAPTURE_MODE_RELAXED)
    broken_by("end twice", lambda: driver.cuStreamEndCapture(stream))
    broken_by("begin twice", lambda: driver.cuStreamBeginCapture(stream, modes.CU_STREAM_CAPTURE_MODE_GLOBAL))
    results["end without begin"] = code(driver.cuStreamEndCapture(stream))
    results["begin on null"] = code(driver.cuStreamBeginCapture(0, modes.CU_STREAM_CAPTURE_MODE_GLOBAL))
    return results


@case
def sticky_fault(gpu: Session):
    """A kernel that writes to an unmapped address breaks the context at the next synchronisation, and stays broken."""
    function = gpu.function('extern "C" __global__ void k(int* p) { *p = 1; }', "k")
    gpu.launch(function, (1,), (1,), 0x10)
    first = code(driver.cuCtxSynchronize())
    return {"sync": first, "alloc after": code(driver.cuMemAlloc(16)), "sync after": code(driver.cuCtxSynchronize())}
