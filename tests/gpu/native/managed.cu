// Managed memory: written by the host and the device in turn, advised, prefetched where the device can.
#include "check.h"

__managed__ int counter = 5;

__global__ void bump(int* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += i;
    if (i == 0) counter += 1;
}

int main() {
    const int n = 1 << 18;
    int* x;
    CHECK(cudaMallocManaged(&x, n * sizeof(int)));
    for (int i = 0; i < n; i++) x[i] = 1;
    cudaMemLocation here = {cudaMemLocationTypeDevice, 0};
    CHECK(cudaMemAdvise(x, n * sizeof(int), cudaMemAdviseSetPreferredLocation, here));
    CHECK(cudaMemPrefetchAsync(x, n * sizeof(int), here, 0));
    for (int turn = 0; turn < 3; turn++) {
        bump<<<n / 256, 256>>>(x, n);
        CHECK(cudaDeviceSynchronize());
        x[turn] = 0;
    }
    EXPECT(counter == 8 && x[n - 1] == 1 + 3 * (n - 1) && x[2] == 0);
    Digest digest;
    digest.bytes(x, n * sizeof(int));
    CHECK(cudaFree(x));
    digest.print();
}
