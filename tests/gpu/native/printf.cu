// printf on the device: every line reaches the program's own output; a size set for its buffer; an assertion that holds.
#include "check.h"
#include <cassert>

__global__ void say(int round) {
    assert(blockDim.x == 8);
    if (threadIdx.x % 4 == 0) printf("round %d block %d thread %d value %.3f %s\n", round, blockIdx.x, threadIdx.x, round * 0.5 + threadIdx.x, "text");
}

int main() {
    CHECK(cudaDeviceSetLimit(cudaLimitPrintfFifoSize, 2 << 20));
    for (int round = 0; round < 3; round++) {
        say<<<2, 8>>>(round);
        CHECK(cudaDeviceSynchronize());
    }
    fflush(stdout);
}
