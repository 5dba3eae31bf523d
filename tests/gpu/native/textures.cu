// Texture and surface objects on arrays, on linear and on pitched memory; a layered array; a copy of three axes.
#include "check.h"

__global__ void sample(float* out, cudaTextureObject_t texture, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height) out[y * width + x] = tex2D<float>(texture, x + 0.75f, y + 0.25f);
}
__global__ void fetch(float* out, cudaTextureObject_t texture, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = tex1Dfetch<float>(texture, n - 1 - i);
}
__global__ void paint(cudaSurfaceObject_t surface, int width, int height) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height) surf2Dwrite(surf2Dread<float>(surface, x * 4, y) + 1000.0f, surface, x * 4, y);
}
__global__ void layers(float* out, cudaTextureObject_t texture) {
    out[threadIdx.y * 8 + threadIdx.x] = tex2DLayered<float>(texture, threadIdx.x + 0.5f, 0.5f, threadIdx.y);
}

int main() {
    const int width = 64, height = 48, n = width * height;
    std::vector<float> values(n);
    for (int i = 0; i < n; i++) values[i] = i;
    cudaChannelFormatDesc format = cudaCreateChannelDesc<float>();
    cudaArray_t array;
    CHECK(cudaMallocArray(&array, &format, width, height, cudaArraySurfaceLoadStore));
    CHECK(cudaMemcpy2DToArray(array, 0, 0, values.data(), width * 4, width * 4, height, cudaMemcpyHostToDevice));
    float* out;
    CHECK(cudaMalloc(&out, n * sizeof(float)));
    dim3 blocks(width / 16, height / 16), threads(16, 16);
    Digest digest;

    cudaResourceDesc resource = {};
    resource.resType = cudaResourceTypeArray, resource.res.array.array = array;
    cudaTextureDesc sampling = {};
    sampling.addressMode[0] = sampling.addressMode[1] = cudaAddressModeClamp;
    sampling.filterMode = cudaFilterModeLinear, sampling.readMode = cudaReadModeElementType;
    cudaTextureObject_t texture;
    CHECK(cudaCreateTextureObject(&texture, &resource, &sampling, nullptr));
    cudaSurfaceObject_t surface;
    CHECK(cudaCreateSurfaceObject(&surface, &resource));
    for (int turn = 0; turn < 2; turn++) {
        sample<<<blocks, threads>>>(out, texture, width, height);
        digest.device(out, n);
        paint<<<blocks, threads>>>(surface, width, height);
        CHECK(cudaDeviceSynchronize());
    }
    CHECK(cudaMemcpy2DFromArray(values.data(), width * 4, array, 0, 0, width * 4, height, cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; i++) EXPECT(values[i] == i + 2000);
    CHECK(cudaDestroyTextureObject(texture));
    CHECK(cudaDestroySurfaceObject(surface));

    float* linear;
    CHECK(cudaMalloc(&linear, n * sizeof(float)));
    CHECK(cudaMemcpy(linear, values.data(), n * sizeof(float), cudaMemcpyHostToDevice));
    resource = {};
    resource.resType = cudaResourceTypeLinear, resource.res.linear.devPtr = linear, resource.res.linear.desc = format, resource.res.linear.sizeInBytes = n * sizeof(float);
    sampling = {};
    CHECK(cudaCreateTextureObject(&texture, &resource, &sampling, nullptr));
    fetch<<<n / 256, 256>>>(out, texture, n);
    digest.device(out, n);
    CHECK(cudaDestroyTextureObject(texture));

    cudaArray_t layered;
    CHECK(cudaMalloc3DArray(&layered, &format, make_cudaExtent(8, 1, 4), cudaArrayLayered));
    cudaMemcpy3DParms copy = {};
    copy.srcPtr = make_cudaPitchedPtr(values.data(), 32, 8, 1), copy.dstArray = layered, copy.extent = make_cudaExtent(8, 1, 4), copy.kind = cudaMemcpyHostToDevice;
    CHECK(cudaMemcpy3D(&copy));
    resource = {};
    resource.resType = cudaResourceTypeArray, resource.res.array.array = layered;
    CHECK(cudaCreateTextureObject(&texture, &resource, &sampling, nullptr));
    layers<<<1, dim3(8, 4)>>>(out, texture);
    std::vector<float> got(32);
    CHECK(cudaMemcpy(got.data(), out, 32 * sizeof(float), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 32; i++) EXPECT(got[i] == values[i]);
    digest.of(got);
    CHECK(cudaDestroyTextureObject(texture));
    CHECK(cudaFreeArray(array));
    CHECK(cudaFreeArray(layered));
    digest.print();
}
