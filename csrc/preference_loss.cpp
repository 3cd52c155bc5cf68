// Compiled once for each x86-64 level, with ROSEPO_ISA naming its namespace (see isa.h).
#include "preference_loss.h"

namespace rosepo::ROSEPO_ISA {
namespace {

template <typename T>
int64_t run(const PreferenceLoss<T>& op, int64_t begin, int64_t end) {
    const T limit = static_cast<T>(max_epsilon(op.form));
    int64_t bad = -1;
    for (int64_t i = begin; i < end; ++i) {
        const T margin = pair_margin(op, i);
        const T epsilon = op.epsilon[i];
        const PairLoss<T> pair = pair_loss(margin, epsilon, op.beta, op.form);
        op.loss[i] = pair.loss;
        op.grad_chosen[i] = pair.slope;
        op.grad_rejected[i] = -pair.slope;
        // z - z is 0 for a finite z alone; a NaN in either test makes it false.
        const T z = op.beta * margin;
        const bool good = z - z == T(0) && epsilon >= T(0) && epsilon <= limit;
        if (!good && bad < 0) bad = i;
    }
    return bad;
}

}  // namespace

int64_t preference_loss(const PreferenceLoss<float>& op, int64_t begin, int64_t end) {
    return run(op, begin, end);
}

int64_t preference_loss(const PreferenceLoss<double>& op, int64_t begin, int64_t end) {
    return run(op, begin, end);
}

}  // namespace rosepo::ROSEPO_ISA
