// Softmax of each row of a rows x columns matrix in row-major order, one block per row:
// out = exp(in - max(in)) / sum(exp(in - max(in))).
//
// Dynamic shared memory holds one float per thread. blockDim.x must be a power of two.

extern "C" __global__ void softmax(const float* in, float* out, unsigned int columns)
{
    extern __shared__ float scratch[];

    unsigned int thread = threadIdx.x;
    const float* row = in + (size_t)blockIdx.x * columns;
    float* result = out + (size_t)blockIdx.x * columns;

    float largest = __int_as_float(0xff800000); // minus infinity
    for (unsigned int i = thread; i < columns; i += blockDim.x) {
        largest = fmaxf(largest, row[i]);
    }
    scratch[thread] = largest;
    __syncthreads();
    for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
        if (thread < half) {
            scratch[thread] = fmaxf(scratch[thread], scratch[thread + half]);
        }
        __syncthreads();
    }
    largest = scratch[0];
    __syncthreads();

    float sum = 0.0f;
    for (unsigned int i = thread; i < columns; i += blockDim.x) {
        float value = expf(row[i] - largest);
        result[i] = value;
        sum += value;
    }
    scratch[thread] = sum;
    __syncthreads();
    for (unsigned int half = blockDim.x / 2; half > 0; half /= 2) {
        if (thread < half) {
            scratch[thread] += scratch[thread + half];
        }
        __syncthreads();
    }
    sum = scratch[0];

    for (unsigned int i = thread; i < columns; i += blockDim.x) {
        result[i] = result[i] / sum;
    }
}
