// Managed memory that is allocated alone: no managed variable in the module.
#include "check.h"

__global__ void bump(int* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += i;
}

int main() {
    const int n = 1 << 18;
    int* x;
    CHECK(cudaMallocManaged(&x, n * sizeof(int)));
    for (int i = 0; i < n; i++) x[i] = 1;
    for (int turn = 0; turn < 3; turn++) {
        bump<<<n / 256, 256>>>(x, n);
        CHECK(cudaDeviceSynchronize());
        x[turn] = 0;
    }
    EXPECT(x[n - 1] == 1 + 3 * (n - 1) && x[2] == 0);
    Digest digest;
    digest.bytes(x, n * sizeof(int));
    CHECK(cudaFree(x));
    digest.print();
}
