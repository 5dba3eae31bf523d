"""CuPy cases: elementwise, matmul, RawKernel, reductions."""

from __future__ import annotations

import cupy as cp

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def to_bytes(array) -> bytes:
    return cp.asnumpy(array).tobytes()


def synchronize():
    cp.cuda.Device().synchronize()


@case
def elementwise():
    x = cp.arange(1 << 18, dtype=cp.float32)
    return lambda: cp.sin(x) * 2 + cp.sqrt(x)


@case
def matmul():
    rng = cp.random.RandomState(3)
    a, b = rng.rand(512, 512), rng.rand(512, 512)
    return lambda: a @ b


@case
def raw_kernel():
    kernel = cp.RawKernel(
        'extern "C" __global__ void k(const float* x, float* y, int n) {'
        " int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] = x[i] * x[i] + 1; }", "k")
    x, y = cp.arange(10_000, dtype=cp.float32), cp.zeros(10_000, dtype=cp.float32)

    def step():
        kernel((79,), (128,), (x, y, cp.int32(x.size)))
        return y

    return step


@case
def reductions_and_sort():
    x = cp.random.RandomState(4).rand(1 << 16)
    return lambda: (x.sum(), x.max(), cp.sort(x), cp.cumsum(x))
