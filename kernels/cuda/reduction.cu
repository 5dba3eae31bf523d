// Sums n values into one partial sum per block. A second launch of one block over the partial sums gives the total.
//
// Threads stride over the grid, warps add up by shuffles, and the first warp adds the warps' sums. The order of
// additions depends on n and the launch geometry alone, so equal launches give equal bits.

__device__ float warp_sum(float value)
{
    for (int offset = 16; offset > 0; offset /= 2) {
        value += __shfl_down_sync(0xffffffffu, value, offset);
    }
    return value;
}

// blockDim.x must be a multiple of 32, at most 1024.
extern "C" __global__ void reduction(const float* in, float* partial, unsigned int n)
{
    __shared__ float sums[32];

    float sum = 0.0f;
    unsigned int stride = blockDim.x * gridDim.x;
    for (unsigned long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
        sum += in[i];
    }

    unsigned int lane = threadIdx.x % 32;
    unsigned int warp = threadIdx.x / 32;
    sum = warp_sum(sum);
    if (lane == 0) {
        sums[warp] = sum;
    }
    __syncthreads();

    if (warp == 0) {
        sum = lane < blockDim.x / 32 ? sums[lane] : 0.0f;
        sum = warp_sum(sum);
        if (lane == 0) {
            partial[blockIdx.x] = sum;
        }
    }
}
