"""Launches as frameworks make them: attributes, large parameters, large shared memory, cooperative grids."""

from __future__ import annotations

import ctypes
import time

import numpy as np
from cuda.bindings import driver

from device import CudaError, Session, attribute_value, code, ok, parameters
from registry import case, check

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
ADD = 'extern "C" __global__ void add(int* d, int v, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) d[i] = d[i] * 3 + v; }'


@case
def launch_attributes(gpu: Session):
    """Every attribute that cuBLAS, cuDNN, Triton and XLA put on launches, alone and together."""
    function, n = gpu.function(ADD, "add"), 4000
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    data, want = gpu.upload(np.arange(n, dtype=np.int32)), np.arange(n, dtype=np.int32)
    gpu.synchronize()
    sets = [
        {},
        {"CLUSTER_DIMENSION": (1, 1, 1)},
        {"COOPERATIVE": 0},
        {"COOPERATIVE": 1},
        {"PROGRAMMATIC_STREAM_SERIALIZATION": 0},
        {"PROGRAMMATIC_STREAM_SERIALIZATION": 1},
        {"PRIORITY": -1},
        {"MEM_SYNC_DOMAIN": driver.CUlaunchMemSyncDomain.CU_LAUNCH_MEM_SYNC_DOMAIN_DEFAULT},
        {"CLUSTER_DIMENSION": (1, 1, 1), "PROGRAMMATIC_STREAM_SERIALIZATION": 1, "PRIORITY": 0},
    ]
    for value, attributes in enumerate(sets):
        gpu.launch_ex(function, (16,), (256,), data, ctypes.c_int(value), ctypes.c_int(n), stream=stream, attributes=attributes)
        # A dependent launch has to wait for everything before it although it may start early.
        want = (want * np.int32(3) + np.int32(value)).astype(np.int32)
    ok(driver.cuStreamSynchronize(stream))
    return {"data": check(gpu.download(data, n, np.int32), want)}


@case
def events_of_launches(gpu: Session):
    """A launch that records an event: when its blocks have begun, or when they say so. Another stream waits for it."""
    function, n = gpu.function(ADD, "add"), 4000
    stream, other = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
    data, copy = gpu.upload(np.arange(n, dtype=np.int32)), gpu.empty(4 * n)
    gpu.synchronize()
    results = {}
    ids = driver.CUlaunchAttributeID
    for name, field in (("LAUNCH_COMPLETION_EVENT", "launchCompletionEvent"), ("PROGRAMMATIC_EVENT", "programmaticEvent")):
        for flags in (driver.CUevent_flags.CU_EVENT_DISABLE_TIMING, driver.CUevent_flags.CU_EVENT_DEFAULT):
            event = ok(driver.cuEventCreate(flags))
            attribute = driver.CUlaunchAttribute()
            attribute.id = getattr(ids, "CU_LAUNCH_ATTRIBUTE_" + name)
            part = getattr(attribute.value, field)
            part.event, part.flags = event, 0
            config = driver.CUlaunchConfig()
            config.gridDimX, config.gridDimY, config.gridDimZ = 16, 1, 1
            config.blockDimX, config.blockDimY, config.blockDimZ = 256, 1, 1
            config.hStream, config.attrs, config.numAttrs = stream, [attribute], 1
            _keep, pointers = parameters(data, ctypes.c_int(1), ctypes.c_int(n))
            launched = code(driver.cuLaunchKernelEx(config, function, ctypes.addressof(pointers), 0))
            results[f"{name} {flags.name}"] = launched
            if launched == "CUDA_SUCCESS":
                ok(driver.cuStreamWaitEvent(other, event, 0))
                ok(driver.cuMemsetD32Async(copy, 6, n, other))
                ok(driver.cuEventSynchronize(event))
                results[f"{name} query"] = code(driver.cuEventQuery(event))
                ok(driver.cuStreamSynchronize(other))
            ok(driver.cuStreamSynchronize(stream))
            ok(driver.cuEventDestroy(event))
    results["copy"] = check(gpu.download(copy, n, np.int32), np.full(n, 6, np.int32))
    results["data"] = check(gpu.download(data, n, np.int32), (np.arange(n, dtype=np.int32) * 3 + 1) * 3 + 1)
    return results


@case
def launches_of_old(gpu: Session):
    """Shape and parameters set one by one, as before CUDA 4; a capture does not take such a launch."""
    source = 'extern "C" __global__ void mix(float* d, float f, int n) { int i = (blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x; if (i < n) d[i] = d[i] * f + gridDim.y; }'
    function, n = gpu.function(source, "mix"), 1000
    data, stream = gpu.upload(np.arange(n, dtype=np.float32)), ok(driver.cuStreamCreate(NON_BLOCKING))
    # The bindings have no pointer for cuParamSetv but a void one; the address is eight bytes.
    address = ctypes.c_uint64(data)
    results = {"set": [
        code(driver.cuFuncSetBlockShape(function, 256, 1, 1)), code(driver.cuFuncSetSharedSize(function, 0)),
        code(driver.cuParamSetSize(function, 16)), code(driver.cuParamSetv(function, 0, ctypes.addressof(address), 8)),
        code(driver.cuParamSetf(function, 8, 2.0)), code(driver.cuParamSeti(function, 12, n))]}
    want = np.arange(n, dtype=np.float32)
    if set(results["set"]) == {"CUDA_SUCCESS"}:
        address.value = 0
        ok(driver.cuLaunchGrid(function, 4, 1))
        want = want * 2 + 1
        gpu.synchronize()
        ok(driver.cuParamSetf(function, 8, 3.0))
        ok(driver.cuLaunchGridAsync(function, 4, 2, stream))
        want = want * 3 + 2
        ok(driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        results["captured"] = code(driver.cuLaunchGridAsync(function, 4, 1, stream))
        # Whether there is a graph to be had of it is not the point.
        driver.cuStreamEndCapture(stream)
        ok(driver.cuStreamSynchronize(stream))
        ok(driver.cuLaunch(function))
        want[:256] = want[:256] * 3 + 1
        results["empty grid"] = code(driver.cuLaunchGrid(function, 0, 1))
        results["beyond"] = code(driver.cuParamSeti(function, 16, 1))
    results["data"] = check(gpu.download(data, n, np.float32), want)
    return results


@case
def clusters(gpu: Session):
    """Blocks in clusters, where the device has them; what does not fit is the same error everywhere."""
    function, n = gpu.function(ADD, "add", arch="compute_90"), 4000
    data, results = gpu.upload(np.zeros(n, np.int32)), {}
    for cluster in ((2, 1, 1), (3, 1, 1), (64, 1, 1)):
        try:
            gpu.launch_ex(function, (16,), (256,), data, ctypes.c_int(1), ctypes.c_int(n), attributes={"CLUSTER_DIMENSION": cluster})
            gpu.synchronize()
            results[str(cluster)] = "launched"
        except CudaError as error:
            results[str(cluster)] = error.code.name
    return results


@case
def stream_attributes(gpu: Session):
    """What was set on a stream is read back from it and does not disturb its work."""
    function, n = gpu.function(ADD, "add"), 1000
    stream, copy = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
    data = gpu.upload(np.zeros(n, np.int32))
    gpu.synchronize()
    policy = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY
    value = attribute_value("SYNCHRONIZATION_POLICY", driver.CUsynchronizationPolicy.CU_SYNC_POLICY_YIELD, driver.CUstreamAttrValue)
    results = {"set": code(driver.cuStreamSetAttribute(stream, policy, value))}
    results["get"] = int(ok(driver.cuStreamGetAttribute(stream, policy)).syncPolicy)
    results["copied"] = code(driver.cuStreamCopyAttributes(copy, stream))
    results["copy"] = int(ok(driver.cuStreamGetAttribute(copy, policy)).syncPolicy)
    for s in (stream, copy):
        gpu.launch(function, (8,), (128,), data, ctypes.c_int(4), ctypes.c_int(n), stream=s)
        ok(driver.cuStreamSynchronize(s))
    results["data"] = check(gpu.download(data, n, np.int32), np.full(n, 16, np.int32))
    return results


@case
def parameters_of_every_size(gpu: Session):
    """4 KiB of parameters, as in multi-tensor kernels, and the 30 KiB that newer images may take."""
    results = {}
    for size, arch in ((4000, "compute_75"), (30000, "compute_90")):
        class Block(ctypes.Structure):
            _fields_ = [("values", ctypes.c_int * (size // 4))]

        function = gpu.function(
            f"struct Block {{ int values[{size // 4}]; }};"
            'extern "C" __global__ void spread(int* out, const __grid_constant__ Block block, int add) {'
            "  int i = blockIdx.x * blockDim.x + threadIdx.x;"
            f"  if (i < {size // 4}) out[i] = block.values[i] + add; }}",
            "spread",
            arch=arch,
        )
        data = np.random.default_rng(size).integers(0, 1 << 30, size // 4, dtype=np.int32)
        block, out = Block(), gpu.empty(size)
        ctypes.memmove(block.values, data.ctypes.data, size)
        blocks = (size // 4 + 127) // 128
        gpu.launch(function, (blocks,), (128,), out, block, ctypes.c_int(9))
        # The parameters belong to the program again as soon as the call has returned.
        ctypes.memset(block.values, 0, size)
        results[str(size)] = check(gpu.download(out, size // 4, np.int32), data + 9)
    return results


@case
def large_shared_memory(gpu: Session):
    """Triton's way to more than 48 KiB: opt-in limit, static part, cache preference, attribute, launch."""
    function = gpu.function(
        """
        extern "C" __global__ void rotate(int* data, int n) {
            extern __shared__ int tile[];
            __shared__ int shift;
            if (threadIdx.x == 0) shift = 7;
            for (int i = threadIdx.x; i < n; i += blockDim.x) tile[i] = data[i];
            __syncthreads();
            for (int i = threadIdx.x; i < n; i += blockDim.x) data[i] = tile[(i + shift) % n];
        }""",
        "rotate",
    )
    f, d = driver.CUfunction_attribute, driver.CUdevice_attribute
    dynamic = f.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    limit = ok(driver.cuDeviceGetAttribute(d.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, gpu.device))
    static = ok(driver.cuFuncGetAttribute(f.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function))
    count = (limit - static) // 4
    data = gpu.upload(np.arange(count, dtype=np.int32))
    _keep, pointers = parameters(data, ctypes.c_int(count))

    def launch(shared: int) -> str:
        return code(driver.cuLaunchKernel(function, 1, 1, 1, 256, 1, 1, shared, 0, ctypes.addressof(pointers), 0))

    results = {"before": launch(4 * count), "default": ok(driver.cuFuncGetAttribute(dynamic, function))}
    ok(driver.cuFuncSetCacheConfig(function, driver.CUfunc_cache.CU_FUNC_CACHE_PREFER_SHARED))
    ok(driver.cuFuncSetAttribute(function, dynamic, limit - static))
    results["too much"] = code(driver.cuFuncSetAttribute(function, dynamic, limit + 1))
    results["set"] = ok(driver.cuFuncGetAttribute(dynamic, function)) == limit - static
    results["launch"] = launch(4 * count)
    want = np.roll(np.arange(count, dtype=np.int32), -7)
    results["data"] = check(gpu.download(data, count, np.int32), want)
    carveout = f.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
    ok(driver.cuFuncSetAttribute(function, carveout, 100))
    results["carveout"] = ok(driver.cuFuncGetAttribute(carveout, function))
    return results


@case
def delay_kernel(gpu: Session):
    """XLA's timer: a kernel spins on a pinned word until the host, having queued the work, releases it."""
    function = gpu.function(
        """
        extern "C" __global__ void delay(volatile int* semaphore, int target) {
            long long start = clock64();
            bool held;
            while ((held = *semaphore != target) && clock64() - start < 20000000000ll) {
                long long wait = clock64();
                while (clock64() - wait < 1024) {}
            }
            if (held) *semaphore = 2;
        }""",
        "delay",
    )
    add, n = gpu.function(ADD, "add"), 1000
    host = int(ok(driver.cuMemHostAlloc(4, driver.CU_MEMHOSTALLOC_PORTABLE)))
    word = ctypes.c_int.from_address(host)
    word.value = 0
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    start, stop = (ok(driver.cuEventCreate(0)) for _ in range(2))
    data = gpu.upload(np.zeros(n, np.int32))
    gpu.synchronize()
    gpu.launch(function, (1,), (1,), host, ctypes.c_int(1), stream=stream)
    ok(driver.cuEventRecord(start, stream))
    for _ in range(50):
        gpu.launch(add, (8,), (128,), data, ctypes.c_int(1), ctypes.c_int(n), stream=stream)
    ok(driver.cuEventRecord(stop, stream))
    held = [code(driver.cuEventQuery(start)), code(driver.cuStreamQuery(stream)), word.value]
    time.sleep(0.05)
    held.append(code(driver.cuEventQuery(stop)))
    word.value = 1
    ok(driver.cuEventSynchronize(stop))
    elapsed = ok(driver.cuEventElapsedTime(start, stop))
    value = 0
    for _ in range(50):
        value = (value * 3 + 1) & 0xFFFFFFFF
    out = check(gpu.download(data, n, np.int32).view(np.uint32), np.full(n, value, np.uint32))
    after = word.value
    ok(driver.cuMemFreeHost(host))
    return {"held": held, "after": after, "elapsed": elapsed > 0, "data": out}


@case
def cooperative_grid(gpu: Session):
    """A grid-wide barrier: all blocks have to be resident at once."""
    function = gpu.function(
        """
        extern "C" __global__ void grid(volatile int* arrived, int* out) {
            __syncthreads();
            if (threadIdx.x == 0) {
                __threadfence();
                atomicAdd((int*)arrived, 1);
                while (*arrived < gridDim.x) {}
                __threadfence();
            }
            __syncthreads();
            if (threadIdx.x == 0) out[blockIdx.x] = *arrived;
        }""",
        "grid",
    )
    blocks = ok(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, 64, 0))
    arrived, out = gpu.empty(4), gpu.empty(4 * 8)
    _keep, pointers = parameters(arrived, out)
    ok(driver.cuLaunchCooperativeKernel(function, 8, 1, 1, 64, 1, 1, 0, 0, ctypes.addressof(pointers)))
    return {"out": check(gpu.download(out, 8, np.int32), np.full(8, 8, np.int32)), "some blocks fit": blocks > 0}


@case
def occupancy_and_attributes(gpu: Session):
    """What heuristics read of a function, and what they compute from it."""
    function = gpu.function(ADD, "add")
    attributes = driver.CUfunction_attribute
    names = ["MAX_THREADS_PER_BLOCK", "SHARED_SIZE_BYTES", "CONST_SIZE_BYTES", "LOCAL_SIZE_BYTES", "NUM_REGS", "PTX_VERSION",
             "BINARY_VERSION", "CACHE_MODE_CA", "MAX_DYNAMIC_SHARED_SIZE_BYTES", "PREFERRED_SHARED_MEMORY_CARVEOUT",
             "CLUSTER_SIZE_MUST_BE_SET", "REQUIRED_CLUSTER_WIDTH", "NON_PORTABLE_CLUSTER_SIZE_ALLOWED"]
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = 4, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = 128, 1, 1
    cluster = driver.CUlaunchAttribute()
    cluster.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    cluster.value = attribute_value("CLUSTER_DIMENSION", (2, 1, 1))
    config.attrs, config.numAttrs = [cluster], 1
    return {
        "attributes": {n: ok(driver.cuFuncGetAttribute(getattr(attributes, "CU_FUNC_ATTRIBUTE_" + n), function)) for n in names},
        "blocks": [ok(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, size, shared))
                   for size in (32, 128, 1024) for shared in (0, 40000)],
        "flags": ok(driver.cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(function, 256, 0, 1)),
        "dynamic": code(driver.cuOccupancyAvailableDynamicSMemPerBlock(function, 1, 256)),
        "clusters": code(driver.cuOccupancyMaxActiveClusters(function, config)),
        "module": int(ok(driver.cuFuncGetModule(function))) != 0,
    }
