// Dynamic parallelism: kernels that launch kernels, to a depth of three, and one behind the end of its parent.
#include "check.h"

__global__ void finish(int* total) { *total *= 2; }

__global__ void grow(int* total, int depth) {
    atomicAdd(total, 1);
    if (depth > 0) grow<<<2, 1>>>(total, depth - 1);
    if (depth == 3 && threadIdx.x == 0) finish<<<1, 1, 0, cudaStreamTailLaunch>>>(total);
}

int main() {
    int* total;
    CHECK(cudaMalloc(&total, sizeof(int)));
    CHECK(cudaMemset(total, 0, sizeof(int)));
    grow<<<1, 1>>>(total, 3);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    int got;
    CHECK(cudaMemcpy(&got, total, sizeof(int), cudaMemcpyDeviceToHost));
    EXPECT(got == 30);
    printf("total %d\n", got);
}
