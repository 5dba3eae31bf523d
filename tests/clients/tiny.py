"""A CUDA program on ctypes alone: it starts quickly, and nothing stands between it and the driver.

`python tiny.py` says whether the device works. Tests of how processes live and end import it.
"""

from __future__ import annotations

import ctypes
import sys

PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry count(.param .u64 cell) {
  .reg .b64 %rd<2>; .reg .b32 %r<2>;
  ld.param.u64 %rd1, [cell];
  atom.global.add.u32 %r1, [%rd1], 1;
  ret;
}
.visible .entry busy(.param .u64 cell, .param .u32 rounds) {
  .reg .b64 %rd<2>; .reg .b32 %r<4>; .reg .pred %p;
  ld.param.u64 %rd1, [cell];
  ld.param.u32 %r1, [rounds];
  mov.u32 %r2, 0;
AGAIN:
  add.u32 %r2, %r2, 1;
  setp.lt.u32 %p, %r2, %r1;
  @%p bra AGAIN;
  st.global.u32 [%rd1], %r2;
  ret;
}
.visible .entry endless() {
AGAIN:
  bra AGAIN;
}
"""
PER_THREAD = ctypes.c_void_p(2)


class Tiny:
    """The primary context, the kernels, and a zeroed cell for them."""

    def __init__(self):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.context, self.module, self.cell = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64()
        self.ok("cuInit", 0)
        self.ok("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), 0)
        self.enter()
        self.ok("cuModuleLoadData", ctypes.byref(self.module), PTX)
        self.kernels = {name: self.function(name) for name in (b"count", b"busy", b"endless")}
        self.cell = self.alloc(4096)
        self.ok("cuMemsetD8_v2", self.cell, 0, ctypes.c_size_t(4096))

    def call(self, name: str, *arguments) -> int:
        return getattr(self.cuda, name)(*arguments)

    def ok(self, name: str, *arguments):
        code = self.call(name, *arguments)
        if code != 0:
            raise RuntimeError(f"{name}: {code}")

    def function(self, name: bytes):
        found = ctypes.c_void_p()
        self.ok("cuModuleGetFunction", ctypes.byref(found), self.module, name)
        return found

    def enter(self):
        self.ok("cuCtxSetCurrent", self.context)

    def alloc(self, nbytes: int):
        address = ctypes.c_uint64()
        self.ok("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(nbytes))
        return address

    def launch(self, kernel: bytes, *arguments, stream=None) -> int:
        pointers = (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(a) for a in arguments))
        return self.call("cuLaunchKernel", self.kernels[kernel], 1, 1, 1, 1, 1, 1, 0, stream, pointers, None)

    def count(self, stream=None) -> int:
        return self.launch(b"count", self.cell, stream=stream)

    def busy(self, rounds: int = 10_000_000) -> int:
        """A kernel that runs for a while; some tenths of a second on the software GPU."""
        return self.launch(b"busy", ctypes.c_uint64(self.cell.value + 64), ctypes.c_uint32(rounds))

    def synchronize(self) -> int:
        return self.call("cuCtxSynchronize")

    def read(self, offset: int = 0) -> int:
        word = ctypes.c_uint32()
        self.ok("cuMemcpyDtoH_v2", ctypes.byref(word), ctypes.c_uint64(self.cell.value + offset), ctypes.c_size_t(4))
        return word.value


def works() -> int:
    """What a device that works makes of three launches."""
    gpu = Tiny()
    for _ in range(3):
        assert gpu.count() == 0
    return gpu.read()


if __name__ == "__main__":
    print(works())
    sys.exit(0)
