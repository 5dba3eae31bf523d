// c = alpha * a b + beta * c in row-major order: a is m x k, b is k x n, c is m x n.
//
// A block of TILE x TILE threads owns one TILE x TILE tile of c and walks along k, staging one tile of a and one of b
// in shared memory at a time. Edges are padded with zeros. Each element is one chain of fused multiply-adds in the
// order of k, so the result does not depend on the tile.

#define TILE 16

extern "C" __global__ void sgemm_tiled(
    unsigned int m, unsigned int n, unsigned int k,
    float alpha, const float* a, const float* b, float beta, float* c)
{
    __shared__ float a_tile[TILE][TILE];
    __shared__ float b_tile[TILE][TILE];

    unsigned int tx = threadIdx.x;
    unsigned int ty = threadIdx.y;
    unsigned int row = blockIdx.y * TILE + ty;
    unsigned int column = blockIdx.x * TILE + tx;

    float sum = 0.0f;
    for (unsigned int start = 0; start < k; start += TILE) {
        bool a_inside = row < m && start + tx < k;
        bool b_inside = start + ty < k && column < n;
        a_tile[ty][tx] = a_inside ? a[(size_t)row * k + start + tx] : 0.0f;
        b_tile[ty][tx] = b_inside ? b[(size_t)(start + ty) * n + column] : 0.0f;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TILE; ++i) {
            sum = fmaf(a_tile[ty][i], b_tile[i][tx], sum);
        }
        __syncthreads();
    }

    if (row < m && column < n) {
        size_t at = (size_t)row * n + column;
        // With beta zero, c may be uninitialised: it must not be read.
        c[at] = beta == 0.0f ? alpha * sum : fmaf(beta, c[at], alpha * sum);
    }
}
