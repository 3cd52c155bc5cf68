// Vectors of the widest kind that the level a file is compiled for has, in plain C++ operators (GCC and
// Clang).
#pragma once

#include <cstdint>
#include <cstring>

#include "number.h"

namespace rosepo {

#if defined(__AVX512F__)
constexpr int kLaneBytes = 64;
#elif defined(__AVX__)
constexpr int kLaneBytes = 32;
#else
constexpr int kLaneBytes = 16;
#endif

template <typename A>
struct Lanes;
template <>
struct Lanes<float> {
    typedef float type __attribute__((vector_size(kLaneBytes)));
    typedef int32_t bits __attribute__((vector_size(kLaneBytes)));
    // exp(x) = 2^n e^r, |r| <= ln(2) / 2: the terms of e^r that matter, bits of the mantissa, the
    // exponent's bias, the least x whose exp is a normal number. ln(2) is split so that n times its first
    // part is exact.
    static constexpr int terms = 8, mantissa = 23, bias = 127;
    static constexpr float least = -87.3f, ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f,
                           round = 0x1.8p23f;
};
template <>
struct Lanes<double> {
    typedef double type __attribute__((vector_size(kLaneBytes)));
    typedef int64_t bits __attribute__((vector_size(kLaneBytes)));
    static constexpr int terms = 14, mantissa = 52, bias = 1023;
    static constexpr double least = -708.3, ln2_high = 0x1.62e42fee00000p-1,
                            ln2_low = 0x1.a39ef35793c76p-33, round = 0x1.8p52;
};
template <typename A>
using lanes_t = typename Lanes<A>::type;
template <typename A>
static constexpr int64_t kLanes = kLaneBytes / int64_t(sizeof(A));

template <typename S>
ROSEPO_INLINE lanes_t<compute_t<S>> load(const S* from) {
    lanes_t<compute_t<S>> to;
    if constexpr (Compute<S>::half) {
        for (int64_t j = 0; j < kLanes<float>; ++j) to[j] = widen(from[j]);
    } else {
        memcpy(&to, from, sizeof(to));
    }
    return to;
}

template <typename S>
ROSEPO_INLINE void store(S* to, lanes_t<compute_t<S>> from) {
    if constexpr (Compute<S>::half) {
        for (int64_t j = 0; j < kLanes<float>; ++j) to[j] = narrow<S>(from[j]);
    } else {
        memcpy(to, &from, sizeof(from));
    }
}

// In halves: few roundings, which is what is left of a sum of 1 and many small terms.
template <typename A>
ROSEPO_INLINE A add_lanes(lanes_t<A> x) {
    for (int64_t half = kLanes<A> / 2; half > 0; half /= 2) {
        for (int64_t j = 0; j < half; ++j) x[j] += x[j + half];
    }
    return x[0];
}

template <typename A>
ROSEPO_INLINE lanes_t<A> all_lanes(A x) {
    return lanes_t<A>{} + x;
}

// 1 / k!, the terms of the exponential.
struct Terms {
    double of[16] = {1};
    constexpr Terms() {
        for (int k = 1; k < 16; ++k) of[k] = of[k - 1] / k;
    }
};
static constexpr Terms kTerms;

// exp of each lane for x <= 0, to two units in the last place; what would be subnormal becomes the least
// normal number. An x above 0 counts as 0: it is a logit less the log of a sum that holds it, both rounded,
// which of large logits leaves more than exp can take. NaN stays NaN.
template <typename A>
ROSEPO_INLINE lanes_t<A> exp_lanes(lanes_t<A> x) {
    using L = Lanes<A>;
    x = x < L::least ? all_lanes<A>(L::least) : x;
    x = x > A(0) ? lanes_t<A>{} : x;
    const lanes_t<A> shifted = x * A(1.442695040888963407359924681) + L::round;
    const lanes_t<A> n = shifted - L::round;
    const lanes_t<A> r = (x - n * L::ln2_high) - n * L::ln2_low;
    lanes_t<A> sum = all_lanes<A>(A(kTerms.of[L::terms - 1]));
#pragma GCC unroll 16
    for (int k = L::terms - 2; k >= 0; --k) sum = sum * r + A(kTerms.of[k]);
    // The low bits of `shifted` are n: moved into the exponent they are 2^n.
    typename L::bits exponent;
    memcpy(&exponent, &shifted, sizeof(exponent));
    exponent = (exponent + L::bias) << L::mantissa;
    lanes_t<A> power;
    memcpy(&power, &exponent, sizeof(power));
    return sum * power;
}

}  // namespace rosepo
