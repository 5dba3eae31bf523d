"""cuStreamWaitValue and cuStreamWriteValue: every condition and flag in both widths, on device and on pinned memory."""

from __future__ import annotations

import ctypes
import time

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok
from registry import case, check

NON_BLOCKING = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
CONDITIONS = driver.CUstreamWaitValue_flags
GEQ, EQ, AND, NOR = (int(getattr(CONDITIONS, "CU_STREAM_WAIT_VALUE_" + name)) for name in ("GEQ", "EQ", "AND", "NOR"))
FLUSH = int(CONDITIONS.CU_STREAM_WAIT_VALUE_FLUSH)
NO_BARRIER = int(driver.CUstreamWriteValue_flags.CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER)


class Width:
    """The calls of one width, and how its numbers look from the host."""

    def __init__(self, bits: int):
        self.bits, self.bytes = bits, bits // 8
        self.most = (1 << bits) - 1
        self.cell = ctypes.c_uint32 if bits == 32 else ctypes.c_uint64
        self.wait = getattr(driver, f"cuStreamWaitValue{bits}")
        self.write = getattr(driver, f"cuStreamWriteValue{bits}")


WIDTHS = [Width(32), Width(64)]


def pinned(count: int = 64) -> int:
    """The address of pinned memory."""
    return int(ok(driver.cuMemHostAlloc(8 * count, 0)))


def waits(stream) -> bool:
    """Whether a stream still has not passed, given time to."""
    deadline = time.monotonic() + 0.05
    while time.monotonic() < deadline:
        if driver.cuStreamQuery(stream)[0] == driver.CUresult.CUDA_SUCCESS:
            return False
    return True


def passes(stream) -> bool:
    ok(driver.cuStreamSynchronize(stream))
    return True


@case
def wait_conditions(gpu: Session):
    """What each condition means: words that hold a stream, and the word that lets it pass. GEQ is cyclic."""
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    address = pinned()
    results = {}
    for width in WIDTHS:
        word, most, half = width.cell.from_address(address), width.most, 1 << (width.bits - 1)
        rows = {
            # condition, awaited value: words that hold, word that lets pass
            "geq": (GEQ, 5, [0, 4, most, half + 5], 6),
            "geq at once": (GEQ, 5, [], 5),
            "geq across the wrap": (GEQ, most - 3, [most - 4, half - 4], 2),
            "eq": (EQ, most, [0, most - 1, half], most),
            "and": (AND, half | 2, [0, 1, half - 3], half),
            "nor": (NOR, half | 1, [most, half - 1, most - 1], half),
        }
        for name, (condition, value, holds, lets_pass) in rows.items():
            seen = []
            for word.value in holds:
                ok(width.wait(stream, address, value, condition))
                seen.append(waits(stream))
                word.value = lets_pass
                seen.append(passes(stream))
            word.value = lets_pass
            ok(width.wait(stream, address, value, condition))
            seen.append(passes(stream))
            assert all(seen), (name, width.bits, seen)
            results[f"{name} {width.bits}"] = len(seen)
    ok(driver.cuMemFreeHost(address))
    return results


@case
def written_values(gpu: Session):
    """Writes are in stream order with kernels, and leave what lies beside their word alone. None goes without its barrier."""
    bump = gpu.function('extern "C" __global__ void bump(unsigned* d) { d[threadIdx.x] += 3; }', "bump")
    streams = [ok(driver.cuStreamCreate(flags)) for flags in (0, int(NON_BLOCKING))] + [0, 1, 2]
    device, host = gpu.upload(np.full(32, 0x11111111, np.uint32)), pinned(16)
    view = np.ctypeslib.as_array((ctypes.c_uint32 * 32).from_address(host))
    results, without_barrier = [], []
    for stream in streams:
        ok(driver.cuMemcpyHtoD(device, np.full(32, 0x11111111, np.uint32).ctypes.data, 128))
        view[:] = 0x22222222
        ok(driver.cuStreamSynchronize(0))
        for memory in (device, host):
            ok(driver.cuStreamWriteValue32(stream, memory + 12, 0xFFFFFFF0, 0))
            ok(driver.cuStreamWriteValue64(stream, memory + 32, (1 << 64) - 2, 0))
            without_barrier += [code(width.write(stream, memory, 7, NO_BARRIER)) for width in WIDTHS]
        gpu.launch(bump, (1,), (32,), device, stream=stream)
        ok(driver.cuStreamWriteValue32(stream, device + 16, 9, 0))
        ok(driver.cuStreamSynchronize(stream))
        results.append(np.concatenate([gpu.download(device, 32, np.uint32), view.copy()]))
    want = np.concatenate([np.full(32, 0x11111114, np.uint32), np.full(32, 0x22222222, np.uint32)])
    want[3], want[4], want[8], want[9] = 0xFFFFFFF3, 9, 1, 2
    want[35], want[40], want[41] = 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF
    ok(driver.cuMemFreeHost(host))
    return {"words": check(np.stack(results), np.tile(want, (len(results), 1))), "without barrier": without_barrier}


@case
def words_between_streams(gpu: Session):
    """A word in device memory that one stream writes and another waits for: a queue of tickets across three streams."""
    step = gpu.function('extern "C" __global__ void step(unsigned* d, unsigned a) { d[threadIdx.x] = d[threadIdx.x] * 3 + a; }', "step")
    streams = [ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(3)]
    data, tickets = gpu.empty(128), gpu.empty(64)
    want = np.zeros(32, np.uint32)
    for i in range(60):
        stream, width = streams[i % 3], WIDTHS[i % 2]
        if i:
            before = WIDTHS[(i - 1) % 2]
            ok(before.wait(stream, tickets + 8 * ((i - 1) % 2), i, EQ if i % 4 else GEQ))
        gpu.launch(step, (1,), (32,), data, ctypes.c_uint(i), stream=stream)
        ok(width.write(stream, tickets + 8 * (i % 2), i + 1, 0))
        want = want * np.uint32(3) + np.uint32(i)
    for stream in streams:
        ok(driver.cuStreamSynchronize(stream))
    return {"data": check(gpu.download(data, 32, np.uint32), want), "tickets": gpu.download(tickets, 2, np.uint64).tolist()}


@case
def value_arguments(gpu: Session):
    """What the calls refuse, and that a refused call leaves its stream as it was."""
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    device, host = gpu.empty(64), pinned()
    for width in WIDTHS:
        width.cell.from_address(host).value = 0
    results = {"can flush": int(ok(driver.cuDeviceGetAttribute(driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES, gpu.device)))}
    freed = int(ok(driver.cuMemAlloc(4 << 20)))
    ok(driver.cuMemFree(freed))
    for width in WIDTHS:
        half = width.bytes // 2
        rows = {
            "wait": width.wait(stream, host, 0, GEQ),
            "wait misaligned": width.wait(stream, host + half, 0, GEQ),
            "wait unknown flag": width.wait(stream, host, 0, 0x10),
            "wait null": width.wait(stream, 0, 0, GEQ),
            "wait freed": width.wait(stream, freed, 0, GEQ),
            "wait flush": width.wait(stream, host, 0, GEQ | FLUSH),
            "write misaligned": width.write(stream, device + half, 0, 0),
            "write unknown flag": width.write(stream, device, 0, 2),
            "write null": width.write(stream, 0, 0, 0),
            "write freed": width.write(stream, freed, 0, 0),
        }
        results |= {f"{name} {width.bits}": code(row) for name, row in rows.items()}
    results["after"] = code(driver.cuStreamSynchronize(stream))
    ok(driver.cuMemFreeHost(host))
    return results
