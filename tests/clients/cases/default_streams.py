"""The default streams and those beside them: who waits for whom, shown by streams that are held until the host lets them go."""

from __future__ import annotations

import ctypes
import threading
import time

import numpy as np
from cuda.bindings import driver

from cases.threads import in_threads
from device import Session, code, ok
from registry import case

NON_BLOCKING = int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
LEGACY, PER_THREAD = 1, 2
GEQ = int(driver.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_GEQ)
MARK = 'extern "C" __global__ void mark(volatile unsigned* word) { *word = 1; }'


class Gates:
    """Words that hold streams, and words that kernels set, all in one pinned block that the host reads while they run."""

    def __init__(self, gpu: Session, count: int = 256):
        self.gpu, self.address, self.used = gpu, int(ok(driver.cuMemHostAlloc(4 * count, 0))), 0
        self.words = np.ctypeslib.as_array((ctypes.c_uint32 * count).from_address(self.address))
        self.words[:] = 0
        self.mark_function = gpu.function(MARK, "mark")
        # A function's first launch may load it, which waits for the device.
        assert self.done(self.mark(0))

    def next(self) -> int:
        self.used += 1
        return self.used - 1

    def hold(self, stream) -> int:
        """Nothing that comes after on this stream runs before `open`."""
        gate = self.next()
        ok(driver.cuStreamWaitValue32(stream, self.address + 4 * gate, 1, GEQ))
        return gate

    def open(self, gate: int):
        self.words[gate] = 1

    def mark(self, stream) -> int:
        """A kernel on the stream that sets a word."""
        word = self.next()
        self.gpu.launch(self.mark_function, (1,), (1,), self.address + 4 * word, stream=stream)
        return word

    def done(self, word: int, within: float = 20.0) -> bool:
        deadline = time.monotonic() + within
        while not self.words[word]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def pending(self, *words: int) -> bool:
        time.sleep(0.03)
        return not any(self.words[word] for word in words)


def streams():
    """One of each kind, with and without a priority."""
    least, greatest = map(int, ok(driver.cuCtxGetStreamPriorityRange()))
    return {
        "blocking": ok(driver.cuStreamCreate(0)),
        "blocking with priority": ok(driver.cuStreamCreateWithPriority(0, greatest)),
        "non-blocking": ok(driver.cuStreamCreate(NON_BLOCKING)),
        "non-blocking with priority": ok(driver.cuStreamCreateWithPriority(NON_BLOCKING, least)),
        "per-thread": PER_THREAD,
    }


def blocks(name: str) -> bool:
    return not name.startswith("non-blocking")


@case
def legacy_waits_for_blocking_streams(gpu: Session):
    """Work of the legacy stream runs after that of each blocking stream before it, and theirs after it; not so non-blocking ones."""
    gates, all_streams, results = Gates(gpu), streams(), {}
    for name, stream in all_streams.items():
        for legacy in (0, LEGACY):
            gate = gates.hold(stream)
            first = gates.mark(stream)
            on_legacy = gates.mark(legacy)
            after = {other: gates.mark(all_streams[other]) for other in all_streams if other != name}
            if blocks(name):
                held = [first, on_legacy, *(word for other, word in after.items() if blocks(other))]
                assert all(gates.done(word) for other, word in after.items() if not blocks(other)), name
                assert gates.pending(*held), name
                query = code(driver.cuStreamQuery(legacy))
            else:
                assert all(gates.done(word) for word in (on_legacy, *after.values())), name
                assert gates.pending(first), name
                ok(driver.cuStreamSynchronize(legacy))
                query = code(driver.cuStreamQuery(legacy))
            gates.open(gate)
            assert all(gates.done(word) for word in (first, on_legacy, *after.values())), name
            gpu.synchronize()
            results[f"{name} {legacy}"] = query
    return results


@case
def blocking_streams_wait_for_legacy(gpu: Session):
    """The other way round: work of the legacy stream is held, and each kind of stream is asked to run something."""
    gates, all_streams, results = Gates(gpu), streams(), {}
    for legacy in (0, LEGACY):
        gate = gates.hold(legacy)
        own = gates.mark(legacy)
        after = {name: gates.mark(stream) for name, stream in all_streams.items()}
        assert all(gates.done(word) for name, word in after.items() if not blocks(name))
        assert gates.pending(own, *(word for name, word in after.items() if blocks(name)))
        for name, stream in all_streams.items():
            if not blocks(name):
                ok(driver.cuStreamSynchronize(stream))
            results[f"{name} {legacy}"] = code(driver.cuStreamQuery(stream))
        gates.open(gate)
        assert all(gates.done(word) for word in (own, *after.values()))
        gpu.synchronize()
    return results


@case
def events_of_the_legacy_stream(gpu: Session):
    """A record or a wait on the legacy stream is an action there: it comes after blocking streams' work, and theirs after it."""
    gates, event = Gates(gpu), ok(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING))
    blocking, other = (ok(driver.cuStreamCreate(0)) for _ in range(2))
    free, held = (ok(driver.cuStreamCreate(NON_BLOCKING)) for _ in range(2))
    results = {}
    # A record on the legacy stream behind a held blocking stream; a non-blocking stream that waits for it is held too.
    gate = gates.hold(blocking)
    ok(driver.cuEventRecord(event, 0))
    ok(driver.cuStreamWaitEvent(free, event, 0))
    word = gates.mark(free)
    results["record"] = code(driver.cuEventQuery(event))
    assert gates.pending(word)
    gates.open(gate)
    ok(driver.cuEventSynchronize(event))
    assert gates.done(word)
    # The legacy stream waits for an event of a held non-blocking stream: blocking streams wait with it.
    gate = gates.hold(held)
    ok(driver.cuEventRecord(event, held))
    ok(driver.cuStreamWaitEvent(0, event, 0))
    behind, beside = gates.mark(other), gates.mark(free)
    assert gates.done(beside) and gates.pending(behind)
    results["wait"] = code(driver.cuEventQuery(event))
    gates.open(gate)
    assert gates.done(behind)
    gpu.synchronize()
    return results


@case
def per_thread_streams_are_their_threads(gpu: Session):
    """Each thread's default stream is its own: one that is held holds the legacy stream, but no other thread's."""
    gates, held = Gates(gpu), {}
    begun = threading.Barrier(4)
    ids = {}

    def work(index: int):
        ok(driver.cuCtxSetCurrent(gpu.context))
        ids[index] = int(ok(driver.cuStreamGetId(PER_THREAD)))
        if index == 0:
            held["gate"] = gates.hold(PER_THREAD)
            held["word"] = gates.mark(PER_THREAD)
            begun.wait()
            # The thread ends while its stream is held.
            return
        begun.wait()
        word = gates.mark(PER_THREAD)
        assert gates.done(word)
        ok(driver.cuStreamSynchronize(PER_THREAD))
        held[index] = code(driver.cuStreamQuery(PER_THREAD))

    in_threads(4, work)
    on_legacy = gates.mark(0)
    mine = gates.mark(PER_THREAD)
    free = gates.mark(ok(driver.cuStreamCreate(NON_BLOCKING)))
    assert gates.done(free) and gates.pending(held["word"], on_legacy, mine)
    gates.open(held["gate"])
    assert all(gates.done(word) for word in (held["word"], on_legacy, mine))
    gpu.synchronize()
    return {"queries": [held[i] for i in (1, 2, 3)], "different": len(set(ids.values()))}


@case
def host_waits_for_what_it_asks(gpu: Session):
    """Which synchronisation waits for a held stream: asked on another thread, so that a wait is seen as one."""
    gates, all_streams, results = Gates(gpu), streams(), {}
    event = ok(driver.cuEventCreate(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING))
    quiet, host = ok(driver.cuStreamCreate(NON_BLOCKING)), np.zeros(16, np.uint8)
    data = gpu.empty(64)
    ok(driver.cuEventRecord(event, quiet))
    calls = {
        "context": lambda: driver.cuCtxSynchronize(),
        "copy": lambda: driver.cuMemcpyDtoH(host.ctypes.data, data, 16),
        "quiet stream": lambda: driver.cuStreamSynchronize(quiet),
        "event before": lambda: driver.cuEventSynchronize(event),
    }
    for name in ("blocking", "non-blocking"):
        for what, call in calls.items():
            gate = gates.hold(all_streams[name])
            gates.mark(all_streams[name])
            returned = threading.Event()

            def work():
                ok(driver.cuCtxSetCurrent(gpu.context))
                ok(call())
                returned.set()

            thread = threading.Thread(target=work)
            thread.start()
            results[f"{name}, {what}"] = "waits" if not returned.wait(0.1) else "returns"
            gates.open(gate)
            thread.join()
            gpu.synchronize()
    expected = {"blocking, context": "waits", "blocking, copy": "waits", "non-blocking, context": "waits"}
    assert results == {name: expected.get(name, "returns") for name in results}, results
    return results
