// Thrust and CUB: sorting, scans, reductions by key, selection.
#include "check.h"
#include <algorithm>
#include <cub/cub.cuh>
#include <thrust/copy.h>
#include <thrust/device_vector.h>
#include <thrust/reduce.h>
#include <thrust/scan.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/transform.h>

int main() {
    const int n = 200000;
    std::vector<unsigned> host(n);
    for (int i = 0; i < n; i++) host[i] = i * 2654435761u;
    thrust::device_vector<unsigned> keys(host.begin(), host.end());
    thrust::device_vector<int> values(n);
    thrust::sequence(values.begin(), values.end());
    thrust::sort_by_key(keys.begin(), keys.end(), values.begin());
    std::vector<unsigned> sorted(host);
    std::sort(sorted.begin(), sorted.end());
    std::vector<unsigned> got(n);
    thrust::copy(keys.begin(), keys.end(), got.begin());
    EXPECT(got == sorted);
    Digest digest;
    digest.of(got);
    digest.device(thrust::raw_pointer_cast(values.data()), n);

    thrust::device_vector<int> groups(n), ones(n, 1), found(1024), sums(1024);
    thrust::transform(keys.begin(), keys.end(), groups.begin(), [] __device__(unsigned key) { return static_cast<int>(key >> 22); });
    auto ends = thrust::reduce_by_key(groups.begin(), groups.end(), ones.begin(), found.begin(), sums.begin());
    EXPECT(thrust::reduce(sums.begin(), ends.second) == n);
    thrust::exclusive_scan(sums.begin(), ends.second, sums.begin());
    digest.device(thrust::raw_pointer_cast(sums.data()), ends.second - sums.begin());

    unsigned *in = thrust::raw_pointer_cast(keys.data()), *out;
    int *count, *bins;
    void* work = nullptr;
    size_t bytes = 0;
    CHECK(cudaMalloc(&out, n * sizeof(unsigned)));
    CHECK(cudaMalloc(&count, sizeof(int)));
    CHECK(cudaMalloc(&bins, 64 * sizeof(int)));
    CHECK(cudaMemcpy(in, host.data(), n * sizeof(unsigned), cudaMemcpyHostToDevice));
    auto odd = [] __device__(unsigned key) { return (key & 1) != 0; };
    CHECK(cub::DeviceSelect::If(work, bytes, in, out, count, n, odd));
    CHECK(cudaMalloc(&work, bytes));
    CHECK(cub::DeviceSelect::If(work, bytes, in, out, count, n, odd));
    int selected;
    CHECK(cudaMemcpy(&selected, count, sizeof(int), cudaMemcpyDeviceToHost));
    EXPECT(selected == std::count_if(host.begin(), host.end(), [](unsigned key) { return key & 1; }));
    digest.device(out, selected);
    CHECK(cudaFree(work));
    work = nullptr, bytes = 0;
    CHECK(cub::DeviceHistogram::HistogramEven(work, bytes, in, bins, 65, 0u, 0xffffffffu, n));
    CHECK(cudaMalloc(&work, bytes));
    CHECK(cub::DeviceHistogram::HistogramEven(work, bytes, in, bins, 65, 0u, 0xffffffffu, n));
    digest.device(bins, 64);
    digest.print();
}
