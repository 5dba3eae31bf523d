"""What a capture under way forbids: every kind of call, beside each kind of captured stream, in each mode."""

from __future__ import annotations

import numpy as np
from cuda.bindings import driver

from device import Session, code, compile_ptx, ok
from registry import case

MODES = driver.CUstreamCaptureMode
NON_BLOCKING = int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
LARGE = 1 << 20


class Beside:
    """Things made before the capture begins, and the calls that are made while it runs."""

    def __init__(self, gpu: Session):
        source = 'extern "C" __global__ void k(int* p) { p[threadIdx.x] = 1; }'
        self.image = compile_ptx(source)
        self.module = ok(driver.cuModuleLoadData(self.image))
        self.function = ok(driver.cuModuleGetFunction(self.module, b"k"))
        self.gpu, self.cell, self.other_cell = gpu, gpu.empty(LARGE), gpu.empty(LARGE)
        self.host = np.zeros(LARGE, np.uint8)
        self.pinned = int(ok(driver.cuMemHostAlloc(LARGE, 0)))
        self.stream = ok(driver.cuStreamCreate(NON_BLOCKING))
        self.event = ok(driver.cuEventCreate(0))
        ok(driver.cuEventRecord(self.event, self.stream))
        gpu.launch(self.function, (1,), (32,), self.cell)
        self.graph = ok(driver.cuGraphCreate(0))
        self.executable = ok(driver.cuGraphInstantiate(self.graph, 0))
        ok(driver.cuGraphLaunch(self.executable, self.stream))
        gpu.synchronize()

    def calls(self):
        pageable = self.host.ctypes.data
        return {
            "copy to device": lambda: driver.cuMemcpyHtoD(self.cell, pageable, 64),
            "copy to device, large": lambda: driver.cuMemcpyHtoD(self.cell, pageable, LARGE),
            "copy to device, pinned": lambda: driver.cuMemcpyHtoD(self.cell, self.pinned, 64),
            "copy to host": lambda: driver.cuMemcpyDtoH(pageable, self.cell, 64),
            "copy to host, large": lambda: driver.cuMemcpyDtoH(pageable, self.cell, LARGE),
            "copy to host, pinned": lambda: driver.cuMemcpyDtoH(self.pinned, self.cell, 64),
            "copy on the device": lambda: driver.cuMemcpyDtoD(self.cell, self.other_cell, 64),
            "unified copy": lambda: driver.cuMemcpy(self.cell, pageable, 64),
            "copy of no bytes": lambda: driver.cuMemcpyHtoD(self.cell, pageable, 0),
            "fill": lambda: driver.cuMemsetD8(self.cell, 0, 64),
            "asynchronous copy, default stream": lambda: driver.cuMemcpyHtoDAsync(self.cell, pageable, 64, 0),
            "asynchronous copy, other stream": lambda: driver.cuMemcpyHtoDAsync(self.cell, pageable, 64, self.stream),
            "launch, other stream": lambda: driver.cuMemsetD8Async(self.cell, 0, 64, self.stream),
            "allocate": lambda: driver.cuMemAlloc(64),
            "allocate in order, other stream": lambda: driver.cuMemAllocAsync(64, self.stream),
            "allocate pinned": lambda: driver.cuMemHostAlloc(4096, 0),
            "free": lambda: driver.cuMemFree(self.spare),
            "free pinned": lambda: driver.cuMemFreeHost(self.spare_pinned),
            "free null": lambda: driver.cuMemFree(0),
            "memory info": lambda: driver.cuMemGetInfo(),
            "create a stream": lambda: driver.cuStreamCreate(NON_BLOCKING),
            "create an event": lambda: driver.cuEventCreate(0),
            "record, other stream": lambda: driver.cuEventRecord(self.event, self.stream),
            "record, default stream": lambda: driver.cuEventRecord(self.event, 0),
            "query an event": lambda: driver.cuEventQuery(self.event),
            "wait for an event": lambda: driver.cuEventSynchronize(self.event),
            "query, other stream": lambda: driver.cuStreamQuery(self.stream),
            "wait, other stream": lambda: driver.cuStreamSynchronize(self.stream),
            "query, default stream": lambda: driver.cuStreamQuery(0),
            "wait, default stream": lambda: driver.cuStreamSynchronize(0),
            "wait for the context": lambda: driver.cuCtxSynchronize(),
            "load a module": lambda: driver.cuModuleLoadData(self.image),
            "load a library": lambda: driver.cuLibraryLoadData(self.image, [], [], 0, [], [], 0),
            "unload a module": lambda: driver.cuModuleUnload(self.spare_module),
            "set an attribute": lambda: driver.cuFuncSetAttribute(
                self.function, driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 49152),
            "instantiate a graph": lambda: driver.cuGraphInstantiate(self.graph, 0),
            "launch a graph, other stream": lambda: driver.cuGraphLaunch(self.executable, self.stream),
        }

    def renew(self):
        """What the calls use up."""
        self.spare, self.spare_pinned = self.gpu.empty(4096), int(ok(driver.cuMemHostAlloc(4096, 0)))
        self.spare_module = ok(driver.cuModuleLoadData(self.image))
        ok(driver.cuEventRecord(self.event, self.stream))
        self.gpu.synchronize()


def matrix(gpu: Session, flags: int):
    results, beside = {}, Beside(gpu)
    captured = ok(driver.cuStreamCreate(flags))
    for mode in (MODES.CU_STREAM_CAPTURE_MODE_GLOBAL, MODES.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, MODES.CU_STREAM_CAPTURE_MODE_RELAXED):
        for name, call in beside.calls().items():
            beside.renew()
            ok(driver.cuStreamBeginCapture(captured, mode))
            gpu.launch(beside.function, (1,), (32,), beside.cell, stream=captured)
            result = call()
            end, graph = driver.cuStreamEndCapture(captured)
            if int(end) == 0:
                ok(driver.cuGraphDestroy(graph))
            results.setdefault(name, []).append([code(result), end.name])
    gpu.synchronize()
    return results


@case
def beside_a_captured_stream(gpu: Session):
    """By call: for each mode (global, thread-local, relaxed) what it returns and what the capture's end returns."""
    return matrix(gpu, 0)


@case
def beside_a_captured_non_blocking_stream(gpu: Session):
    return matrix(gpu, NON_BLOCKING)
