// Streams of every priority, events, host functions, pinned memory, copies of two axes, the stream-ordered allocator.
#include "check.h"

__global__ void step(int* x, int n, int add) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = x[i] * 3 + add;
}

int main() {
    const int n = 1 << 16, width = 4;
    int least, greatest;
    CHECK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    std::vector<cudaStream_t> streams(width);
    std::vector<cudaEvent_t> events(width);
    std::vector<int*> buffers(width);
    int* host;
    CHECK(cudaHostAlloc(&host, width * n * sizeof(int), cudaHostAllocDefault));
    for (int i = 0; i < width * n; i++) host[i] = i;
    for (int s = 0; s < width; s++) {
        CHECK(cudaStreamCreateWithPriority(&streams[s], cudaStreamNonBlocking, s % 2 ? greatest : least));
        CHECK(cudaEventCreate(&events[s]));
        CHECK(cudaMallocAsync(&buffers[s], n * sizeof(int), streams[s]));
        CHECK(cudaMemcpyAsync(buffers[s], host + s * n, n * sizeof(int), cudaMemcpyHostToDevice, streams[s]));
    }
    static int calls = 0;
    for (int round = 0; round < 10; round++) {
        for (int s = 0; s < width; s++) {
            CHECK(cudaStreamWaitEvent(streams[s], events[(s + width - 1) % width]));
            step<<<n / 256, 256, 0, streams[s]>>>(buffers[s], n, round);
            CHECK(cudaEventRecord(events[s], streams[s]));
        }
        CHECK(cudaLaunchHostFunc(streams[0], [](void* count) { ++*static_cast<int*>(count); }, &calls));
    }
    for (int s = 0; s < width; s++) {
        CHECK(cudaMemcpyAsync(host + s * n, buffers[s], n * sizeof(int), cudaMemcpyDeviceToHost, streams[s]));
        CHECK(cudaFreeAsync(buffers[s], streams[s]));
    }
    for (auto stream : streams) CHECK(cudaStreamSynchronize(stream));
    EXPECT(calls == 10);
    float elapsed;
    CHECK(cudaEventElapsedTime(&elapsed, events[0], events[width - 1]));
    for (int i = 0; i < width * n; i++) {
        int want = i;
        for (int round = 0; round < 10; round++) want = static_cast<int>(static_cast<unsigned>(want) * 3 + round);
        EXPECT(host[i] == want);
    }
    Digest digest;
    digest.bytes(host, width * n * sizeof(int));

    char* image;
    size_t pitch;
    CHECK(cudaMallocPitch(&image, &pitch, 100, 50));
    CHECK(cudaMemset2D(image, pitch, 7, 100, 50));
    std::vector<char> part(60 * 20);
    CHECK(cudaMemcpy2D(image + 10, pitch, host, 64, 60, 20, cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy2D(part.data(), 60, image + 5, pitch, 60, 20, cudaMemcpyDeviceToHost));
    digest.of(part);
    CHECK(cudaFree(image));
    CHECK(cudaFreeHost(host));
    cudaMemPool_t pool;
    CHECK(cudaDeviceGetDefaultMemPool(&pool, 0));
    CHECK(cudaMemPoolTrimTo(pool, 0));
    digest.print();
}
