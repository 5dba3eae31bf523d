"""numba-cuda programs: vectorized functions, shared memory, atomics, cooperative grids, streams, pinned and mapped arrays."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda, float32, int32, vectorize

from harness import register

CASES, case = register()
N = 1 << 14


def to_bytes(array) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def synchronize() -> None:
    cuda.synchronize()


def numbers(count: int = N, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random(count, dtype=np.float32)


def close(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    np.testing.assert_allclose(got, want, rtol=1e-5)
    return got


@case
def vectorized():
    """@vectorize for the device, on host and device arrays, with broadcasting"""

    @vectorize(["float32(float32, float32)", "float64(float64, float64)"], target="cuda")
    def hypotenuse(a, b):
        return math.sqrt(a * a + b * b)

    x, y = numbers(), numbers(seed=2)
    on_device = cuda.to_device(x)

    def step():
        wide = hypotenuse(x.astype(np.float64)[:100, None], y.astype(np.float64)[None, :50])
        return close(hypotenuse(x, y), np.hypot(x, y)), hypotenuse(on_device, on_device).copy_to_host(), wide

    return step


@case
def shared_memory_reduction():
    """A reduction in shared memory with barriers; @cuda.reduce"""

    @cuda.jit
    def block_sums(x, sums):
        tile = cuda.shared.array(256, float32)
        i, place = cuda.grid(1), cuda.threadIdx.x
        tile[place] = x[i] if i < x.size else 0.0
        width = 128
        while width > 0:
            cuda.syncthreads()
            if place < width:
                tile[place] += tile[place + width]
            width //= 2
        if place == 0:
            sums[cuda.blockIdx.x] = tile[0]

    largest = cuda.reduce(lambda a, b: max(a, b))
    x = numbers()
    on_device = cuda.to_device(x)

    def step():
        sums = cuda.device_array(N // 256, np.float32)
        block_sums[N // 256, 256](on_device, sums)
        return close(sums.copy_to_host(), x.reshape(-1, 256).sum(1)), float(largest(on_device))

    return step


@case
def atomics():
    """Atomic additions in shared and global memory, maximum, exchange by comparison"""

    @cuda.jit
    def count(x, bins, extremes):
        local = cuda.shared.array(32, int32)
        if cuda.threadIdx.x < 32:
            local[cuda.threadIdx.x] = 0
        cuda.syncthreads()
        i = cuda.grid(1)
        cuda.atomic.add(local, x[i], 1)
        cuda.atomic.max(extremes, 0, x[i])
        cuda.atomic.cas(extremes, 1, 0, 7)
        cuda.syncthreads()
        if cuda.threadIdx.x < 32:
            cuda.atomic.add(bins, cuda.threadIdx.x, local[cuda.threadIdx.x])

    x = np.random.default_rng(3).integers(0, 32, N, dtype=np.int32)
    on_device = cuda.to_device(x)

    def step():
        bins, extremes = cuda.to_device(np.zeros(32, np.int32)), cuda.to_device(np.zeros(2, np.int32))
        count[N // 128, 128](on_device, bins, extremes)
        got = bins.copy_to_host()
        np.testing.assert_array_equal(got, np.bincount(x, minlength=32))
        return got, extremes.copy_to_host()

    return step


@case
def cooperative_grid():
    """A cooperative launch: sweeps over a matrix with a barrier of the whole grid between rows"""

    @cuda.jit("void(int32[:, :])")
    def sweep(matrix):
        column, grid = cuda.grid(1), cuda.cg.this_grid()
        for row in range(1, matrix.shape[0]):
            opposite = matrix.shape[1] - column - 1
            matrix[row, column] = matrix[row - 1, opposite] + 1
            grid.sync()

    def step():
        matrix = cuda.to_device(np.zeros((16, 256), np.int32))
        sweep[8, 32](matrix)
        got = matrix.copy_to_host()
        np.testing.assert_array_equal(got, np.repeat(np.arange(16, dtype=np.int32)[:, None], 256, 1))
        return got

    return step


@case
def device_functions():
    """Device functions, constant and local arrays, warp shuffles, line information"""
    table = np.array([1, 2, 4, 8], np.float32)

    @cuda.jit(device=True)
    def polynomial(x, depth):
        value = float32(1.0)
        for _ in range(depth):
            value = x * value + float32(1.0)
        return value

    @cuda.jit(device=True, inline=True)
    def weigh(x, place):
        return x * cuda.const.array_like(table)[place % 4]

    @cuda.jit(lineinfo=True)
    def kernel(x, out):
        i = cuda.grid(1)
        terms = cuda.local.array(4, float32)
        for k in range(4):
            terms[k] = weigh(x[i], k)
        total = float32(0.0)
        for k in range(4):
            total += terms[k]
        out[i] = polynomial(total, 3) + cuda.shfl_xor_sync(0xFFFFFFFF, total, 1)

    x = numbers()
    on_device = cuda.to_device(x)

    def step():
        out = cuda.device_array_like(on_device)
        kernel[N // 256, 256](on_device, out)
        return out.copy_to_host()

    return step


@case
def streams_and_pinned():
    """Two streams over pinned memory, events with timing, copies that do not block"""

    @cuda.jit
    def scale(x, factor):
        i = cuda.grid(1)
        if i < x.size:
            x[i] *= factor

    x = numbers()

    def step():
        streams, begin, end = [cuda.stream() for _ in range(2)], cuda.event(), cuda.event()
        results = []
        with cuda.pinned(x):
            begin.record()
            for turn, stream in enumerate(streams):
                part = x[turn * N // 2 : (turn + 1) * N // 2]
                on_device = cuda.to_device(part, stream=stream)
                scale[N // 512, 256, stream](on_device, np.float32(turn + 2))
                host = cuda.pinned_array(N // 2, np.float32)
                on_device.copy_to_host(host, stream=stream)
                results.append(host)
            for stream in streams:
                stream.synchronize()
            end.record()
            end.synchronize()
        assert begin.elapsed_time(end) >= 0
        return [close(host.copy(), x[t * N // 2 : (t + 1) * N // 2] * (t + 2)) for t, host in enumerate(results)]

    return step


@case
def mapped_memory():
    """Mapped host memory that a kernel writes, and managed memory"""

    @cuda.jit
    def fill(out, value):
        out[cuda.grid(1)] = cuda.grid(1) * value

    def step():
        mapped, managed = cuda.mapped_array(1024, np.int32), cuda.managed_array(1024, np.int32)
        fill[4, 256](mapped, 3)
        fill[4, 256](managed, 5)
        cuda.synchronize()
        results = mapped.copy(), managed.copy()
        for got, factor in zip(results, (3, 5)):
            np.testing.assert_array_equal(got, np.arange(1024, dtype=np.int32) * factor)
        return results

    return step


@case
def generalized_ufunc():
    """@guvectorize: matrix products"""
    from numba import guvectorize

    @guvectorize(["void(float32[:, :], float32[:, :], float32[:, :])"], "(m,n),(n,p)->(m,p)", target="cuda")
    def multiply(a, b, out):
        for i in range(a.shape[0]):
            for j in range(b.shape[1]):
                total = float32(0.0)
                for k in range(a.shape[1]):
                    total += a[i, k] * b[k, j]
                out[i, j] = total

    a, b = numbers(64 * 4 * 4).reshape(64, 4, 4), numbers(64 * 4 * 4, seed=4).reshape(64, 4, 4)
    return lambda: close(multiply(a, b), a @ b)


@case
def random_numbers():
    """xoroshiro128+ generators of the device"""
    from numba.cuda.random import create_xoroshiro128p_states, xoroshiro128p_uniform_float32

    @cuda.jit
    def draw(states, out):
        i = cuda.grid(1)
        total = float32(0.0)
        for _ in range(10):
            total += xoroshiro128p_uniform_float32(states, i)
        out[i] = total

    states = create_xoroshiro128p_states(1024, seed=9)

    def step():
        out = cuda.device_array(1024, np.float32)
        draw[8, 128](states, out)
        return out.copy_to_host()

    return step
