// Kernel launches in one spelling: nvcc's, and for tests without a GPU that of the emulator, whose
// cuda_runtime.h stands where CUDA's would (tests/emulator).
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#if defined(__CUDACC__)
#    define ROSEPO_LAUNCH(kernel, blocks, threads, stream, ...) \
        kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#else
#    define ROSEPO_LAUNCH(kernel, blocks, threads, stream, ...) \
        (static_cast<void>(stream), emulator::launch([=] { kernel(__VA_ARGS__); }, blocks, threads))
#endif

// Kernels go through their work in strides of the whole grid, so that any amount of it fits; tests take a
// smaller grid.
#if !defined(ROSEPO_MAX_BLOCKS)
#    define ROSEPO_MAX_BLOCKS 65535
#endif

namespace rosepo {

inline unsigned blocks_for(int64_t work, int64_t per_block) {
    return unsigned(std::min<int64_t>((work + per_block - 1) / per_block, ROSEPO_MAX_BLOCKS));
}

// CUDA's message about the launch before, nullptr where there is none.
inline const char* launch_error() {
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace rosepo
