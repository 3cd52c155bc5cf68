#include <cuda_runtime.h>

#include "preference_loss.h"

namespace rosepo {
namespace {

constexpr int kThreads = 128;

template <typename T>
__global__ void __launch_bounds__(kThreads) kernel(PreferenceLoss<T> op, T limit, int64_t pairs) {
    const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= pairs) return;
    const T epsilon = op.epsilon[i];
    PairLoss<T> pair = pair_loss(pair_margin(op, i), epsilon, op.beta, op.form);
    // The host cannot look at epsilon without waiting: an impossible one must at least not train a model in
    // silence.
    if (!(epsilon >= T(0) && epsilon <= limit)) pair.loss = pair.slope = T(NAN);
    op.loss[i] = pair.loss;
    op.grad_chosen[i] = pair.slope;
    op.grad_rejected[i] = -pair.slope;
}

template <typename T>
const char* launch(const PreferenceLoss<T>& op, int64_t pairs, void* stream) {
    if (pairs == 0) return nullptr;
    const unsigned blocks = static_cast<unsigned>((pairs + kThreads - 1) / kThreads);
    kernel<T>
        <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(op, T(max_epsilon(op.form)), pairs);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* preference_loss_cuda(const PreferenceLoss<float>& op, int64_t pairs, void* stream) {
    return launch(op, pairs, stream);
}

const char* preference_loss_cuda(const PreferenceLoss<double>& op, int64_t pairs, void* stream) {
    return launch(op, pairs, stream);
}

}  // namespace rosepo
