// cuFFT: there and back in one and two axes.
#include "check.h"
#include <cmath>
#include <cufft.h>

#define FFT(call) EXPECT((call) == CUFFT_SUCCESS)

int main() {
    const int n = 1024, batch = 16;
    std::vector<float> host(n * batch);
    for (int i = 0; i < n * batch; i++) host[i] = (i * 37 % 101) / 101.0f;
    float* x;
    cufftComplex* spectrum;
    CHECK(cudaMalloc(&x, host.size() * sizeof(float)));
    CHECK(cudaMalloc(&spectrum, host.size() * sizeof(cufftComplex)));
    CHECK(cudaMemcpy(x, host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice));
    cufftHandle there, back, plane;
    FFT(cufftPlan1d(&there, n, CUFFT_R2C, batch));
    FFT(cufftPlan1d(&back, n, CUFFT_C2R, batch));
    FFT(cufftExecR2C(there, x, spectrum));
    Digest digest;
    digest.device(spectrum, (n / 2 + 1) * batch);
    FFT(cufftExecC2R(back, spectrum, x));
    std::vector<float> got(host.size());
    CHECK(cudaMemcpy(got.data(), x, got.size() * sizeof(float), cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < got.size(); i++) EXPECT(std::fabs(got[i] / n - host[i]) < 1e-5f);
    digest.of(got);
    CHECK(cudaMemset(spectrum, 0, host.size() * sizeof(cufftComplex)));
    CHECK(cudaMemcpy(spectrum, host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice));
    FFT(cufftPlan2d(&plane, 96, 80, CUFFT_C2C));
    FFT(cufftExecC2C(plane, spectrum, spectrum, CUFFT_FORWARD));
    digest.device(spectrum, 96 * 80);
    digest.print();
}
