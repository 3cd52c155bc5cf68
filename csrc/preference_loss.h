// The preference losses over sequence log-probs: one scalar formula each, for host and device. A new loss
// is a struct below with its names, a place in LossFormulas, and a function of the reference,
// rosepo_bench/losses/formulas.py, which has the same equations in torch operations.
//
// A pair has one chosen and K rejected responses. A response's reward is its log-prob, minus the
// reference's for the losses that take one, divided by the response's length for those that take both
// lengths. All is computed in double, whatever the tensors hold.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "device_flag.h"
#include "number.h"

namespace rosepo {

constexpr double kLargest = 1.7976931348623157e308;
constexpr double kSmallest = 2.2250738585072014e-308;  // below it some modes of the CPU see 0

// What a loss may be given besides log-probs, beta and weight.
enum Uses : unsigned {
    kReference = 1,
    kChosenTokens = 2,
    kRejectedTokens = 4,
    kEpsilon = 8,
    kKl = 16,
    kGamma = 32,
    kSftWeight = 64,
    kDesirable = 128,  // and undesirable
};

// A name under which a formula is called, and what may be given there.
struct LossName {
    const char* name;
    unsigned needs;
    unsigned takes;  // not needed
    double max_epsilon;
    bool many;  // takes K > 1
};

// How K rejected rewards become one.
enum class Group { one, mean, softmax };

// What a formula sees of a pair.
struct Pair {
    double chosen;         // reward
    double rejected;       // reward, of the group
    double chosen_tokens;  // the chosen response's length
    double epsilon;        // mean over the K
    double beta;
    double kl;
    double gamma;
    double sft_weight;
    double desirable;
    double undesirable;
};

// A pair's loss and its derivatives by the two rewards.
struct Value {
    double loss;
    double chosen;
    double rejected;
};

// What a formula is, if it says nothing else.
struct LossFormula {
    static constexpr Group kGroup = Group::one;
    static constexpr bool kOdds = false;  // log-probs must be below 0; chosen may be 0 if epsilon is
};

// -(1 - flip) log s(z) - flip log s(-z) and its derivative. As softplus(x) = max(x, 0) + log1p(exp(-|x|)),
// the logarithm factors out, and what is left neither overflows nor cancels.
struct Logistic {
    double loss;
    double slope;
};
ROSEPO_INLINE Logistic logistic(double z, double flip) {
    const double keep = 1 - flip;
    const double decay = std::exp(-std::fabs(z));
    const double larger = 1 / (1 + decay);  // s(|z|)
    const double smaller = decay * larger;  // s(-|z|)
    if (z >= 0) return {std::log1p(decay) + flip * z, flip * larger - keep * smaller};
    return {std::log1p(decay) - keep * z, flip * smaller - keep * larger};
}

ROSEPO_INLINE Value logistic_of_margin(const Pair& pair, double flip) {
    const Logistic value = logistic(pair.beta * (pair.chosen - pair.rejected), flip);
    return {value.loss, pair.beta * value.slope, -pair.beta * value.slope};
}

// -sum_j q_j log softmax_j(beta r) over {w, 1..K}, q_w = 1 - mean eps_k, q_k = eps_k / K. `evaluate` adds
// what the rejected have among themselves; this is the chosen against their group. K = 1: -(1 - eps) log
// s(beta D)
// - eps log s(-beta D). DPO: arXiv 2305.18290 (eq. 7); S-DPO: 2406.09215; an eps for each pair is our
// reading of RosePO, 2410.12519.
struct Smoothed : LossFormula {
    static constexpr LossName kNames[] = {{"dpo", kReference, 0, 0, false},
                                          {"cdpo", kReference, kEpsilon, 1, true},
                                          {"rosepo", kReference, kEpsilon, 1, true},
                                          {"sdpo", kReference, 0, 0, true}};
    static constexpr Group kGroup = Group::softmax;
    ROSEPO_INLINE Value value(const Pair& pair) { return logistic_of_margin(pair, pair.epsilon); }
};

// [-(1 - eps) log s(beta D) + eps log s(-beta D)] / (1 - 2 eps), arXiv 2403.00409. The weights are
// 1 - flip and flip.
struct Robust : LossFormula {
    static constexpr LossName kNames[] = {{"robust", kReference, kEpsilon, .45, false}};
    ROSEPO_INLINE Value value(const Pair& pair) {
        return logistic_of_margin(pair, -pair.epsilon / (1 - 2 * pair.epsilon));
    }
};

// (D - 1 / (2 beta))^2, arXiv 2310.12036; `ipo` divides rewards by their lengths.
struct Ipo : LossFormula {
    static constexpr LossName kNames[] = {
        {"ipo", kReference | kChosenTokens | kRejectedTokens, 0, 0, false},
        {"ipo_sum", kReference, 0, 0, false}};
    ROSEPO_INLINE Value value(const Pair& pair) {
        const double gap = (pair.chosen - pair.rejected) - 1 / (2 * pair.beta);
        return {gap * gap, 2 * gap, -2 * gap};
    }
};

// -log s(beta D - gamma), D of log-probs by token; arXiv 2405.14734 (eq. 6).
struct SimPo : LossFormula {
    static constexpr LossName kNames[] = {
        {"simpo", kChosenTokens | kRejectedTokens | kGamma, kEpsilon, 1, false}};
    ROSEPO_INLINE Value value(const Pair& pair) {
        const Logistic value =
            logistic(pair.beta * (pair.chosen - pair.rejected) - pair.gamma, pair.epsilon);
        return {value.loss, pair.beta * value.slope, -pair.beta * value.slope};
    }
};

// -log s(beta D) of log-probs, plus the chosen response's negative log-likelihood by token; arXiv
// 2401.08417.
struct Cpo : LossFormula {
    static constexpr LossName kNames[] = {{"cpo", kChosenTokens, kEpsilon | kSftWeight, 1, false}};
    ROSEPO_INLINE Value value(const Pair& pair) {
        Value value = logistic_of_margin(pair, pair.epsilon);
        const double by_token = pair.sft_weight / pair.chosen_tokens;
        value.loss -= by_token * pair.chosen;
        value.chosen -= by_token;
        return value;
    }
};

// log(p / (1 - p)) of m = log p < 0, and its derivative.
struct LogOdds {
    double value;
    double slope;
};
ROSEPO_INLINE LogOdds log_odds(double m) {
    const double rest = -std::expm1(m);  // 1 - p, exact near p = 1
    return {m - (m > -.7 ? std::log(rest) : std::log1p(-std::exp(m))), 1 / rest};
}

// m_w and m_l are log-probs by token: -m_w - beta log s(log odds_w - log odds_l); arXiv 2403.07691. With
// eps = 0 the second term is beta log(1 + odds_l (1 - p_w) / p_w), so that at m_w = 0 the loss is 0, its
// derivative by m_w is -1 - beta odds_l, and the one by m_l is 0. With eps > 0 the loss grows without
// bound.
struct Orpo : LossFormula {
    static constexpr LossName kNames[] = {{"orpo", kChosenTokens | kRejectedTokens, kEpsilon, 1, false}};
    static constexpr bool kOdds = true;
    ROSEPO_INLINE Value value(const Pair& pair) {
        const LogOdds rejected = log_odds(pair.rejected);
        if (pair.epsilon == 0 && pair.chosen > -kSmallest)  // slope * p_l is odds_l
            return {0, -1 - pair.beta * rejected.slope * std::exp(pair.rejected), 0};
        const LogOdds chosen = log_odds(pair.chosen);
        const Logistic odds = logistic(chosen.value - rejected.value, pair.epsilon);
        return {pair.beta * odds.loss - pair.chosen, pair.beta * odds.slope * chosen.slope - 1,
                -pair.beta * odds.slope * rejected.slope};
    }
};

// desirable (1 - s(beta (r_w - z))) + undesirable (1 - s(beta (z - r_l))), z = kl; arXiv 2402.01306. The
// two examples of a pair are added.
struct Kto : LossFormula {
    static constexpr LossName kNames[] = {{"kto", kReference | kKl, kDesirable, 0, false}};
    ROSEPO_INLINE Value value(const Pair& pair) {
        const Logistic chosen = unwon(pair.beta * (pair.chosen - pair.kl));
        const Logistic rejected = unwon(pair.beta * (pair.kl - pair.rejected));
        return {pair.desirable * chosen.loss + pair.undesirable * rejected.loss,
                pair.desirable * pair.beta * chosen.slope, -pair.undesirable * pair.beta * rejected.slope};
    }
    // 1 - s(x) and its derivative.
    ROSEPO_INLINE Logistic unwon(double x) {
        const double decay = std::exp(-std::fabs(x));
        const double larger = 1 / (1 + decay);
        return {x >= 0 ? decay * larger : larger, -decay * larger * larger};
    }
};

// -log s(beta r_w - beta / K sum_k r_k), arXiv 2405.16127.
struct Dmpo : LossFormula {
    static constexpr LossName kNames[] = {{"dmpo", kReference, kEpsilon, 1, true}};
    static constexpr Group kGroup = Group::mean;
    ROSEPO_INLINE Value value(const Pair& pair) { return logistic_of_margin(pair, pair.epsilon); }
};

template <typename... Formula>
struct Formulas {
    // visit(formula) for the one at place `wanted`.
    template <typename Visit>
    static void visit(int wanted, const Visit& visit) {
        int place = 0;
        ((place++ == wanted ? visit(Formula{}) : void()), ...);
    }
    // visit(formula, place) for each.
    template <typename Visit>
    static void each(const Visit& visit) {
        int place = 0;
        (visit(Formula{}, place++), ...);
    }
};
using LossFormulas = Formulas<Smoothed, Robust, Ipo, SimPo, Cpo, Orpo, Kto, Dmpo>;

}  // namespace rosepo
