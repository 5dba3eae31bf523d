"""CuPy cases: elementwise work, libraries (cuBLAS, cuFFT, cuSPARSE, cuSOLVER, CUB), kernels of its own, memory pools, streams, textures."""

from __future__ import annotations

import cupy as cp
import numpy as np

from harness import need, register

CASES, case = register()


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


@case
def fft():
    """Fourier transforms of one and two axes, with a plan kept (cuFFT)"""
    rng = cp.random.RandomState(5)
    x, y = rng.rand(64, 1000), rng.rand(96, 128).astype(cp.float32)
    plan = need("cupyx.scipy.fftpack").get_fft_plan(x.astype(cp.complex128), axes=1)

    def step():
        with plan:
            planned = cp.fft.fft(x.astype(cp.complex128), axis=1)
        return planned, cp.fft.rfft2(y), cp.fft.irfft(cp.fft.rfft(x[0]))

    return step


@case
def sparse():
    """Sparse matrices (cuSPARSE): products, transposes, conversions"""
    library = need("cupyx.scipy.sparse")
    rng = cp.random.RandomState(6)
    dense = cp.where(rng.rand(200, 200) < 0.05, rng.rand(200, 200), 0.0)
    matrix, x = library.csr_matrix(dense), rng.rand(200, 4)

    def step():
        square = (matrix @ matrix).tocsr()
        square.sum_duplicates()
        return matrix @ x[:, 0], matrix @ x, square.toarray(), matrix.T.tocsr().indices, matrix.tocoo().row

    return step


@case
def linear_algebra():
    """Cholesky, QR, singular values, solving (cuSOLVER)"""
    x = cp.random.RandomState(7).rand(64, 64)
    positive = x @ x.T + 64 * cp.eye(64)
    return lambda: (cp.linalg.cholesky(positive), cp.linalg.qr(x)[1], cp.linalg.svd(x, compute_uv=False), cp.linalg.solve(positive, x[:, 0]))


@case
def raw_module():
    """RawModule: templates by name, constant and device variables, shared memory"""
    module = cp.RawModule(code=r"""
        __constant__ float weights[4];
        __device__ int calls;
        template <typename T> __global__ void weigh(const T* x, T* y, int n) {
            extern __shared__ unsigned char bytes[];
            T* tile = reinterpret_cast<T*>(bytes);
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            tile[threadIdx.x] = i < n ? x[i] : T(0);
            __syncthreads();
            if (i < n) y[i] = tile[blockDim.x - 1 - threadIdx.x] * T(weights[i % 4]);
            if (i == 0) atomicAdd(&calls, 1);
        }""", name_expressions=("weigh<float>", "weigh<double>"))
    kernels = {cp.float32: module.get_function("weigh<float>"), cp.float64: module.get_function("weigh<double>")}
    cp.ndarray(4, cp.float32, module.get_global("weights"))[...] = cp.arange(1, 5, dtype=cp.float32)
    calls = cp.ndarray(1, cp.int32, module.get_global("calls"))

    def step():
        calls[...] = 0
        results = []
        for dtype, kernel in kernels.items():
            x, y = cp.arange(1000, dtype=dtype), cp.zeros(1000, dtype)
            kernel((8,), (128,), (x, y, cp.int32(1000)), shared_mem=128 * x.itemsize)
            results.append(y)
        return results, calls.copy()

    return step


@case
def cooperative_kernel():
    """RawKernel with cooperative groups: one barrier over the whole grid"""
    kernel = cp.RawKernel(r"""
        #include <cooperative_groups.h>
        extern "C" __global__ void turn(int* x, int n) {
            int i = blockIdx.x * blockDim.x + threadIdx.x;
            int other = x[n - 1 - i];
            cooperative_groups::this_grid().sync();
            x[i] = other + 1;
        }""", "turn", enable_cooperative_groups=True)

    def step():
        x = cp.arange(1024, dtype=cp.int32)
        kernel((8,), (128,), (x, cp.int32(1024)))
        assert (x == cp.arange(1024, 0, -1)).all()
        return x

    return step


@case
def elementwise_and_reduction_kernels():
    """ElementwiseKernel, ReductionKernel and fused functions"""
    distance = cp.ElementwiseKernel("T x, T y, raw T scale", "T z", "T d = x - y; z = d * d * scale[i % 2]", "distance")
    # A name that CUDA has not taken: kernels have C linkage beside its norm().
    length = cp.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "length_of")
    fused = cp.fuse(kernel_name="excess")(lambda x, y: cp.sqrt(x * x + y * y) - cp.maximum(x, y))
    x, y, scale = cp.arange(5000, dtype=cp.float32), cp.linspace(0, 1, 5000, dtype=cp.float32), cp.array([0.5, 2.0], cp.float32)
    return lambda: (distance(x, y, scale), length(x), length(x.reshape(50, 100), axis=1), fused(x, y))


def churn():
    """Allocations of many sizes, freed out of order; what was written is there at the end."""
    draw, kept = np.random.RandomState(8), []
    for turn in range(100):
        kept.append(cp.full(int(draw.randint(1, 1 << 18)), turn, dtype=cp.int32))
        if len(kept) > 10:
            kept.pop(int(draw.randint(len(kept))))
    return [cp.concatenate([k[:8] for k in kept if k.size >= 8])]


@case
def memory_pool():
    """The memory pool: a limit, statistics, freed blocks"""

    def step():
        pool = cp.cuda.MemoryPool()
        with cp.cuda.using_allocator(pool.malloc):
            out = churn()
            used = pool.used_bytes()
            pool.free_all_blocks()
            pool.set_limit(size=64 << 20)
            try:
                cp.empty(128 << 20, dtype=cp.uint8)
                refused = False
            except cp.cuda.memory.OutOfMemoryError:
                refused = True
            pool.set_limit(size=0)
        assert refused
        return out, used

    return step


@case
def async_memory_pool():
    """MemoryAsyncPool: the driver's stream-ordered allocator"""
    pool = cp.cuda.MemoryAsyncPool()

    def step():
        with cp.cuda.using_allocator(pool.malloc), cp.cuda.Stream(non_blocking=True) as stream:
            out = [cp.asnumpy(a) for a in churn()]
            stream.synchronize()
        return out

    return step


@case
def streams_events_and_graphs():
    """Streams that wait for events, pinned memory, a captured graph"""
    x = cp.arange(1 << 16, dtype=cp.float32)
    pinned = cp.cuda.alloc_pinned_memory(x.nbytes)
    host = np.frombuffer(pinned, np.float32, x.size)
    one, two, done = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True), cp.cuda.Event()
    y = cp.zeros_like(x)
    twice = cp.ElementwiseKernel("float32 x", "float32 y", "y = y * 0.5f + x * 2.0f", "twice")
    twice(x, y)
    cp.cuda.Device().synchronize()
    with one:
        one.begin_capture()
        twice(x, y)
        twice(x, y)
        graph = one.end_capture()

    def step():
        y.fill(1)
        cp.cuda.Stream.null.synchronize()
        begin = one.record()
        graph.launch(stream=one)
        one.record(done)
        two.wait_event(done)
        y.get(stream=two, out=host, blocking=False)
        end = two.record()
        two.synchronize()
        assert cp.cuda.get_elapsed_time(begin, end) > 0
        return host.copy()

    return step


@case
def texture_object():
    """A texture of two axes on a CUDA array, read between its points"""
    texture, runtime = cp.cuda.texture, cp.cuda.runtime
    kernel = cp.RawKernel(r"""
        extern "C" __global__ void sample(float* out, cudaTextureObject_t texture, int width, int height) {
            int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
            if (x < width && y < height) out[y * width + x] = tex2D<float>(texture, x + 0.75f, y + 0.5f);
        }""", "sample")
    values = cp.arange(48 * 32, dtype=cp.float32).reshape(32, 48)
    array = texture.CUDAarray(texture.ChannelFormatDescriptor(32, 0, 0, 0, runtime.cudaChannelFormatKindFloat), 48, 32)
    array.copy_from(values)
    resource = texture.ResourceDescriptor(runtime.cudaResourceTypeArray, cuArr=array)
    sampling = texture.TextureDescriptor((runtime.cudaAddressModeClamp,) * 2, runtime.cudaFilterModeLinear, runtime.cudaReadModeElementType)
    sampled = texture.TextureObject(resource, sampling)

    def step():
        out = cp.zeros((32, 48), cp.float32)
        kernel((6, 4), (8, 8), (out, sampled, cp.int32(48), cp.int32(32)))
        assert out[3, 7] == values[3, 7] + 0.25
        return out

    return step


@case
def managed_memory():
    """Managed memory as CuPy's allocator"""

    def step():
        with cp.cuda.using_allocator(cp.cuda.malloc_managed):
            x = cp.arange(1000, dtype=cp.float32)
            y = x * 3
            cp.cuda.Device().synchronize()
        return y

    return step
