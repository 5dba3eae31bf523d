// Cooperative groups: barriers of the grid, tiles and reductions within a warp, a launch as large as fits, clusters.
#include "check.h"
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace cg = cooperative_groups;

__global__ void rotate(int* from, int* to, int n, int rounds) {
    auto grid = cg::this_grid();
    for (int round = 0; round < rounds; round++) {
        for (int i = grid.thread_rank(); i < n; i += grid.size()) to[(i + 1) % n] = from[i] + 1;
        grid.sync();
        int* other = from;
        from = to, to = other;
    }
}

__global__ void sums(const int* x, int* out) {
    auto tile = cg::tiled_partition<16>(cg::this_thread_block());
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int sum = cg::reduce(tile, x[i], cg::plus<int>());
    if (tile.thread_rank() == 0) out[i / 16] = sum;
}

__global__ void __cluster_dims__(2, 1, 1) exchange(int* out) {
    __shared__ int mine;
    auto cluster = cg::this_cluster();
    if (threadIdx.x == 0) mine = blockIdx.x * 10;
    cluster.sync();
    if (threadIdx.x == 0) out[blockIdx.x] = *cluster.map_shared_rank(&mine, cluster.block_rank() ^ 1);
    cluster.sync();
}

int main() {
    const int threads = 128;
    int n = 1 << 15, rounds = 8, fitting, device = 0;
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, device));
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fitting, rotate, threads, 0));
    int *from, *to;
    CHECK(cudaMalloc(&from, n * sizeof(int)));
    CHECK(cudaMalloc(&to, n * sizeof(int)));
    CHECK(cudaMemset(from, 0, n * sizeof(int)));
    void* arguments[] = {&from, &to, &n, &rounds};
    dim3 grid(fitting * properties.multiProcessorCount);
    CHECK(cudaLaunchCooperativeKernel(reinterpret_cast<void*>(rotate), grid, dim3(threads), arguments, 0, 0));
    CHECK(cudaDeviceSynchronize());
    grid.x += 1;
    EXPECT(cudaLaunchCooperativeKernel(reinterpret_cast<void*>(rotate), grid, dim3(threads), arguments, 0, 0) == cudaErrorCooperativeLaunchTooLarge);
    EXPECT(cudaGetLastError() == cudaErrorCooperativeLaunchTooLarge);
    sums<<<n / threads, threads>>>(from, to);
    std::vector<int> got(n / 16);
    CHECK(cudaMemcpy(got.data(), to, got.size() * sizeof(int), cudaMemcpyDeviceToHost));
    for (int sum : got) EXPECT(sum == 16 * rounds);
    Digest digest;
    digest.of(got);
    if (properties.major >= 9) {
        exchange<<<8, 32>>>(to);
        CHECK(cudaGetLastError());
        std::vector<int> pairs(8);
        CHECK(cudaMemcpy(pairs.data(), to, 8 * sizeof(int), cudaMemcpyDeviceToHost));
        for (int i = 0; i < 8; i++) EXPECT(pairs[i] == (i ^ 1) * 10);
        digest.of(pairs);
    }
    digest.print();
}
