// cuBLAS: products of single and half precision, in batches, on a stream and captured in a graph.
#include "check.h"
#include <cublas_v2.h>
#include <cuda_fp16.h>

#define BLAS(call) EXPECT((call) == CUBLAS_STATUS_SUCCESS)

int main() {
    const int n = 256;
    std::vector<float> host(n * n);
    for (int i = 0; i < n * n; i++) host[i] = i % 7 - 3;
    std::vector<__half> halves(host.begin(), host.end());
    float *a, *c;
    __half* h;
    CHECK(cudaMalloc(&a, n * n * sizeof(float)));
    CHECK(cudaMalloc(&c, n * n * sizeof(float)));
    CHECK(cudaMalloc(&h, n * n * sizeof(__half)));
    CHECK(cudaMemcpy(a, host.data(), n * n * sizeof(float), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(h, halves.data(), n * n * sizeof(__half), cudaMemcpyHostToDevice));
    cublasHandle_t blas;
    cudaStream_t stream;
    BLAS(cublasCreate(&blas));
    CHECK(cudaStreamCreate(&stream));
    BLAS(cublasSetStream(blas, stream));
    float one = 1, zero = 0;
    BLAS(cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_T, n, n, n, &one, a, n, a, n, &zero, c, n));
    CHECK(cudaStreamSynchronize(stream));
    std::vector<float> got(n * n);
    CHECK(cudaMemcpy(got.data(), c, n * n * sizeof(float), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; i += 17) {
        float want = 0;
        for (int k = 0; k < n; k++) want += host[k * n + i] * host[k * n + 3];
        EXPECT(got[3 * n + i] == want);
    }
    Digest digest;
    digest.of(got);
    auto product = [&] {
        BLAS(cublasGemmEx(blas, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &one, h, CUDA_R_16F, n, h, CUDA_R_16F, n, &zero, c, CUDA_R_32F, n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
        BLAS(cublasSgemmStridedBatched(blas, CUBLAS_OP_N, CUBLAS_OP_N, 16, 16, 16, &one, a, 16, 256, a, 16, 256, &one, c, 16, 256, 64));
    };
    product();
    CHECK(cudaStreamSynchronize(stream));
    digest.device(c, n * n);
    void* workspace;
    CHECK(cudaMalloc(&workspace, 32 << 20));
    BLAS(cublasSetWorkspace(blas, workspace, 32 << 20));
    cudaGraph_t graph;
    cudaGraphExec_t run;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    product();
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&run, graph, 0));
    for (int i = 0; i < 5; i++) CHECK(cudaGraphLaunch(run, stream));
    CHECK(cudaStreamSynchronize(stream));
    digest.device(c, n * n);
    BLAS(cublasDestroy(blas));
    digest.print();
}
