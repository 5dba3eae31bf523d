"""A program of the soak: `python worker.py KIND` does rounds of one kind of work and checks every result.

Between rounds it holds nothing on the device and obeys stdin: `sample` asks for a line of JSON, after which it waits for `go`; `stop` or
the end of stdin ends it. `python worker.py KIND ROUNDS` does so many rounds and ends by itself.
"""

from __future__ import annotations

import ctypes
import json
import random
import select
import sys
from pathlib import Path

import numpy as np
from cuda.bindings import driver

sys.path.append(str(Path(__file__).resolve().parent.parent / "clients"))

from device import Session, compile_ptx, ok  # noqa: E402

SOURCE = """
extern "C" __global__ void affine(int* x, int n, int factor, int add) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = x[i] * factor + add;
}
__device__ int seed = 11;
extern "C" __global__ void seeded(int* x) { x[threadIdx.x] = seed + threadIdx.x; }
"""
N = 4096
DIFFERENT_ROUNDS = 16


def expect(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_array_equal(got, want)


class Program:
    def __init__(self):
        self.gpu, self.draw = Session(), random.Random(0)
        self.image = compile_ptx(SOURCE)
        self.module = ok(driver.cuModuleLoadData(self.image))
        self.affine = ok(driver.cuModuleGetFunction(self.module, b"affine"))

    def launch(self, pointer: int, factor: int, add: int, stream=0) -> None:
        self.gpu.launch(self.affine, (N // 128,), (128,), int(pointer), ctypes.c_int(N), ctypes.c_int(factor), ctypes.c_int(add), stream=stream)

    def memory(self) -> None:
        """Allocations of many sizes, freed out of order; fills and copies between them; pools."""
        held = []
        for turn in range(40):
            size = self.draw.choice((64, 4096, 100_000, 3 << 20))
            pointer = ok(driver.cuMemAlloc(size))
            ok(driver.cuMemsetD8(pointer, turn, size))
            held.append((pointer, size, turn))
            if len(held) > 8:
                pointer, size, byte = held.pop(self.draw.randrange(len(held)))
                count = min(size, 5000)
                expect(self.gpu.download(int(pointer) + size - count, count, np.uint8), np.full(count, byte, np.uint8))
                ok(driver.cuMemFree(pointer))
        for pointer, _, _ in held:
            ok(driver.cuMemFree(pointer))
        block = ok(driver.cuMemAllocAsync(1 << 20, 0))
        ok(driver.cuMemsetD32(block, 7, 1 << 18))
        expect(self.gpu.download(int(block), 1000, np.uint32), np.full(1000, 7, np.uint32))
        ok(driver.cuMemFreeAsync(block, 0))

    def queues(self) -> None:
        """Streams, events, launches and copies of pinned memory, all made and destroyed."""
        data = np.arange(N, dtype=np.int32)
        host = ok(driver.cuMemHostAlloc(4 * N, 0))
        view = np.ctypeslib.as_array((ctypes.c_int32 * N).from_address(int(host)))
        view[:] = data
        streams = [ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)) for _ in range(3)]
        events = [ok(driver.cuEventCreate(0)) for _ in range(3)]
        pointer = ok(driver.cuMemAlloc(4 * N))
        ok(driver.cuMemcpyHtoDAsync(pointer, int(host), 4 * N, streams[0]))
        ok(driver.cuEventRecord(events[0], streams[0]))
        want = data.copy()
        for turn in range(30):
            stream = streams[(turn + 1) % 3]
            ok(driver.cuStreamWaitEvent(stream, events[turn % 3], 0))
            self.launch(pointer, 3, turn, stream)
            ok(driver.cuEventRecord(events[(turn + 1) % 3], stream))
            want = want * np.int32(3) + np.int32(turn)
        ok(driver.cuMemcpyDtoHAsync(int(host), pointer, 4 * N, stream))
        ok(driver.cuStreamSynchronize(stream))
        expect(view, want)
        for event in events:
            ok(driver.cuEventSynchronize(event))
            ok(driver.cuEventDestroy(event))
        for stream in streams:
            ok(driver.cuStreamDestroy(stream))
        ok(driver.cuMemFree(pointer))
        ok(driver.cuMemFreeHost(int(host)))

    def graphs(self) -> None:
        """A graph captured, instantiated, launched several times and destroyed."""
        pointer = self.gpu.empty(4 * N)
        stream = ok(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
        ok(driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        for add in range(1, 5):
            self.launch(pointer, 1, add, stream)
        graph = ok(driver.cuStreamEndCapture(stream))
        execution = ok(driver.cuGraphInstantiate(graph, 0))
        for _ in range(10):
            ok(driver.cuGraphLaunch(execution, stream))
        ok(driver.cuStreamSynchronize(stream))
        expect(self.gpu.download(pointer, N, np.int32), np.full(N, 100, np.int32))
        ok(driver.cuGraphExecDestroy(execution))
        ok(driver.cuGraphDestroy(graph))
        ok(driver.cuStreamDestroy(stream))
        ok(driver.cuMemFree(pointer))

    def modules(self) -> None:
        """A module and a library loaded, used and unloaded; a variable of the module read and written."""
        pointer = self.gpu.empty(4 * 64)
        module = ok(driver.cuModuleLoadData(self.image))
        seed, size = ok(driver.cuModuleGetGlobal(module, b"seed"))
        new = np.array([self.draw.randrange(1000)], np.int32)
        ok(driver.cuMemcpyHtoD(seed, new.ctypes.data, size))
        self.gpu.launch(ok(driver.cuModuleGetFunction(module, b"seeded")), (1,), (64,), pointer)
        expect(self.gpu.download(pointer, 64, np.int32), np.arange(64, dtype=np.int32) + new)
        ok(driver.cuModuleUnload(module))
        library = ok(driver.cuLibraryLoadData(self.image, [], [], 0, [], [], 0))
        kernel = ok(driver.cuKernelGetFunction(ok(driver.cuLibraryGetKernel(library, b"seeded"))))
        self.gpu.launch(kernel, (1,), (64,), pointer)
        expect(self.gpu.download(pointer, 64, np.int32), np.arange(64, dtype=np.int32) + 11)
        ok(driver.cuLibraryUnload(library))
        ok(driver.cuMemFree(pointer))

    def mixed(self) -> None:
        for kind in KINDS:
            getattr(self, kind)()


KINDS = ("memory", "queues", "graphs", "modules")


def obey(program: Program, rounds: int) -> bool:
    """What stdin asks for; false to end."""
    # Without a buffer, where `select` would not see a word that has come with the one before.
    orders = sys.stdin.buffer.raw
    while select.select([orders], [], [], 0)[0]:
        word = orders.readline().strip()
        if word != b"sample":
            return False
        program.gpu.synchronize()
        free, total = ok(driver.cuMemGetInfo())
        print(json.dumps({"rounds": rounds, "free_bytes": free, "total_bytes": total}), flush=True)
        if orders.readline().strip() != b"go":
            return False
    return True


def main(kind: str, limit: int | None) -> int:
    program = Program()
    print(json.dumps({"ready": kind}), flush=True)
    rounds = 0
    while rounds < limit if limit else obey(program, rounds):
        # The same few rounds over and over: the most that they hold at a time is reached in warm-up.
        program.draw.seed(rounds % DIFFERENT_ROUNDS)
        getattr(program, kind)()
        rounds += 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None))
