// What an operator found wrong with a value. On the CPU it is thrown at once. On CUDA that would wait for
// the device: there the first fault stays in a flag in device memory until the operator `take_error` asks
// for it.
#pragma once

#include <cstdint>
#include <string>

namespace rosepo {

enum class Fault : int {
    none,
    // preference_loss
    chosen,
    rejected,
    reference_chosen,
    reference_rejected,
    chosen_odds,
    rejected_odds,
    chosen_tokens,
    rejected_tokens,
    epsilon,
    epsilon_robust,
    beta,
    weight,
    kl,
    overflow,
    // sequence_logprob
    target,
    row_of_target,
    sequence_of_target,
    logprob,
};

// A fault and where it is. Plain zeros are "none".
struct DeviceFlag {
    int fault;    // a Fault
    int column;   // -1: the argument has no columns there
    int64_t row;  // -1: the argument is one number
    double value;
};

// "<operator>: epsilon[3] is 1.2: want 0 to 1", the same for both devices.
std::string sentence(const DeviceFlag& found);

// The flag of the current CUDA device, and what is in it, which is then taken out; waits for `stream` (a
// cudaStream_t). Both return CUDA's error message, nullptr where there is none.
const char* device_flag(DeviceFlag** flag);
const char* take_flag(DeviceFlag* found, void* stream);

// For files that include cuda_runtime.h before: nvcc's, or a test's with which a host compiler takes
// kernels.
#if defined(__device__)
// The first fault wins. No thread but the winner writes the rest, and nobody reads before the kernel has
// ended.
__device__ inline void raise_flag(DeviceFlag* flag, Fault fault, int64_t row, double value,
                                  int column = -1) {
    if (atomicCAS(&flag->fault, 0, static_cast<int>(fault)) != 0) return;
    flag->column = column;
    flag->row = row;
    flag->value = value;
}
#endif

}  // namespace rosepo
