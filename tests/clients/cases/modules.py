"""Modules and libraries: images, functions, globals."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

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
