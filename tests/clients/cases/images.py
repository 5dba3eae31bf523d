"""How images are loaded: logs, options, the linker, libraries with many kernels, images that are gone after the call."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path

import numpy as np
from cuda.bindings import driver

from device import Session, code, compile_ptx, ok
from registry import case, check

OPTIONS = driver.CUjit_option
TWO = """
    extern "C" __global__ void one(int* p) { p[threadIdx.x] += 1; }
    extern "C" __global__ void two(int* p, int v) { p[threadIdx.x] += 2 * v; }
    __device__ int base = 40;
    extern "C" __global__ void three(int* p) { p[threadIdx.x] += base; }
"""


@case
def image_gone_after_load(gpu: Session):
    """The image is the program's again when the load returns, while loading may be lazy on both sides."""
    ptx = compile_ptx(TWO)
    results = []
    for kind in ("module", "library"):
        buffer = ctypes.create_string_buffer(ptx, len(ptx) + 1)
        address = ctypes.addressof(buffer)
        if kind == "module":
            handle = ok(driver.cuModuleLoadData(address))
        else:
            handle = ok(driver.cuLibraryLoadData(address, [], [], 0, [], [], 0))
        ctypes.memset(address, 0xFF, len(ptx) + 1)
        del buffer
        if kind == "module":
            function = ok(driver.cuModuleGetFunction(handle, b"three"))
        else:
            function = ok(driver.cuKernelGetFunction(ok(driver.cuLibraryGetKernel(handle, b"three"))))
        data = gpu.empty(128)
        gpu.launch(function, (1,), (32,), data)
        results.append(check(gpu.download(data, 32, np.int32), np.full(32, 40, np.int32)))
        ok(driver.cuModuleUnload(handle) if kind == "module" else driver.cuLibraryUnload(handle))
    return {"data": np.concatenate(results)}


@case
def load_with_logs(gpu: Session):
    """XLA's load: buffers for both logs, their sizes written back; a good image and a bad one."""
    results = {}
    for name, image in (("good", compile_ptx(TWO)), ("bad", b".version 8.0\n.target sm_75\n.address_size 64\nnonsense;\n\0")):
        # The driver writes into them: not literals, which may be shared.
        info, error = bytes(bytearray(1024)), bytes(bytearray(1024))
        names = [OPTIONS.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, OPTIONS.CU_JIT_ERROR_LOG_BUFFER,
                 OPTIONS.CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, OPTIONS.CU_JIT_INFO_LOG_BUFFER, OPTIONS.CU_JIT_LOG_VERBOSE]
        status, module = driver.cuModuleLoadDataEx(
            image, len(names), names, [1024, error, 1024, info, 1])
        results[name] = [status.name, bool(error.strip(b"\0"))]
        if int(status) == 0:
            function = ok(driver.cuModuleGetFunction(module, b"one"))
            data = gpu.empty(128)
            gpu.launch(function, (1,), (32,), data)
            results["data"] = check(gpu.download(data, 32, np.int32), np.ones(32, np.int32))
    return results


@case
def enumerated_library(gpu: Session):
    """Every kernel of a library by enumeration: names, parameters, attributes per device, launch by kernel handle."""
    library = ok(driver.cuLibraryLoadData(compile_ptx(TWO), [], [], 0, [], [], 0))
    count = int(ok(driver.cuLibraryGetKernelCount(library)))
    kernels = ok(driver.cuLibraryEnumerateKernels(count, library))
    attributes = driver.CUfunction_attribute
    results, data = {"count": count}, gpu.empty(128)
    for kernel in kernels:
        name = ok(driver.cuKernelGetName(kernel)).decode()
        dynamic = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        ok(driver.cuKernelSetAttribute(dynamic, 60000, kernel, gpu.device))
        parameters = []
        while code(info := driver.cuKernelGetParamInfo(kernel, len(parameters))) == "CUDA_SUCCESS":
            parameters.append([int(v) for v in info[1:]])
        results[name] = {
            "parameters": parameters, "dynamic": ok(driver.cuKernelGetAttribute(dynamic, kernel, gpu.device)),
            "threads": ok(driver.cuKernelGetAttribute(attributes.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, kernel, gpu.device))}
        more = (ctypes.c_int(5),) if name == "two" else ()
        gpu.launch_ex(driver.CUfunction(int(kernel)), (1,), (32,), data, *more, shared=50000)
    module = ok(driver.cuLibraryGetModule(library))
    function = ok(driver.cuModuleGetFunction(module, b"one"))
    gpu.launch(function, (1,), (32,), data)
    results["data"] = check(gpu.download(data, 32, np.int32), np.full(32, 1 + 10 + 40 + 1, np.int32))
    functions = ok(driver.cuModuleEnumerateFunctions(int(ok(driver.cuModuleGetFunctionCount(module))), module))
    results["functions"] = sorted(ok(driver.cuFuncGetName(f)).decode() for f in functions)
    gpu.launch(functions[results["functions"].index("one")] if len(functions) == 1 else
               next(f for f in functions if ok(driver.cuFuncGetName(f)) == b"one"), (1,), (32,), data)
    results["enumerated"] = check(gpu.download(data, 32, np.int32), np.full(32, 53, np.int32))
    ok(driver.cuLibraryUnload(library))
    return results


@case
def linked_image(gpu: Session):
    """The driver's linker: PTX in, an image out, loaded as a module. Numba and CuPy go this way."""
    ptx = compile_ptx('extern "C" __global__ void fill(int* p, int v) { p[threadIdx.x] = v; }')
    state = ok(driver.cuLinkCreate(0, [], []))
    added = code(driver.cuLinkAddData(state, driver.CUjitInputType.CU_JIT_INPUT_PTX, ptx, len(ptx), b"fill.ptx", 0, [], []))
    image, size = ok(driver.cuLinkComplete(state))
    module = ok(driver.cuModuleLoadData(int(image)))
    ok(driver.cuLinkDestroy(state))
    function = ok(driver.cuModuleGetFunction(module, b"fill"))
    data = gpu.empty(128)
    gpu.launch(function, (1,), (32,), data, ctypes.c_int(17))
    return {"added": added, "some": int(size) > 0, "data": check(gpu.download(data, 32, np.int32), np.full(32, 17, np.int32))}


@case
def modules_come_and_go(gpu: Session):
    """Loaded, used and unloaded again and again, with work pending at the unload; handles are used again by the driver."""
    data, want = gpu.empty(128), 0
    for i in range(25):
        module = gpu.module(f'extern "C" __global__ void add(int* p) {{ p[threadIdx.x] += {i}; }} __device__ int mark = {i};')
        function = ok(driver.cuModuleGetFunction(module, b"add"))
        mark, _ = ok(driver.cuModuleGetGlobal(module, b"mark"))
        gpu.launch(function, (1,), (32,), data)
        assert int(gpu.download(int(mark), 1, np.int32)[0]) == i
        gpu.launch(function, (1,), (32,), data)
        ok(driver.cuModuleUnload(module))
        want += 2 * i
    return {"data": check(gpu.download(data, 32, np.int32), np.full(32, want, np.int32))}


@case
def images_from_everywhere(gpu: Session):
    """Files, memory, fat binary functions; functions loaded ahead; what is asked for and is not there."""
    ptx = compile_ptx(TWO)
    results, data = {}, gpu.empty(128)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "two.ptx"
        path.write_bytes(ptx.rstrip(b"\0"))
        modules = {
            "file": ok(driver.cuModuleLoad(str(path).encode())),
            "memory": ok(driver.cuModuleLoadData(ptx)),
            "fat binary": ok(driver.cuModuleLoadFatBinary(ptx)),
        }
        library = ok(driver.cuLibraryLoadFromFile(str(path).encode(), [], [], 0, [], [], 0))
        results["no file"] = code(driver.cuModuleLoad(str(path).encode() + b"x"))
    for module in modules.values():
        function = ok(driver.cuModuleGetFunction(module, b"one"))
        ok(driver.cuFuncLoad(function))
        assert ok(driver.cuFuncIsLoaded(function)).name.endswith("_LOADED")
        ok(driver.cuFuncSetSharedMemConfig(function, driver.CUsharedconfig.CU_SHARED_MEM_CONFIG_DEFAULT_BANK_SIZE))
        gpu.launch(function, (1,), (32,), data)
    kernel = ok(driver.cuLibraryGetKernel(library, b"one"))
    ok(driver.cuKernelSetCacheConfig(kernel, driver.CUfunc_cache.CU_FUNC_CACHE_PREFER_L1, gpu.device))
    gpu.launch(driver.CUfunction(int(kernel)), (1,), (32,), data)
    results["of library"] = int(ok(driver.cuKernelGetLibrary(kernel))) == int(library)
    results["data"] = check(gpu.download(data, 32, np.int32), np.full(32, 4, np.int32))
    results["missing"] = [
        code(driver.cuModuleGetFunction(modules["file"], b"four")), code(driver.cuLibraryGetKernel(library, b"four")),
        code(driver.cuLibraryGetGlobal(library, b"four")), code(driver.cuLibraryGetManaged(library, b"four")),
        code(driver.cuLibraryGetUnifiedFunction(library, b"four")),
    ]
    results["mode"] = ok(driver.cuModuleGetLoadingMode()).name
    for module in modules.values():
        ok(driver.cuModuleUnload(module))
    ok(driver.cuLibraryUnload(library))
    return results
