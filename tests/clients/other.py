"""The other process of cases about sharing: a program that does what its parent tells it over a socket.

`Other(...)` starts one; `other.call("function", ...)` runs one of the functions below there and returns its result. Descriptors travel beside the
arguments and results. With `native=True` it runs without LightOS even where its parent runs under it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import numpy as np

from device import Session, code, driver, ok
from physical import POSIX_FD, access, properties

BUMP = 'extern "C" __global__ void bump(int* data, int n, int add) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) data[i] += add; }'
LAZY = driver.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS


class Other:
    def __init__(self, native: bool = False):
        self.socket, theirs = socket.socketpair()
        env = dict(os.environ)
        if native:
            env = {k: v for k, v in env.items() if k != "LD_PRELOAD" and not k.startswith("LIGHTOS_")}
        command = [sys.executable, __file__, str(theirs.fileno())]
        self.process = subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()])
        theirs.close()

    def send(self, name: str, *args, fds=()):
        socket.send_fds(self.socket, [json.dumps([name, args]).encode() + b"\n"], list(fds))

    def result(self):
        answer, fds = receive(self.socket)
        assert "error" not in answer, answer["error"]
        return (answer["value"], fds[0]) if fds else answer["value"]

    def call(self, name: str, *args, fds=()):
        self.send(name, *args, fds=fds)
        return self.result()

    def end(self):
        self.socket.close()
        assert self.process.wait(60) == 0


def receive(connection):
    """One message: it fits into one packet of a local socket, and each is answered before the next is sent."""
    data, fds, _, _ = socket.recv_fds(connection, 1 << 20, 4)
    return (json.loads(data), fds) if data else (None, fds)


def event_handle(text: str):
    handle = driver.CUipcEventHandle()
    handle.reserved = bytes.fromhex(text)
    return handle


def memory_handle(text: str):
    handle = driver.CUipcMemHandle()
    handle.reserved = bytes.fromhex(text)
    return handle


def show(handle) -> str:
    return bytes(handle.reserved).hex()


class Functions:
    """What the other process does. Addresses and handles are integers here and there."""

    def __init__(self):
        self.gpu = Session()
        self.bump_function = None
        self.stream = None

    def open(self, handle: str, flags: int = int(LAZY)):
        """Code and address."""
        status, address = driver.cuIpcOpenMemHandle(memory_handle(handle), flags)
        return [status.name, int(address) if status == 0 else 0]

    def close(self, address: int):
        return driver.cuIpcCloseMemHandle(address)[0].name

    def export(self, address: int):
        status, handle = driver.cuIpcGetMemHandle(address)
        return [status.name, show(handle) if status == 0 else ""]

    def free(self, address: int):
        return driver.cuMemFree(address)[0].name

    def allocate(self, values: list):
        return self.gpu.upload(np.array(values, np.int32))

    def read(self, address: int, count: int):
        return self.gpu.download(address, count, np.int32).tolist()

    def bump(self, address: int, count: int, add: int):
        if self.bump_function is None:
            self.bump_function = self.gpu.function(BUMP, "bump")
        import ctypes
        self.gpu.launch(self.bump_function, ((count + 127) // 128,), (128,), address, ctypes.c_int(count), ctypes.c_int(add))
        self.gpu.synchronize()

    def range_of(self, address: int):
        base, size = ok(driver.cuMemGetAddressRange(address))
        return [int(base) - address, int(size)]

    def open_event(self, handle: str):
        status, event = driver.cuIpcOpenEventHandle(event_handle(handle))
        return [status.name, int(event) if status == 0 else 0]

    def event(self, flags: int = int(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)):
        return int(ok(driver.cuEventCreate(flags)))

    def event_handle(self, event: int):
        return show(ok(driver.cuIpcGetEventHandle(driver.CUevent(event))))

    def query(self, event: int):
        return driver.cuEventQuery(driver.CUevent(event))[0].name

    def synchronize(self, event: int):
        return driver.cuEventSynchronize(driver.CUevent(event))[0].name

    def own_stream(self):
        if self.stream is None:
            self.stream = ok(driver.cuStreamCreate(int(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)))
        return self.stream

    def record(self, event: int):
        return driver.cuEventRecord(driver.CUevent(event), self.own_stream())[0].name

    def wait(self, event: int):
        return driver.cuStreamWaitEvent(self.own_stream(), driver.CUevent(event), 0)[0].name

    def map(self, size: int, fds):
        """Imports a descriptor and maps it; the address."""
        handle = ok(driver.cuMemImportFromShareableHandle(fds[0], POSIX_FD))
        os.close(fds[0])
        return self.mapped(handle, size)

    def mapped(self, handle, size: int):
        address = int(ok(driver.cuMemAddressReserve(size, 0, 0, 0)))
        ok(driver.cuMemMap(address, size, 0, handle, 0))
        ok(driver.cuMemSetAccess(address, size, access(self.gpu), 1))
        ok(driver.cuMemRelease(handle))
        return address

    def unmap(self, address: int, size: int):
        ok(driver.cuMemUnmap(address, size))
        ok(driver.cuMemAddressFree(address, size))

    def create(self, size: int):
        """Makes memory that can be exported; the address, and its descriptor."""
        handle = ok(driver.cuMemCreate(size, properties(self.gpu, POSIX_FD), 0))
        fd = int(ok(driver.cuMemExportToShareableHandle(handle, POSIX_FD, 0)))
        return self.mapped(handle, size), fd


def main(fd: int) -> int:
    connection = socket.socket(fileno=fd)
    functions = Functions()
    while True:
        message, fds = receive(connection)
        if message is None:
            return 0
        name, args = message
        try:
            value = getattr(functions, name)(*args, **({"fds": fds} if fds else {}))
            answer, out = ({"value": value[0]}, [value[1]]) if isinstance(value, tuple) else ({"value": value}, [])
        except Exception as error:
            answer, out = {"error": f"{name}: {error!r}"}, []
        socket.send_fds(connection, [json.dumps(answer).encode() + b"\n"], out)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
