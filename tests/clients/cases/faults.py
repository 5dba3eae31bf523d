"""Faults of kernels: which calls tell of them, with which code, and what the program still can do.

A fault is for the rest of a process, so each is tried in a process of its own.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok, parameters
from registry import case

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
KERNELS = """
extern "C" __global__ void write(int* p) { *p = 1; }
extern "C" __global__ void read(int* p, int* out) { *out = *p; }
extern "C" __global__ void add(int* p) { atomicAdd(p, 1); }
extern "C" __global__ void wide(long long* p) { *p = 1; }
extern "C" __global__ void trap() { asm volatile("trap;"); }
extern "C" __global__ void fine(int* p) { p[threadIdx.x] = 7; }
"""
ASSERT = """
extern "C" __global__ void check(int v) { assert(v == 3); }
"""
# What a kernel does, by the kernel's name and how it is launched.
KINDS = ("write", "read", "add", "null", "past the end", "misaligned", "trap", "assert")
UNMAPPED = 0x10000
IMAGE = b".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry e() { ret; }\n\0"


class Faulty:
    """A process that has everything at hand before the fault: afterwards nothing can be made."""

    def __init__(self):
        self.gpu = gpu = Session()
        self.module = gpu.module(KERNELS)
        self.asserting = ok(driver.cuModuleGetFunction(gpu.module(ASSERT), b"check"))
        self.cells, self.free = gpu.empty(4096), gpu.empty(4096)
        self.pinned = int(ok(driver.cuMemHostAlloc(4096, 0)))
        self.pooled = int(ok(driver.cuMemAllocAsync(256, 0)))
        self.stream, self.other = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
        # Recorded and reached before the fault, recorded behind it, and never recorded.
        self.before, self.behind, self.never = (ok(driver.cuEventCreate(0)) for _ in range(3))
        self.graph = ok(driver.cuGraphCreate(0))
        ok(driver.cuGraphAddEmptyNode(self.graph, None, 0))
        self.exec = ok(driver.cuGraphInstantiate(self.graph, 0))
        self.host = np.zeros(64, np.int32)
        gpu.launch(self.function("fine"), (1,), (32,), self.cells)
        ok(driver.cuEventRecord(self.before, self.other))
        gpu.synchronize()

    def function(self, name: str):
        return ok(driver.cuModuleGetFunction(self.module, name.encode()))

    def fault(self, kind: str):
        """Queued behind a gate with an event after it, because a call that follows a fault may tell of it already."""
        gpu, stream = self.gpu, self.stream
        gate = ctypes.c_uint32.from_address(self.pinned)
        gate.value = 0
        ok(driver.cuStreamWaitValue32(stream, self.pinned, 1, 0))

        def launch(name: str, *args):
            gpu.launch(self.function(name), (1,), (1,), *args, stream=stream)

        if kind in ("write", "add"):
            launch(kind, UNMAPPED)
        elif kind == "read":
            launch("read", UNMAPPED, self.cells)
        elif kind == "null":
            launch("write", 0)
        elif kind == "past the end":
            # Far past everything that could lie behind this allocation.
            launch("write", self.cells + (1 << 44))
        elif kind == "misaligned":
            launch("wide", self.cells + 4)
        elif kind == "trap":
            launch("trap")
        else:
            gpu.launch(self.asserting, (1,), (1,), ctypes.c_int(2), stream=stream)
        ok(driver.cuEventRecord(self.behind, stream))
        gate.value = 1

    def calls(self) -> dict:
        gpu, host, cells = self.gpu, self.host.ctypes.data, self.cells
        self.parameters = parameters(cells)
        pointers = self.parameters[1]
        fine = self.function("fine")
        return {
            "context synchronize": lambda: driver.cuCtxSynchronize(),
            "stream synchronize": lambda: driver.cuStreamSynchronize(self.stream),
            "stream query": lambda: driver.cuStreamQuery(self.stream),
            "event query": lambda: driver.cuEventQuery(self.behind),
            "event synchronize": lambda: driver.cuEventSynchronize(self.behind),
            "alloc": lambda: driver.cuMemAlloc(64),
            "copy to host": lambda: driver.cuMemcpyDtoH(host, cells, 64),
            "copy to device": lambda: driver.cuMemcpyHtoD(cells, host, 64),
            "copy on device": lambda: driver.cuMemcpyDtoDAsync(cells, cells + 2048, 64, self.stream),
            "async copy to pinned": lambda: driver.cuMemcpyDtoHAsync(self.pinned, cells, 64, self.stream),
            "memset": lambda: driver.cuMemsetD8Async(cells, 0, 64, self.stream),
            "launch": lambda: driver.cuLaunchKernel(fine, 1, 1, 1, 32, 1, 1, 0, self.stream, ctypes.addressof(pointers), 0),
            "graph launch": lambda: driver.cuGraphLaunch(self.exec, self.stream),
            "other stream query": lambda: driver.cuStreamQuery(self.other),
            "earlier event query": lambda: driver.cuEventQuery(self.before),
            "event record": lambda: driver.cuEventRecord(self.never, self.other),
            "stream wait": lambda: driver.cuStreamWaitEvent(self.other, self.before, 0),
            "host function": lambda: driver.cuLaunchHostFunc(self.other, ctypes.cast(NOTHING, ctypes.c_void_p).value, 0),
            "elapsed": lambda: driver.cuEventElapsedTime(self.before, self.before),
            "stream create": lambda: driver.cuStreamCreate(NON_BLOCKING),
            "event create": lambda: driver.cuEventCreate(0),
            "module load": lambda: driver.cuModuleLoadData(IMAGE),
            "pinned alloc": lambda: driver.cuMemHostAlloc(64, 0),
            "managed alloc": lambda: driver.cuMemAllocManaged(64, 1),
            "pool alloc": lambda: driver.cuMemAllocAsync(64, self.stream),
            "pool free": lambda: driver.cuMemFreeAsync(self.pooled, self.stream),
            "memory info": lambda: driver.cuMemGetInfo(),
            "write value": lambda: driver.cuStreamWriteValue32(self.stream, cells, 1, 0),
            "free": lambda: driver.cuMemFree(self.free),
            "free host": lambda: driver.cuMemFreeHost(self.pinned),
            "current context": lambda: driver.cuCtxGetCurrent(),
            "device attribute": lambda: driver.cuDeviceGetAttribute(driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_WARP_SIZE, gpu.device),
            "pointer attribute": lambda: driver.cuPointerGetAttribute(driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, cells),
        }


NOTHING = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)


def in_this_process(kind: str, first: str):
    """The code with which the call `first` tells of the fault, and then that of every call."""
    faulty = Faulty()
    calls = faulty.calls()
    faulty.fault(kind)
    deadline = time.monotonic() + 20
    while (told := code(calls[first]())) in ("CUDA_SUCCESS", "CUDA_ERROR_NOT_READY"):
        assert time.monotonic() < deadline, f"{first} never tells"
    print(json.dumps({"first": told, "then": {name: code(call()) for name, call in calls.items()}}), flush=True)


def in_a_process(kind: str, first: str) -> dict:
    program = "import sys\nfrom cases.faults import in_this_process\nin_this_process(*sys.argv[1:])"
    command = [sys.executable, "-c", program, kind, first]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def side_by_side(asked: list[tuple[str, str]]) -> list[tuple[str, dict]]:
    """Several such processes at once: starting one takes most of its time. With the kind or call that each was about."""
    with ThreadPoolExecutor(4) as pool:
        return list(zip([kind for kind, _ in asked], pool.map(lambda what: in_a_process(*what), asked)))


@case
def faults_by_kind(gpu: Session):
    """Every kind of fault, told by the wait for its stream."""
    results = {}
    for kind, found in side_by_side([(kind, "stream synchronize") for kind in KINDS]):
        # Told once, told always.
        assert {found["then"][name] for name in ("context synchronize", "alloc", "launch")} == {found["first"]}, found
        results[kind] = found["first"]
    return results


@case
def faults_by_call(gpu: Session):
    """Every call that can be the first to tell of a fault; what each call says afterwards does not depend on which it was."""
    results, then = {}, None
    firsts = ("context synchronize", "stream query", "event query", "event synchronize", "alloc", "copy to host", "copy to device",
              "memset", "launch", "graph launch", "other stream query", "event record", "stream create")
    found_by = side_by_side([("write", first) for first in firsts])
    for first, (_, found) in zip(firsts, found_by):
        results[first] = found["first"]
        then = then or found["then"]
        assert found["then"] == then, (first, found, then)
    return {"first": results, "then": then}
