// The CUDA kernels of the preference loss, without their launches, so that a host compiler can build them
// for tests.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "device_flag.h"
#include "preference_loss_pair.h"

namespace rosepo {

constexpr int kLossThreads = 128;

// The block's sum, in thread 0, whose terms are added in an order that never changes.
__device__ inline LossSums sum_of_block(LossSums (&terms)[kLossThreads], const LossSums& mine) {
    terms[threadIdx.x] = mine;
    for (unsigned half = kLossThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) add(terms[threadIdx.x], terms[threadIdx.x + half]);
    }
    return terms[threadIdx.x];
}

// One thread a pair; `partial` takes each block's sums.
template <typename Formula, typename T>
__global__ void __launch_bounds__(kLossThreads)
    preference_loss_kernel(PreferenceLoss<T> op, LossSums* partial, DeviceFlag* flag) {
    __shared__ LossSums terms[kLossThreads];
    const int64_t i = int64_t(blockIdx.x) * kLossThreads + threadIdx.x;
    Outcome pair{};
    if (i < op.pairs) pair = evaluate<Formula>(op, i);
    if (pair.fault.fault != 0)
        raise_flag(flag, Fault(pair.fault.fault), pair.fault.row, pair.fault.value, pair.fault.column);
    const LossSums sums = sum_of_block(terms, pair.sums);
    if (threadIdx.x == 0) partial[blockIdx.x] = sums;
}

// One block: the means over all pairs, 0 where there are none.
static __global__ void __launch_bounds__(kLossThreads)
    preference_loss_means_kernel(const LossSums* partial, int64_t blocks, int64_t pairs,
                                 double* statistics) {
    __shared__ LossSums terms[kLossThreads];
    LossSums mine{};
    for (int64_t b = threadIdx.x; b < blocks; b += kLossThreads) add(mine, partial[b]);
    const LossSums sums = sum_of_block(terms, mine);
    if (threadIdx.x != 0) return;
    const double share = pairs == 0 ? 0. : 1. / static_cast<double>(pairs);
    statistics[0] = sums.margin * share;
    statistics[1] = sums.correct * share;
    statistics[2] = sums.epsilon * share;
}

}  // namespace rosepo
