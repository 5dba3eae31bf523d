"""Faults of kernels: which error, where it surfaces, and that it stays. Each in a process of its own, because nothing works there afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from device import Session
from registry import case

PROGRAM = """
import ctypes, sys, time
import numpy as np
from device import Session, code, driver, ok
kind, surface = sys.argv[1:]
gpu = Session()
module = gpu.module('''
extern "C" __global__ void address(int* p) { *(volatile int*)((char*)p + (1ull << 44)) = 1; }
extern "C" __global__ void misaligned(int* p) { *(volatile int*)((char*)p + 1) = 1; }
extern "C" __global__ void trap(int* p) { asm("trap;"); }
extern "C" __global__ void fine(int* p) { *p += 1; }
''')
bad, fine = (ok(driver.cuModuleGetFunction(module, name.encode())) for name in (kind, 'fine'))
data, stream = gpu.empty(1024), ok(driver.cuStreamCreate(1))
event, host = ok(driver.cuEventCreate(2)), np.zeros(4, np.int32)
ok(driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
gpu.launch(fine, (1,), (1,), data, stream=stream)
graph = ok(driver.cuGraphInstantiate(ok(driver.cuStreamEndCapture(stream)), 0))
gpu.launch(fine, (1,), (1,), data, stream=stream)
ok(driver.cuStreamSynchronize(stream))
gpu.launch(bad, (1,), (1,), data, stream=stream)
driver.cuEventRecord(event, stream)

def until_known(ask):
    # The call itself does not wait: what counts is what it says once the fault is known.
    deadline = time.monotonic() + 20
    while (said := code(ask())) in ('CUDA_SUCCESS', 'CUDA_ERROR_NOT_READY') and time.monotonic() < deadline:
        time.sleep(.005)
    return said

surfaces = {
    'stream synchronize': lambda: driver.cuStreamSynchronize(stream),
    'context synchronize': lambda: driver.cuCtxSynchronize(),
    'event synchronize': lambda: driver.cuEventSynchronize(event),
    'copy': lambda: driver.cuMemcpyDtoH(host.ctypes.data, data, 16),
    'stream query': lambda: driver.cuStreamQuery(stream),
    'event query': lambda: driver.cuEventQuery(event),
    'allocation': lambda: driver.cuMemAlloc(64),
    'fill': lambda: driver.cuMemsetD8Async(data, 0, 16, stream),
    'graph launch': lambda: driver.cuGraphLaunch(graph, stream),
}
first = until_known(surfaces[surface])
print(first, *(code(ask()) for ask in surfaces.values()))
"""
SURFACES = ["stream synchronize", "context synchronize", "event synchronize", "copy", "stream query", "event query", "allocation", "fill", "graph launch"]


def fault(kind: str, surface: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind, surface], capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@case
def faults_surface_everywhere(gpu: Session):
    """An illegal address, met first by each call that can report it; all calls report it from then on."""
    return {surface: fault("address", surface) for surface in SURFACES}


@case
def kinds_of_faults(gpu: Session):
    return {kind: fault(kind, "stream synchronize") for kind in ("address", "misaligned", "trap")}
