// The static runtime with graphs: captured across two streams, built by hand, updated, cloned, launched many times; symbols.
#include "check.h"

__constant__ float weights[4];
__device__ int launches;

__global__ void axpy(float* y, const float* x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i] * weights[i % 4];
    if (i == 0) atomicAdd(&launches, 1);
}

int main() {
    const int n = 10000;
    float *x, *y, *z;
    CHECK(cudaMalloc(&x, n * sizeof(float)));
    CHECK(cudaMalloc(&y, n * sizeof(float)));
    CHECK(cudaMalloc(&z, n * sizeof(float)));
    std::vector<float> host(n);
    for (int i = 0; i < n; i++) host[i] = i % 100;
    CHECK(cudaMemcpy(x, host.data(), n * sizeof(float), cudaMemcpyHostToDevice));
    float constants[4] = {1, 2, 4, 8};
    CHECK(cudaMemcpyToSymbol(weights, constants, sizeof(constants)));

    cudaStream_t first, second;
    cudaEvent_t fork, join;
    CHECK(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    CHECK(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    CHECK(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    CHECK(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    cudaGraph_t captured;
    CHECK(cudaStreamBeginCapture(first, cudaStreamCaptureModeThreadLocal));
    CHECK(cudaMemsetAsync(y, 0, n * sizeof(float), first));
    CHECK(cudaEventRecord(fork, first));
    CHECK(cudaStreamWaitEvent(second, fork));
    CHECK(cudaMemsetAsync(z, 0, n * sizeof(float), second));
    axpy<<<(n + 255) / 256, 256, 0, second>>>(z, x, 3, n);
    CHECK(cudaEventRecord(join, second));
    axpy<<<(n + 255) / 256, 256, 0, first>>>(y, x, 2, n);
    CHECK(cudaStreamWaitEvent(first, join));
    axpy<<<(n + 255) / 256, 256, 0, first>>>(y, z, 1, n);
    CHECK(cudaStreamEndCapture(first, &captured));
    cudaGraphExec_t run;
    CHECK(cudaGraphInstantiate(&run, captured, 0));
    for (int i = 0; i < 20; i++) CHECK(cudaGraphLaunch(run, first));
    CHECK(cudaStreamSynchronize(first));
    Digest digest;
    digest.device(y, n);

    cudaGraph_t built, clone;
    cudaGraphNode_t nodes[3];
    CHECK(cudaGraphCreate(&built, 0));
    cudaMemsetParams fill = {};
    fill.dst = y, fill.value = 0, fill.elementSize = 4, fill.width = n, fill.height = 1;
    CHECK(cudaGraphAddMemsetNode(&nodes[0], built, nullptr, 0, &fill));
    float factor = 5;
    int count = n;
    void* arguments[] = {&y, &x, &factor, &count};
    cudaKernelNodeParams kernel = {};
    kernel.func = reinterpret_cast<void*>(axpy), kernel.gridDim = dim3((n + 255) / 256), kernel.blockDim = dim3(256), kernel.kernelParams = arguments;
    CHECK(cudaGraphAddKernelNode(&nodes[1], built, &nodes[0], 1, &kernel));
    CHECK(cudaGraphAddMemcpyNode1D(&nodes[2], built, &nodes[1], 1, z, y, n * sizeof(float), cudaMemcpyDeviceToDevice));
    CHECK(cudaGraphClone(&clone, built));
    cudaGraphExec_t other;
    CHECK(cudaGraphInstantiate(&other, built, 0));
    CHECK(cudaGraphLaunch(other, 0));
    CHECK(cudaStreamSynchronize(0));
    digest.device(z, n);
    factor = 7;
    CHECK(cudaGraphExecKernelNodeSetParams(other, nodes[1], &kernel));
    CHECK(cudaGraphLaunch(other, first));
    CHECK(cudaStreamSynchronize(first));
    digest.device(z, n);
    cudaGraphExecUpdateResultInfo told;
    CHECK(cudaGraphExecUpdate(other, clone, &told));
    CHECK(cudaGraphLaunch(other, second));
    CHECK(cudaStreamSynchronize(second));
    digest.device(z, n);
    std::vector<float> got(n);
    CHECK(cudaMemcpy(got.data(), z, n * sizeof(float), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; i++) EXPECT(got[i] == 5 * host[i] * constants[i % 4]);
    int total;
    CHECK(cudaMemcpyFromSymbol(&total, launches, sizeof(total)));
    EXPECT(total == 20 * 3 + 3);
    CHECK(cudaGraphExecDestroy(run));
    CHECK(cudaGraphExecDestroy(other));
    CHECK(cudaGraphDestroy(captured));
    CHECK(cudaGraphDestroy(built));
    CHECK(cudaGraphDestroy(clone));
    digest.print();
}
