"""Managed memory: one address for the processor and the device."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

N = 5000
ATTACH = driver.CUmemAttach_flags
SCALE = 'extern "C" __global__ void scale(float* x, float f, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) x[i] = x[i] * f + i; }'


def view(address: int, count: int, dtype) -> np.ndarray:
    """The processor's own view of memory at an address."""
    return np.ctypeslib.as_array((ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(address)).view(dtype)


@case
def managed_memory(gpu: Session):
    """Written by the processor, changed by a kernel, filled, copied, read by the processor."""
    function = gpu.function(SCALE, "scale")
    results = {}
    for flags in (ATTACH.CU_MEM_ATTACH_GLOBAL, ATTACH.CU_MEM_ATTACH_HOST):
        address = int(ok(driver.cuMemAllocManaged(4 * N, int(flags))))
        if flags == ATTACH.CU_MEM_ATTACH_HOST:
            ok(driver.cuStreamAttachMemAsync(0, address, 0, int(ATTACH.CU_MEM_ATTACH_GLOBAL)))
            gpu.synchronize()
        here = view(address, N, np.float32)
        here[:] = np.arange(N, dtype=np.float32)
        for _ in range(3):
            gpu.launch(function, (20,), (256,), address, ctypes.c_float(2), ctypes.c_int(N))
        gpu.synchronize()
        want = np.arange(N, dtype=np.float32)
        for _ in range(3):
            want = want * 2 + np.arange(N, dtype=np.float32)
        results[flags.name] = check(here.copy(), want)
        ok(driver.cuMemsetD32(address, 7, 100))
        other = gpu.empty(400)
        ok(driver.cuMemcpyDtoD(other, address, 400))
        gpu.synchronize()
        results[flags.name + " filled"] = check(here[:100].view(np.uint32).copy(), np.full(100, 7, np.uint32))
        check(gpu.download(other, 100, np.uint32), np.full(100, 7, np.uint32))
        attribute = driver.CUpointer_attribute
        results[flags.name + " attributes"] = [
            int(ok(driver.cuPointerGetAttribute(attribute.CU_POINTER_ATTRIBUTE_IS_MANAGED, address + 8))),
            int(ok(driver.cuPointerGetAttribute(attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address + 8))),
        ]
        results[flags.name + " freed"] = [code(driver.cuMemFree(address)), code(driver.cuMemFree(address))]
    return results


@case
def managed_memory_errors(gpu: Session):
    address, plain = int(ok(driver.cuMemAllocManaged(4096, 1))), gpu.empty(4096)
    stream = ok(driver.cuStreamCreate(1))
    location = driver.CUmemLocation()
    location.type, location.id = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE, 0
    advice = driver.CUmem_advise.CU_MEM_ADVISE_SET_PREFERRED_LOCATION
    results = {
        "no bytes": code(driver.cuMemAllocManaged(0, 1)),
        "flags": code(driver.cuMemAllocManaged(64, 3)),
        "advise": code(driver.cuMemAdvise(address, 4096, advice, location)),
        "prefetch": code(driver.cuMemPrefetchAsync(address, 4096, location, 0, stream)),
        "prefetch device memory": code(driver.cuMemPrefetchAsync(plain, 4096, location, 0, stream)),
        "advise device memory": code(driver.cuMemAdvise(plain, 4096, advice, location)),
        "as host memory": code(driver.cuMemFreeHost(address)),
    }
    gpu.synchronize()
    ok(driver.cuMemFree(address))
    return results


@case
def managed_variables(gpu: Session):
    """Variables of a module at one address for both sides, changed by a kernel, read by a copy and, where they are managed memory, in place."""
    module = gpu.module("""
        __managed__ int counter = 5;
        __managed__ float table[64];
        extern "C" __global__ void bump() { atomicAdd(&counter, 1); table[threadIdx.x] += 0.5f * threadIdx.x; }
    """)
    gpu.launch(ok(driver.cuModuleGetFunction(module, b"bump")), (1,), (32,))
    gpu.synchronize()
    results = {}
    for name, dtype, want in ((b"counter", np.int32, [5 + 32]), (b"table", np.float32, [0.5 * i for i in range(32)] + [0] * 32)):
        address, nbytes = ok(driver.cuModuleGetGlobal(module, name))
        want = np.array(want, dtype)
        results[name.decode()] = check(gpu.download(int(address), len(want), dtype), want)
        assert int(nbytes) == want.nbytes
        if ok(driver.cuPointerGetAttribute(driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_MANAGED, address)):
            check(view(int(address), len(want), dtype).copy(), want)
    ok(driver.cuModuleUnload(module))
    return results
