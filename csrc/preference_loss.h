// The smoothed preference loss of one pair: one scalar formula for host and device.
//
//   z = beta * margin,  margin = (chosen - reference_chosen) - (rejected - reference_rejected)
//   cdpo    -(1 - eps) log s(z) - eps log s(-z)
//   robust [-(1 - eps) log s(z) + eps log s(-z)] / (1 - 2 eps)         (arXiv 2403.00409)
//
// The first, with an eps for each pair, is our reading of RosePO (arXiv 2410.12519). The readable
// reference, with the same equations in torch operations, is rosepo_bench/preference/losses.py.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#    define ROSEPO_INLINE static __host__ __device__ __forceinline__
#else
#    define ROSEPO_INLINE static inline __attribute__((always_inline))
#endif

namespace rosepo {

enum class Form { cdpo, robust };

// The largest smoothing a form takes: robust is unbounded below and its weights reach 10 at .45.
constexpr double max_epsilon(Form form) {
    return form == Form::robust ? 0.45 : 1.0;
}

// Pointers to [pairs] contiguous values. T is float or double.
template <typename T>
struct PreferenceLoss {
    const T* chosen;
    const T* rejected;
    const T* reference_chosen;
    const T* reference_rejected;
    const T* epsilon;
    T beta;
    Form form;
    T* loss;
    T* grad_chosen;
    T* grad_rejected;
};

template <typename T>
struct PairLoss {
    T loss;
    T slope;  // d loss / d margin
};

// Both forms are `a softplus(-z) + b softplus(z)` with a + b = 1. As softplus(x) = max(x, 0) +
// log1p(exp(-|x|)), the logarithm factors out, and what is left neither overflows nor cancels for any
// finite z.
template <typename T>
ROSEPO_INLINE PairLoss<T> pair_loss(T margin, T epsilon, T beta, Form form) {
    const T scale = form == Form::robust ? T(1) / (T(1) - T(2) * epsilon) : T(1);
    const T keep = (T(1) - epsilon) * scale;
    const T flip = (form == Form::robust ? -epsilon : epsilon) * scale;
    const T z = beta * margin;
    const T decay = std::exp(-std::fabs(z));
    const T larger = T(1) / (T(1) + decay);  // s(|z|)
    const T smaller = decay * larger;        // s(-|z|)
    const bool ordered = z >= T(0);
    PairLoss<T> result;
    result.loss = std::log1p(decay) + (ordered ? flip * z : -keep * z);
    result.slope = beta * (ordered ? flip * larger - keep * smaller : flip * smaller - keep * larger);
    return result;
}

template <typename T>
ROSEPO_INLINE T pair_margin(const PreferenceLoss<T>& op, int64_t i) {
    return (op.chosen[i] - op.reference_chosen[i]) - (op.rejected[i] - op.reference_rejected[i]);
}

// Pairs begin..end on the CPU. Returns the first pair whose margin is not finite or whose epsilon is out of
// range, -1 where there is none; the outputs of such a pair mean nothing.
#define ROSEPO_DECLARE_PREFERENCE_LOSS(isa)                                                \
    namespace isa {                                                                        \
    int64_t preference_loss(const PreferenceLoss<float>& op, int64_t begin, int64_t end);  \
    int64_t preference_loss(const PreferenceLoss<double>& op, int64_t begin, int64_t end); \
    }
ROSEPO_DECLARE_PREFERENCE_LOSS(generic)
ROSEPO_DECLARE_PREFERENCE_LOSS(v2)
ROSEPO_DECLARE_PREFERENCE_LOSS(v3)
ROSEPO_DECLARE_PREFERENCE_LOSS(v4)

// All pairs on the current CUDA device, in `stream` (a cudaStream_t). Values are not checked, which would
// wait for the device: a pair whose epsilon is out of range gets NaN. Returns CUDA's error message, nullptr
// where there is none.
const char* preference_loss_cuda(const PreferenceLoss<float>& op, int64_t pairs, void* stream);
const char* preference_loss_cuda(const PreferenceLoss<double>& op, int64_t pairs, void* stream);

}  // namespace rosepo
