// What the programs share: a failed call ends the program with its name; results are told as a digest of their bytes.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <vector>

#define CHECK(call)                                                                                     \
    do {                                                                                                \
        cudaError_t status_ = (call);                                                                   \
        if (status_ != cudaSuccess) {                                                                   \
            fprintf(stderr, "%s: %s (%s)\n", #call, cudaGetErrorName(status_), cudaGetErrorString(status_)); \
            exit(1);                                                                                    \
        }                                                                                               \
    } while (0)

#define EXPECT(condition)                                                       \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition); \
            exit(2);                                                            \
        }                                                                       \
    } while (0)

// FNV-1a over the bytes of everything that it is given.
struct Digest {
    uint64_t value = 0xcbf29ce484222325u;
    void bytes(const void* data, size_t size) {
        for (size_t i = 0; i < size; i++) value = (value ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3u;
    }
    template <typename T> void of(const std::vector<T>& values) { bytes(values.data(), values.size() * sizeof(T)); }
    template <typename T> void device(const T* pointer, size_t count) {
        std::vector<T> host(count);
        CHECK(cudaMemcpy(host.data(), pointer, count * sizeof(T), cudaMemcpyDeviceToHost));
        of(host);
    }
    void print() const { printf("digest %016llx\n", static_cast<unsigned long long>(value)); }
};
