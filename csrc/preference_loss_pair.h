// One pair of the preference loss, from the tensors' memory to its loss, gradients, statistics and faults:
// what the CPU's loop and the CUDA kernel both call.
#pragma once

#include <cstdint>

#include "preference_loss.h"

namespace rosepo {

// An argument read where it lies. A stride of 0 repeats one value for all pairs, or for all rejected of a
// pair. Null: not given.
template <typename T>
struct View {
    const T* data;
    int64_t row;
    int64_t column;
};

// T is float or double. Outputs are contiguous.
template <typename T>
struct PreferenceLoss {
    int64_t pairs;
    int64_t rejected_count;  // K
    View<T> chosen;
    View<T> rejected;
    View<T> reference_chosen;
    View<T> reference_rejected;
    View<int64_t> chosen_tokens;
    View<int64_t> rejected_tokens;
    View<T> epsilon;
    View<T> beta;
    View<T> weight;
    View<T> kl;
    double max_epsilon;
    double gamma;
    double sft_weight;
    double desirable;
    double undesirable;
    T* loss;           // [pairs]
    T* grad_chosen;    // [pairs]
    T* grad_rejected;  // [pairs, K]
};

// Sums over pairs; divided by their number, the operator's statistics.
struct LossSums {
    double margin;   // beta (chosen reward - mean rejected reward)
    double correct;  // 1 where the chosen reward is above every rejected one
    double epsilon;
};
ROSEPO_INLINE void add(LossSums& to, const LossSums& more) {
    to.margin += more.margin;
    to.correct += more.correct;
    to.epsilon += more.epsilon;
}

struct Outcome {
    LossSums sums;
    DeviceFlag fault;
};

// `view` at pair i, rejected k. The first value out of its range stays in `found`.
template <typename T>
ROSEPO_INLINE double read(const View<T>& view, int64_t i, int64_t k, double missing, double low,
                          double high, Fault fault, DeviceFlag& found) {
    if (view.data == nullptr) return missing;
    const double value = static_cast<double>(view.data[i * view.row + k * view.column]);
    if (!(value >= low && value <= high) && found.fault == 0) {
        found = {static_cast<int>(fault), view.column == 0 ? -1 : static_cast<int>(k),
                 view.row == 0 ? -1 : i, value};
    }
    return value;
}

// One rejected response.
struct Rejected {
    double reward;
    double by_token;  // d reward / d log-prob
    double epsilon;
};
template <typename Formula, typename T>
ROSEPO_INLINE Rejected read_rejected(const PreferenceLoss<T>& op, int64_t i, int64_t k, DeviceFlag& found) {
    constexpr double top = Formula::kOdds ? -kSmallest : kLargest;
    const double logp = read(op.rejected, i, k, 0, -kLargest, top,
                             Formula::kOdds ? Fault::rejected_odds : Fault::rejected, found);
    const double reference =
        read(op.reference_rejected, i, k, 0, -kLargest, kLargest, Fault::reference_rejected, found);
    const double tokens = read(op.rejected_tokens, i, k, 1, 1, kLargest, Fault::rejected_tokens, found);
    const Fault range = op.max_epsilon < 1 ? Fault::epsilon_robust : Fault::epsilon;
    return {(logp - reference) / tokens, 1 / tokens,
            read(op.epsilon, i, k, 0, 0, op.max_epsilon, range, found)};
}

template <typename Formula, typename T>
ROSEPO_INLINE Pair read_chosen(const PreferenceLoss<T>& op, int64_t i, DeviceFlag& found) {
    Pair pair;
    double top = kLargest;
    Fault range = Fault::chosen;
    if constexpr (Formula::kOdds) {
        const bool smoothed = op.epsilon.data != nullptr && op.epsilon.data[i * op.epsilon.row] > 0;
        top = smoothed ? -kSmallest : 0;
        range = smoothed ? Fault::chosen_odds : Fault::chosen;
    }
    const double logp = read(op.chosen, i, 0, 0, -kLargest, top, range, found);
    const double reference =
        read(op.reference_chosen, i, 0, 0, -kLargest, kLargest, Fault::reference_chosen, found);
    pair.chosen_tokens = read(op.chosen_tokens, i, 0, 1, 1, kLargest, Fault::chosen_tokens, found);
    pair.chosen = (logp - reference) / (op.rejected_tokens.data == nullptr ? 1 : pair.chosen_tokens);
    pair.beta = read(op.beta, i, 0, 0, kSmallest, kLargest, Fault::beta, found);
    pair.kl = read(op.kl, i, 0, 0, 0, kLargest, Fault::kl, found);
    pair.gamma = op.gamma;
    pair.sft_weight = op.sft_weight;
    pair.desirable = op.desirable;
    pair.undesirable = op.undesirable;
    return pair;
}

// What the K rejected are together.
struct Crowd {
    double most;    // the largest reward
    double mean;    // of the rewards
    double reward;  // of the group
    double epsilon;
};
template <typename Formula, typename T>
ROSEPO_INLINE Crowd read_crowd(const PreferenceLoss<T>& op, int64_t i, double beta, DeviceFlag& found) {
    const Rejected first = read_rejected<Formula>(op, i, 0, found);
    Crowd crowd{first.reward, first.reward, first.reward, first.epsilon};
    double rest = 0;  // sum of exp(beta (reward - most)) over all but the largest
    for (int64_t k = 1; k < op.rejected_count; ++k) {
        const Rejected one = read_rejected<Formula>(op, i, k, found);
        if constexpr (Formula::kGroup == Group::softmax) {
            const double smaller = std::exp(-beta * std::fabs(one.reward - crowd.most));
            rest = one.reward > crowd.most ? (rest + 1) * smaller : rest + smaller;
        }
        crowd.most = one.reward > crowd.most ? one.reward : crowd.most;
        crowd.mean += one.reward;
        crowd.epsilon += one.epsilon;
    }
    crowd.mean /= op.rejected_count;
    crowd.epsilon /= op.rejected_count;
    if constexpr (Formula::kGroup == Group::mean) crowd.reward = crowd.mean;
    if constexpr (Formula::kGroup == Group::softmax) crowd.reward = crowd.most + std::log1p(rest) / beta;
    return crowd;
}

// A loss or a derivative as it is stored; what overflows there is a fault.
template <typename T>
ROSEPO_INLINE T store(double value, int64_t i, DeviceFlag& found) {
    const T stored = static_cast<T>(value);
    // x - x is 0 for a finite x alone.
    if (!(stored - stored == T(0)) && found.fault == 0)
        found = {static_cast<int>(Fault::overflow), -1, i, value};
    return stored;
}

// Writes pair i. Where something is wrong with it, the first such thing is in the outcome, and its loss and
// gradients are NaN: on CUDA nobody may look before they are used.
template <typename Formula, typename T>
ROSEPO_INLINE Outcome evaluate(const PreferenceLoss<T>& op, int64_t i) {
    Outcome outcome{};
    DeviceFlag& found = outcome.fault;
    Pair pair = read_chosen<Formula>(op, i, found);
    const Crowd crowd = read_crowd<Formula>(op, i, pair.beta, found);
    pair.rejected = crowd.reward;
    pair.epsilon = crowd.epsilon;
    Value value = Formula::value(pair);
    const double weight = read(op.weight, i, 0, 1, 0, kLargest, Fault::weight, found);
    T* const grad_rejected = op.grad_rejected + i * op.rejected_count;
    for (int64_t k = 0; k < op.rejected_count; ++k) {
        const Rejected one = read_rejected<Formula>(op, i, k, found);
        double slope = value.rejected;
        if constexpr (Formula::kGroup == Group::mean) slope /= op.rejected_count;
        if constexpr (Formula::kGroup == Group::softmax) {
            // One rejected against the others: sum_k q_k (log sum_j exp(beta r_j) - beta r_k).
            const double below = pair.beta * (crowd.reward - one.reward);
            const double share = op.rejected_count == 1 ? 1 : std::exp(-below);
            const double q = one.epsilon / op.rejected_count;
            value.loss += q * below;
            slope = slope * share + pair.beta * (crowd.epsilon * share - q);
        }
        grad_rejected[k] = store<T>(weight * one.by_token * slope, i, found);
    }
    const double by_token = op.rejected_tokens.data == nullptr ? 1 : 1 / pair.chosen_tokens;
    op.grad_chosen[i] = store<T>(weight * by_token * value.chosen, i, found);
    op.loss[i] = store<T>(weight * value.loss, i, found);
    if (found.fault != 0) {
        op.loss[i] = op.grad_chosen[i] = T(NAN);
        for (int64_t k = 0; k < op.rejected_count; ++k) grad_rejected[k] = T(NAN);
    }
    outcome.sums = {pair.beta * (pair.chosen - crowd.mean), pair.chosen > crowd.most ? 1. : 0.,
                    crowd.epsilon};
    return outcome;
}

// Pairs begin..end - 1 on the CPU with the formula at place `formula`; their sums, in their order. Returns
// the first fault.
#define ROSEPO_DECLARE_PREFERENCE_LOSS(isa)                                                               \
    namespace isa {                                                                                       \
    DeviceFlag preference_loss(const PreferenceLoss<float>& op, int formula, int64_t begin, int64_t end,  \
                               LossSums& sums);                                                           \
    DeviceFlag preference_loss(const PreferenceLoss<double>& op, int formula, int64_t begin, int64_t end, \
                               LossSums& sums);                                                           \
    }
ROSEPO_DECLARE_PREFERENCE_LOSS(generic)
ROSEPO_DECLARE_PREFERENCE_LOSS(v2)
ROSEPO_DECLARE_PREFERENCE_LOSS(v3)
ROSEPO_DECLARE_PREFERENCE_LOSS(v4)

// All pairs on the current CUDA device, in `stream` (a cudaStream_t), without waiting: a fault goes to the
// device's flag (device_flag.h). `partial` is scratch for preference_loss_blocks(pairs) sums, `statistics`
// [3] takes the means. Returns CUDA's error message, nullptr where there is none.
int64_t preference_loss_blocks(int64_t pairs);
const char* preference_loss_cuda(const PreferenceLoss<float>& op, int formula, LossSums* partial,
                                 double* statistics, void* stream);
const char* preference_loss_cuda(const PreferenceLoss<double>& op, int formula, LossSums* partial,
                                 double* statistics, void* stream);

}  // namespace rosepo
