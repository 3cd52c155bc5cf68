// Kernels with faults, by which the tests see that the emulator finds them.
#include "launch.h"

namespace {

constexpr int kThreads = 64;

// Turns 64 numbers round.
__global__ void reverse(int64_t* numbers) {
    __shared__ int64_t copy[kThreads];
    copy[threadIdx.x] = numbers[threadIdx.x];
    __syncthreads();
    numbers[threadIdx.x] = copy[kThreads - 1 - threadIdx.x];
}

// The second thread of each pair counts on the first one's write; nothing makes it wait.
__global__ void follow(int64_t* numbers) {
    for (int i = 0; i < 100; ++i) {
        if (threadIdx.x % 2 == 0)
            numbers[threadIdx.x] = i;
        else
            numbers[threadIdx.x] = numbers[threadIdx.x - 1];
    }
}

__global__ void leave_early(int64_t* numbers) {
    if (threadIdx.x == 3) return;
    __syncthreads();
    numbers[threadIdx.x] = 0;
}

__global__ void split(int64_t* numbers) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    numbers[threadIdx.x] = 0;
}

__global__ void lonely(int64_t* numbers) {
    if (threadIdx.x % 32 != 5) numbers[threadIdx.x] = __shfl_xor_sync(0xffffffffu, numbers[threadIdx.x], 1);
}

__global__ void overflow(int64_t* numbers) {
    numbers[threadIdx.x + 1] = 0;
}

__global__ void misalign(int64_t* numbers) {
    *reinterpret_cast<uint4*>(numbers + 2 * (threadIdx.x % 8) + 1) = uint4{};
}

}  // namespace

extern "C" const char* planted(int which, int64_t* numbers) {
    void (*const kernels[])(int64_t*) = {reverse, follow, leave_early, split, lonely, overflow, misalign};
    const auto kernel = kernels[which];
    ROSEPO_LAUNCH(kernel, 1, kThreads, nullptr, numbers);
    return rosepo::launch_error();
}
