// Compiled to textures.ptx by NVRTC 13.0 for compute_75.
extern "C" __global__ void scale(cudaTextureObject_t image, float4* out, int width, int height, float step)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height)
        out[y * width + x] = tex2D<float4>(image, (x + 0.5f) * step, (y + 0.5f) * step);
}
extern "C" __global__ void pick(cudaTextureObject_t table, const int* indices, int* out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = tex1Dfetch<int>(table, indices[i]);
}
extern "C" __global__ void invert(cudaSurfaceObject_t from, cudaSurfaceObject_t to, int width, int height)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < width && y < height) {
        uchar4 v = surf2Dread<uchar4>(from, x * 4, y);
        surf2Dwrite(make_uchar4(255 - v.x, 255 - v.y, 255 - v.z, v.w), to, x * 4, y);
    }
}
extern "C" __global__ void volume(cudaTextureObject_t image, float* out)
{
    int x = threadIdx.x, y = threadIdx.y, z = threadIdx.z;
    out[(z * blockDim.y + y) * blockDim.x + x] = tex3D<float>(image, x + 0.5f, y + 0.5f, z + 0.5f);
}
