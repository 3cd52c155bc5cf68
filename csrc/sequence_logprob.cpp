// Compiled once for each x86-64 level, with ROSEPO_ISA naming its namespace (see isa.h).
#include "sequence_logprob.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "lanes.h"

namespace rosepo::ROSEPO_ISA {
namespace {

template <typename A>
constexpr A kInfinity = std::numeric_limits<A>::infinity();

// What the model makes of a logit: scaled, and with Gemma's soft cap.
template <bool capped, typename A>
ROSEPO_INLINE A squash(A raw, A scale, A cap) {
    return capped ? cap * std::tanh(raw * scale / cap) : raw * scale;
}

template <bool capped, typename A>
ROSEPO_INLINE lanes_t<A> squash_lanes(lanes_t<A> raw, A scale, A cap) {
    if constexpr (!capped) return raw * scale;
    lanes_t<A> x;
    for (int64_t j = 0; j < kLanes<A>; ++j) x[j] = squash<true>(raw[j], scale, cap);
    return x;
}

// d squash / d raw where squash is x.
template <bool capped, typename A>
ROSEPO_INLINE A slope_at(A x, A scale, A cap) {
    return capped ? scale * (1 - x / cap * (x / cap)) : scale;
}

// body(i) for whole lanes from i on, tail(i) for the elements left over.
template <typename A, typename Body, typename Tail>
ROSEPO_INLINE void walk(int64_t n, const Body& body, const Tail& tail) {
    int64_t i = 0;
    for (; i + kLanes<A> <= n; i += kLanes<A>) body(i);
    for (; i < n; ++i) tail(i);
}

template <typename S>
compute_t<S> maximum(const S* x, int64_t n) {
    using A = compute_t<S>;
    constexpr int64_t step = kLanes<A>;
    lanes_t<A> many[4];
    for (auto& most : many) most = all_lanes<A>(-kInfinity<A>);
    int64_t i = 0;
    for (; i + 4 * step <= n; i += 4 * step) {
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
            const lanes_t<A> y = load(x + i + k * step);
            many[k] = y > many[k] ? y : many[k];
        }
    }
    A most = -kInfinity<A>;
    for (const auto& lanes : many)
        for (int64_t j = 0; j < step; ++j) most = std::max(most, lanes[j]);
    for (; i < n; ++i) most = std::max<A>(most, widen(x[i]));
    return most;
}

template <typename A>
ROSEPO_INLINE A exp_one(A x) {
    return exp_lanes<A>(all_lanes<A>(x))[0];
}

// Sum of exp(squash(x) - squash(most)), where `most` is the largest of x: 1 or more. Scaled after the
// difference: a rounded product less one that the compiler does not round is not 0 at the largest.
// `keep` leaves the terms in x.
template <bool capped, bool keep, typename S>
compute_t<S> sum_exp(const Rows<S>& op, S* x, compute_t<S> most) {
    using A = compute_t<S>;
    const A shift = capped ? squash<capped>(most, op.scale, op.cap) : most,
            scale = capped ? A(1) : op.scale;
    lanes_t<A> sum = all_lanes<A>(0);
    A rest = 0;
    walk<A>(
        op.vocabulary,
        [&](int64_t i) {
            lanes_t<A> y = load(x + i);
            if constexpr (capped) y = squash_lanes<capped>(y, op.scale, op.cap);
            const lanes_t<A> e = exp_lanes<A>((y - shift) * scale);
            if constexpr (keep) store(x + i, e);
            sum += e;
        },
        [&](int64_t i) {
            const A raw = widen(x[i]), y = capped ? squash<capped>(raw, op.scale, op.cap) : raw;
            const A e = exp_one((y - shift) * scale);
            if constexpr (keep) x[i] = narrow<S>(e);
            rest += e;
        });
    return rest + add_lanes<A>(sum);
}

// x becomes -p slope, from the terms that sum_exp kept or from the logits.
template <bool capped, bool kept, typename S>
void gradient(const Rows<S>& op, S* x, compute_t<S> lse, compute_t<S> sum) {
    using A = compute_t<S>;
    const A factor = -op.scale / sum;
    walk<A>(
        op.vocabulary,
        [&](int64_t i) {
            lanes_t<A> raw = load(x + i);
            if constexpr (kept) {
                store(x + i, raw * factor);
                return;
            }
            raw = squash_lanes<capped>(raw, op.scale, op.cap);
            const lanes_t<A> p = exp_lanes<A>(raw - lse);
            if constexpr (capped) {
                const lanes_t<A> share = raw / op.cap;
                store(x + i, -p * op.scale * (A(1) - share * share));
            } else {
                store(x + i, -p * op.scale);
            }
        },
        [&](int64_t i) {
            const A raw = widen(x[i]);
            const A y = squash<capped>(raw, op.scale, op.cap);
            x[i] =
                narrow<S>(kept ? raw * factor : -exp_one(y - lse) * slope_at<capped>(y, op.scale, op.cap));
        });
}

// One row; false where one of its log-probs is not finite.
template <bool capped, typename S>
bool row(const Rows<S>& op, int64_t i) {
    using A = compute_t<S>;
    constexpr bool keep = !capped && !Compute<S>::half;
    S* x = op.logits + i * op.stride;
    int64_t* begin = op.by_row.order + op.by_row.begin[op.first + i];
    const int64_t* end = op.by_row.order + op.by_row.begin[op.first + i + 1];
    // torch's product of bfloat16 matrices takes elements in pairs: where V is odd it multiplies one from
    // here with 0, which must not be NaN.
    std::fill(x + op.vocabulary, x + op.stride, narrow<S>(A(0)));
    if (begin == end) {
        op.lse[op.first + i] = 0;
        if (op.gradient) std::fill(x, x + op.vocabulary, narrow<S>(A(0)));
        return true;
    }
    const auto squashed = [&](A raw) { return squash<capped>(raw, op.scale, op.cap); };
    // The targets' own logits: kept aside before x is overwritten, or, where x is too coarse for them,
    // taken out of x and put back exactly. A target that several sequences have counts once: whoever finds
    // the mark takes it away.
    int64_t* likeliest = begin;
    for (int64_t* m = begin; m < end; ++m) {
        S& place = x[op.target[*m]];
        op.logp[*m] = squashed(op.exact ? op.exact[*m] : A(widen(place)));
        if (op.exact) place = narrow<S>(-kInfinity<A>);
        if (op.logp[*m] > op.logp[*likeliest]) likeliest = m;
    }
    std::swap(*begin, *likeliest);
    A raw_most = maximum(x, op.vocabulary);
    if (op.exact)
        for (const int64_t* m = begin; m < end; ++m) raw_most = std::max(raw_most, op.exact[*m]);
    const A most = squashed(raw_most);
    A sum = op.gradient ? sum_exp<capped, keep>(op, x, raw_most) : sum_exp<capped, false>(op, x, raw_most);
    for (const int64_t* m = begin; op.exact && m < end; ++m) {
        S& place = x[op.target[*m]];
        if (widen(place) == -kInfinity<A>) {
            // What sum_exp has counted for the mark goes: under a cap -infinity is a logit like others.
            sum += std::exp(op.logp[*m] - most) - std::exp(squashed(-kInfinity<A>) - most);
            place = narrow<S>(op.exact[*m]);
        }
    }
    const A left = std::log(sum), lse = op.lse[op.first + i] = most + left;
    if (op.gradient) gradient<capped, keep>(op, x, lse, sum);
    bool finite = true;
    for (const int64_t* m = end; m-- > begin;) {  // the first one last: its place is the row's own
        const A slope = slope_at<capped>(op.logp[*m], op.scale, op.cap);
        // Not less lse, which is rounded as coarsely as a large logit: what is left of a sure one is small.
        const A rounded = (op.logp[*m] - most) - left, logp = op.logp[*m] = rounded > A(0) ? A(0) : rounded;
        if (op.slope) op.slope[*m] = slope;
        if (op.gradient)
            x[op.target[*m]] = narrow<S>((m == begin ? -std::expm1(logp) : -std::exp(logp)) * slope);
        finite &= logp - logp == 0;
    }
    return finite;
}

template <typename S>
int64_t all_rows(const Rows<S>& op, int64_t begin, int64_t end) {
    int64_t bad = -1;
    for (int64_t i = end; i-- > begin;) {
        if (!(op.cap > 0 ? row<true>(op, i) : row<false>(op, i))) bad = i;
    }
    return bad;
}

template <typename S>
compute_t<S> dot(const S* a, const S* b, int64_t n) {
    using A = compute_t<S>;
    lanes_t<A> sum = all_lanes<A>(0);
    A rest = 0;
    walk<A>(
        n, [&](int64_t i) { sum += load(a + i) * load(b + i); },
        [&](int64_t i) { rest += A(widen(a[i])) * A(widen(b[i])); });
    return rest + add_lanes<A>(sum);
}

template <typename S>
void all_target_logits(const TargetLogits<S>& op, int64_t begin, int64_t end) {
    using A = compute_t<S>;
    for (int64_t m = begin; m < end; ++m) {
        const int64_t y = op.target[m];
        const A bias = op.bias ? A(widen(op.bias[y])) : A(0);
        op.exact[m] =
            bias + dot(op.hidden + op.row_of_target[m] * op.width, op.weight + y * op.width, op.width);
    }
}

// The sum of c over a row's triples, or over those whose target is y.
template <typename S, typename Op>
compute_t<S> sum_grad(const Op& op, const int64_t* begin, const int64_t* end, int64_t y = -1) {
    compute_t<S> sum = 0;
    for (const int64_t* m = begin; m < end; ++m) {
        if (y < 0 || op.target[*m] == y) sum += op.grad[op.sequence[*m]];
    }
    return sum;
}

template <bool capped, typename S>
void column_gradients(const Columns<S>& op, int64_t r) {
    using A = compute_t<S>;
    S* x = op.logits + r * op.stride;
    const int64_t* begin = op.by_row.order + op.by_row.begin[r];
    const int64_t* end = op.by_row.order + op.by_row.begin[r + 1];
    const A total = sum_grad<S>(op, begin, end), lse = op.lse[r];
    if (begin == end) {
        std::fill(x, x + op.columns, narrow<S>(A(0)));
        return;
    }
    walk<A>(
        op.columns,
        [&](int64_t i) {
            const lanes_t<A> y = squash_lanes<capped>(load(x + i), op.scale, op.cap);
            const lanes_t<A> p = exp_lanes<A>(y - lse) * -total;
            if constexpr (capped) {
                const lanes_t<A> share = y / op.cap;
                store(x + i, p * op.scale * (A(1) - share * share));
            } else {
                store(x + i, p * op.scale);
            }
        },
        [&](int64_t i) {
            const A y = squash<capped>(A(widen(x[i])), op.scale, op.cap);
            x[i] = narrow<S>(exp_one(y - lse) * -total * slope_at<capped>(y, op.scale, op.cap));
        });
    for (const int64_t* m = begin; m < end; ++m) {
        const int64_t y = op.target[*m], place = y - op.first;
        if (place < 0 || place >= op.columns) continue;
        // sum of c over this target minus C p, in the order that does not cancel where p is nearly 1.
        const A left = total * -std::expm1(op.logp[*m]) - (total - sum_grad<S>(op, begin, end, y));
        x[place] = narrow<S>(left * slope_at<capped>(op.logp[*m] + lse, op.scale, op.cap));
    }
}

template <typename S>
void all_columns(const Columns<S>& op, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
        op.cap > 0 ? column_gradients<true>(op, r) : column_gradients<false>(op, r);
    }
}

template <typename S>
void all_row_gradients(const RowGradients<S>& op, int64_t begin, int64_t end) {
    using A = compute_t<S>;
    for (int64_t r = begin; r < end; ++r) {
        const int64_t* first = op.by_row.order + op.by_row.begin[r];
        const int64_t* last = op.by_row.order + op.by_row.begin[r + 1];
        const A total = sum_grad<S>(op, first, last);
        const A others = first < last ? sum_grad<S>(op, first + 1, last) : 0;
        const auto coefficient = [&](const int64_t* m) {
            const A slope = op.slope ? op.slope[*m] : op.scale;
            return (m == first ? -others : op.grad[op.sequence[*m]]) * slope;
        };
        if (op.coefficient)
            for (const int64_t* m = first; m < last; ++m) op.coefficient[*m] = coefficient(m);
        if (op.scaled_hidden) {
            const S* h = op.hidden + r * op.width;
            S* out = op.scaled_hidden + r * op.width;
            for (int64_t i = 0; i < op.width; ++i) out[i] = narrow<S>(total * A(widen(h[i])));
        }
        if (!op.grad_hidden) continue;
        S* out = op.grad_hidden + r * op.width;
        const S* u = op.u + r * op.width;
        constexpr int64_t kBlock = 256;
        for (int64_t from = 0; from < op.width; from += kBlock) {
            const int64_t n = std::min(kBlock, op.width - from);
            A sum[kBlock];
            for (int64_t i = 0; i < n; ++i) sum[i] = total * A(widen(u[from + i]));
            for (const int64_t* m = first; m < last; ++m) {
                const A c = coefficient(m);
                const S* w = op.weight + op.target[*m] * op.width + from;
                if (c == 0) continue;
                for (int64_t i = 0; i < n; ++i) sum[i] += c * A(widen(w[i]));
            }
            for (int64_t i = 0; i < n; ++i) out[from + i] = narrow<S>(sum[i]);
        }
    }
}

}  // namespace

#define ROSEPO_DEFINE_FOR(S)                                                    \
    int64_t rows(const Rows<S>& op, int64_t begin, int64_t end) {               \
        return all_rows(op, begin, end);                                        \
    }                                                                           \
    void target_logits(const TargetLogits<S>& op, int64_t begin, int64_t end) { \
        all_target_logits(op, begin, end);                                      \
    }                                                                           \
    void columns(const Columns<S>& op, int64_t begin, int64_t end) {            \
        all_columns(op, begin, end);                                            \
    }                                                                           \
    void row_gradients(const RowGradients<S>& op, int64_t begin, int64_t end) { \
        all_row_gradients(op, begin, end);                                      \
    }
ROSEPO_DEFINE_FOR(float)
ROSEPO_DEFINE_FOR(double)
ROSEPO_DEFINE_FOR(BFloat16)
ROSEPO_DEFINE_FOR(Half)

}  // namespace rosepo::ROSEPO_ISA
