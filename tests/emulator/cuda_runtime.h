// Stands where CUDA's header of this name would, so that a C++ compiler takes the kernels and their
// launches as they are: a block's threads run as fibers of one host thread, in an order drawn from a seed
// (emulator.cpp). It shows wrong indices, missing barriers and deadlocks. It knows nothing of the order in
// which other threads see memory change, nor of asynchronous copies, tensor cores or more than one block at
// a time.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ \
    static thread_local  // a block is a host thread, so that it starts with nothing of another's

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct __attribute__((may_alias, aligned(16))) uint4 {
    unsigned x, y, z, w;
};

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;

cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);

namespace emulator {

struct Thread {
    dim3 index, block;
};
extern Thread* current;
extern dim3 block_size, grid_size;

// Where in the sources a thread waits for others. A test can take one out, to see that it is missed.
struct Site {
    const char* file;
    int line;
};

void launch(const std::function<void()>& kernel, dim3 blocks, unsigned threads);
void yield();  // other threads may run first
void sync_block(Site site);

// Meets the lanes of `mask` and gives all[lane] what each brought. False where the site is taken out.
bool sync_warp(Site site, unsigned mask, uint64_t value, uint64_t (&all)[32]);

template <typename T>
T shuffle_xor(Site site, unsigned mask, T value, unsigned distance) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    uint64_t bits = 0, all[32];
    memcpy(&bits, &value, sizeof(T));
    if (sync_warp(site, mask, bits, all))
        memcpy(&value, &all[(current->index.x % 32) ^ distance], sizeof(T));
    return value;
}

inline unsigned match_any(Site site, unsigned mask, unsigned long long value) {
    uint64_t all[32];
    const unsigned own = 1u << current->index.x % 32;
    if (!sync_warp(site, mask, value, all)) return own;
    unsigned same = 0;
    for (int lane = 0; lane < 32; ++lane)
        same |= unsigned((mask >> lane & 1) && all[lane] == value) << lane;
    return same;
}

inline void meet(Site site, unsigned mask = 0xffffffffu) {
    uint64_t all[32];
    sync_warp(site, mask, 0, all);
}

}  // namespace emulator

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::current->block)
#define blockDim emulator::block_size
#define gridDim emulator::grid_size

#define EMULATOR_SITE (emulator::Site{__FILE__, __LINE__})
#define __syncthreads() emulator::sync_block(EMULATOR_SITE)
#define __syncwarp(...) emulator::meet(EMULATOR_SITE __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_xor_sync(...) emulator::shuffle_xor(EMULATOR_SITE, __VA_ARGS__)
#define __match_any_sync(...) emulator::match_any(EMULATOR_SITE, __VA_ARGS__)

template <typename T>
T atomicCAS(T* at, T expected, T value) {
    emulator::yield();
    const T old = *at;
    if (old == expected) *at = value;
    return old;
}

inline void __stcs(uint4* to, uint4 value) {
    *to = value;
}
