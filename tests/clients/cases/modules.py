"""Modules and libraries: images, functions, globals."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from cases.command_buffers import copy_node, memset_node
from device import Session, code, compile_ptx, ok
from registry import case, check


@case
def module_globals(gpu: Session):
    module = gpu.module(
        """
        __device__ int counter = 41;
        __constant__ float weights[4] = {1.f, 2.f, 3.f, 4.f};
        __device__ float result[4];
        extern "C" __global__ void step() {
            atomicAdd(&counter, 1);
            if (blockIdx.x == 0 && threadIdx.x < 4) result[threadIdx.x] = weights[threadIdx.x] * 10.f;
        }"""
    )
    step = ok(driver.cuModuleGetFunction(module, b"step"))
    counter, counter_bytes = ok(driver.cuModuleGetGlobal(module, b"counter"))
    weights, _ = ok(driver.cuModuleGetGlobal(module, b"weights"))
    result, result_bytes = ok(driver.cuModuleGetGlobal(module, b"result"))
    new = np.array([1, 2, 4, 8], np.float32)
    ok(driver.cuMemcpyHtoD(weights, new.ctypes.data, new.nbytes))
    gpu.launch(step, (10,), (10,))
    missing = code(driver.cuModuleGetGlobal(module, b"absent"))
    return {
        "counter": check(gpu.download(int(counter), 1, np.int32), np.array([141], np.int32)),
        "result": check(gpu.download(int(result), 4, np.float32), new * 10),
        "sizes": [int(counter_bytes), int(result_bytes)],
        "missing": missing,
    }


@case
def library_api(gpu: Session):
    ptx = compile_ptx('extern "C" __global__ void twice(int* p) { p[threadIdx.x] *= 2; } __device__ int seed = 9;')
    library = ok(driver.cuLibraryLoadData(ptx, [], [], 0, [], [], 0))
    kernel = ok(driver.cuLibraryGetKernel(library, b"twice"))
    function = ok(driver.cuKernelGetFunction(kernel))
    seed, size = ok(driver.cuLibraryGetGlobal(library, b"seed"))
    data = gpu.upload(np.arange(32, dtype=np.int32))
    gpu.launch(function, (1,), (32,), data)
    gpu.launch(driver.CUfunction(int(kernel)), (1,), (32,), data)
    out = check(gpu.download(data, 32, np.int32), np.arange(32, dtype=np.int32) * 4)
    name = ok(driver.cuFuncGetName(function))
    seed_value = gpu.download(int(seed), 1, np.int32)
    ok(driver.cuLibraryUnload(library))
    return {"out": out, "name": name.decode() if isinstance(name, bytes) else str(name), "seed": check(seed_value, np.array([9], np.int32)), "size": int(size)}


@case
def globals_in_graphs(gpu: Session):
    """Variables that graphs copy, fill and write words to: nodes made by hand and captured, changed in the executable graph. XLA copies
    its constants so."""
    n = 3000
    module = gpu.module(
        f"""
        __device__ int table[{n}]; __constant__ int scale[16]; __device__ unsigned word;
        extern "C" __global__ void sum(int* out) {{
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < {n}) out[i] = table[i] * scale[i % 16] + (int)word;
        }}"""
    )
    total = ok(driver.cuModuleGetFunction(module, b"sum"))
    # The largest last, whose first page the others have already.
    word, scale, table = (int(ok(driver.cuModuleGetGlobal(module, name))[0]) for name in (b"word", b"scale", b"table"))
    values, factors, out = gpu.upload(np.arange(n, dtype=np.int32)), gpu.upload(np.full(16, 5, np.int32)), gpu.empty(4 * n)
    back, other = gpu.empty(4 * n), gpu.upload(np.arange(n, dtype=np.int32)[::-1].copy())
    stream = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    gpu.synchronize()

    by_hand, nodes = ok(driver.cuGraphCreate(0)), []
    for node in (copy_node(table, values, 4 * n), copy_node(scale, factors, 64), copy_node(back, table, 4 * n)):
        nodes.append(ok(driver.cuGraphAddMemcpyNode(by_hand, nodes[-1:] or None, len(nodes[-1:]), node, gpu.context)))
    nodes.append(ok(driver.cuGraphAddMemsetNode(by_hand, nodes[-1:], 1, memset_node(word, 7, 1), gpu.context)))
    found = ok(driver.cuGraphMemcpyNodeGetParams(nodes[2]))
    results = {"source": int(found.srcDevice) == table}
    execution = ok(driver.cuGraphInstantiate(by_hand, 0))

    def run(graph):
        ok(driver.cuGraphLaunch(graph, stream))
        gpu.launch(total, (n // 100,), (100,), out, stream=stream)
        ok(driver.cuStreamSynchronize(stream))
        return gpu.download(out, n, np.int32)

    results["by hand"] = check(run(execution), np.arange(n, dtype=np.int32) * 5 + 7)
    results["read back"] = check(gpu.download(back, n, np.int32), np.arange(n, dtype=np.int32))
    ok(driver.cuGraphExecMemcpyNodeSetParams(execution, nodes[0], copy_node(table, other, 4 * n), gpu.context))
    ok(driver.cuGraphExecMemsetNodeSetParams(execution, nodes[3], memset_node(word, 9, 1), gpu.context))
    results["changed"] = check(run(execution), np.arange(n, dtype=np.int32)[::-1] * 5 + 9)

    ok(driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
    ok(driver.cuMemcpyDtoDAsync(table, values, 4 * n, stream))
    ok(driver.cuMemcpyAsync(scale, factors, 64, stream))
    ok(driver.cuMemsetD32Async(scale, 3, 8, stream))
    ok(driver.cuStreamWriteValue32(stream, word, 11, 0))
    captured = ok(driver.cuGraphInstantiate(ok(driver.cuStreamEndCapture(stream)), 0))
    factor = np.where(np.arange(n) % 16 < 8, 3, 5).astype(np.int32)
    results["captured"] = check(run(captured), np.arange(n, dtype=np.int32) * factor + 11)
    results["beyond"] = code(driver.cuGraphAddMemcpyNode(by_hand, None, 0, copy_node(back, table, 1 << 30), gpu.context))
    ok(driver.cuModuleUnload(module))
    return results
