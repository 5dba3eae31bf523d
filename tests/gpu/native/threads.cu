// Threads with default streams of their own (--default-stream per-thread), each with memory, launches and waits.
#include "check.h"
#include <thread>

__global__ void add(int* x, int n, int value) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += value;
}

int main() {
    const int n = 1 << 14, width = 6;
    std::vector<std::vector<int>> results(width, std::vector<int>(n));
    std::vector<std::thread> threads;
    for (int t = 0; t < width; t++) {
        threads.emplace_back([&, t] {
            CHECK(cudaSetDevice(0));
            int* x;
            CHECK(cudaMalloc(&x, n * sizeof(int)));
            CHECK(cudaMemsetAsync(x, 0, n * sizeof(int)));
            for (int i = 0; i < 100; i++) {
                add<<<n / 128, 128>>>(x, n, t + i);
                if (i % 10 == 0) CHECK(cudaStreamSynchronize(cudaStreamPerThread));
            }
            CHECK(cudaMemcpy(results[t].data(), x, n * sizeof(int), cudaMemcpyDeviceToHost));
            CHECK(cudaFree(x));
        });
    }
    for (auto& thread : threads) thread.join();
    Digest digest;
    for (int t = 0; t < width; t++) {
        for (int value : results[t]) EXPECT(value == 100 * t + 4950);
        digest.of(results[t]);
    }
    digest.print();
}
