#include <cuda_runtime.h>

#include "preference_loss.cuh"

namespace rosepo {
namespace {

template <typename T>
const char* launch(const PreferenceLoss<T>& op, int formula, LossSums* partial, double* statistics,
                   void* stream) {
    DeviceFlag* flag = nullptr;
    if (const char* error = device_flag(&flag)) return error;
    const auto queue = static_cast<cudaStream_t>(stream);
    const int64_t blocks = preference_loss_blocks(op.pairs);
    if (blocks > 0) {
        LossFormulas::visit(formula, [&](auto chosen) {
            preference_loss_kernel<decltype(chosen)>
                <<<static_cast<unsigned>(blocks), kLossThreads, 0, queue>>>(op, partial, flag);
        });
    }
    preference_loss_means_kernel<<<1, kLossThreads, 0, queue>>>(partial, blocks, op.pairs, statistics);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

int64_t preference_loss_blocks(int64_t pairs) {
    return (pairs + kLossThreads - 1) / kLossThreads;
}

const char* preference_loss_cuda(const PreferenceLoss<float>& op, int formula, LossSums* partial,
                                 double* statistics, void* stream) {
    return launch(op, formula, partial, statistics, stream);
}

const char* preference_loss_cuda(const PreferenceLoss<double>& op, int formula, LossSums* partial,
                                 double* statistics, void* stream) {
    return launch(op, formula, partial, statistics, stream);
}

}  // namespace rosepo
