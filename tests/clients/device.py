"""A thin layer over NVIDIA's cuda-bindings: errors become exceptions, CUDA C becomes a loaded module.

Nothing here knows about LightOS. The same programs run natively and under the shim.
"""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver, nvrtc


class CudaError(RuntimeError):
    def __init__(self, code):
        super().__init__(getattr(code, "name", str(code)))
        self.code = code


def ok(result):
    """Unpack a binding's tuple, or raise with the name of the CUresult."""
    code, *values = result
    if int(code) != 0:
        raise CudaError(code)
    return values[0] if len(values) == 1 else tuple(values) if values else None


def code(result) -> str:
    """The name of the CUresult, for cases that compare errors."""
    return result[0].name


def compile_ptx(source: str, arch: str = "compute_75", options: tuple[str, ...] = ()) -> bytes:
    program = ok(nvrtc.nvrtcCreateProgram(source.encode(), b"program.cu", 0, [], []))
    flags = [f"--gpu-architecture={arch}".encode(), b"--std=c++17", *(o.encode() for o in options)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
    if int(status) != 0:
        log = b" " * ok(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise RuntimeError(log.decode())
    ptx = b" " * ok(nvrtc.nvrtcGetPTXSize(program))
    ok(nvrtc.nvrtcGetPTX(program, ptx))
    return ptx


def parameters(*args):
    """`kernelParams` of ctypes values (an int is a device pointer): what must stay alive, and the array of pointers."""
    values = [ctypes.c_uint64(a) if isinstance(a, int) else a for a in args]
    return values, (ctypes.c_void_p * max(len(values), 1))(*(ctypes.addressof(v) for v in values))


def launch_attribute(name: str, value) -> driver.CUlaunchAttribute:
    attribute = driver.CUlaunchAttribute()
    attribute.id = getattr(driver.CUlaunchAttributeID, "CU_LAUNCH_ATTRIBUTE_" + name)
    attribute.value = attribute_value(name, value)
    return attribute


def attribute_value(name: str, value, union=driver.CUlaunchAttributeValue):
    """A CUlaunchAttributeValue, or one of the types that the bindings declare beside it for streams and nodes."""
    field = {"CLUSTER_DIMENSION": "clusterDim", "COOPERATIVE": "cooperative", "PRIORITY": "priority",
             "PROGRAMMATIC_STREAM_SERIALIZATION": "programmaticStreamSerializationAllowed",
             "MEM_SYNC_DOMAIN": "memSyncDomain", "SYNCHRONIZATION_POLICY": "syncPolicy",
             "PREFERRED_SHARED_MEMORY_CARVEOUT": "sharedMemCarveout"}[name]
    union = union()
    if field == "clusterDim":
        union.clusterDim.x, union.clusterDim.y, union.clusterDim.z = value
    else:
        setattr(union, field, value)
    return union


class Session:
    """One context on device 0."""

    def __init__(self):
        ok(driver.cuInit(0))
        self.device = ok(driver.cuDeviceGet(0))
        self.context = ok(driver.cuDevicePrimaryCtxRetain(self.device))
        ok(driver.cuCtxSetCurrent(self.context))

    def module(self, source: str, **options):
        image = compile_ptx(source, **options)
        return ok(driver.cuModuleLoadData(image))

    def function(self, source: str, name: str, **options):
        return ok(driver.cuModuleGetFunction(self.module(source, **options), name.encode()))

    def upload(self, array: np.ndarray) -> int:
        pointer = ok(driver.cuMemAlloc(max(array.nbytes, 1)))
        ok(driver.cuMemcpyHtoD(pointer, array.ctypes.data, array.nbytes))
        return int(pointer)

    def empty(self, nbytes: int) -> int:
        """Zeroed memory, ready for every stream: a fill of device memory is asynchronous, and a non-blocking stream does
        not wait for the default one."""
        pointer = ok(driver.cuMemAlloc(nbytes))
        ok(driver.cuMemsetD8(pointer, 0, nbytes))
        ok(driver.cuStreamSynchronize(0))
        return int(pointer)

    def download(self, pointer: int, shape, dtype) -> np.ndarray:
        array = np.empty(shape, dtype)
        ok(driver.cuMemcpyDtoH(array.ctypes.data, pointer, array.nbytes))
        return array

    def launch(self, function, grid, block, *args, shared: int = 0, stream: int = 0):
        """`args` are ctypes scalars or ctypes structures; an int is a device pointer."""
        grid, block = (tuple(d) + (1,) * (3 - len(d)) for d in (grid, block))
        _keep, pointers = parameters(*args)
        ok(driver.cuLaunchKernel(function, *grid, *block, shared, stream, ctypes.addressof(pointers), 0))

    def launch_ex(self, function, grid, block, *args, shared: int = 0, stream: int = 0, attributes: dict | None = None):
        """cuLaunchKernelEx; `attributes` are values by the end of the name of their CUlaunchAttributeID."""
        grid, block = (tuple(d) + (1,) * (3 - len(d)) for d in (grid, block))
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = block
        config.sharedMemBytes, config.hStream = shared, driver.CUstream(int(stream))
        config.attrs = [launch_attribute(name, value) for name, value in (attributes or {}).items()]
        config.numAttrs = len(attributes or {})
        _keep, pointers = parameters(*args)
        ok(driver.cuLaunchKernelEx(config, function, ctypes.addressof(pointers), 0))

    def synchronize(self):
        ok(driver.cuCtxSynchronize())
