// The row kernel of sequence_logprob.h: a block a row, from logits to log-probs and the gradient in place.
//
// A row is read twice. The second pass goes backwards, as what the first read last is what L2 still has; it
// writes past L2's other contents, as the next reader is a product over the whole chunk. All rounding is in
// a fixed order.
#pragma once

#include "device.cuh"
#include "device_flag.h"
#include "sequence_logprob.h"

namespace rosepo {

// At most: a row wants a whole multiprocessor, so that few rows compete for L2; double has the registers of
// half.
template <typename S>
constexpr int kRowThreads = sizeof(S) == 8 ? 512 : 1024;

// Wide loads in flight in each thread, as many as its registers hold.
template <typename S>
constexpr int kRowUnroll = sizeof(S) == 8 ? 2 : 4;

template <typename A>
constexpr A kLog2 = A(0.69314718055994530942);

// x = squash(scale raw) in the exponent of 2: x log2(e) = bent(raw) rate.
template <typename A, bool kCap>
struct Curve {
    A scale, inner, rate;

    __device__ Curve(A scale_, A cap)
        : scale(scale_),
          inner(kCap ? scale_ / cap : A(1)),
          rate((kCap ? cap : scale_) * (A(1) / kLog2<A>)) {}
    __device__ __forceinline__ A bent(A raw) const {
        if constexpr (kCap) return std::tanh(raw * inner);
        return raw;
    }
    __device__ __forceinline__ A slope(A bent) const {
        if constexpr (kCap) return scale * (A(1) - bent * bent);
        return scale;
    }
    // e^x relative to 2^level. Not rounded before the difference, so that large logits lose nothing.
    __device__ __forceinline__ A exp(A bent, A level) const {
        return exp2_of(std::fma(bent, rate, -level));
    }
};

// -infinity has no differences: what is measured from it is measured from 0.
template <typename A>
__device__ __forceinline__ A base(A level) {
    return level == -A(INFINITY) ? A(0) : level;
}

// The sum of some of a row's e^x, as total 2^level, where level is about the largest's.
template <typename A>
struct Partial {
    A level = -A(INFINITY);
    A total = 0;
};

template <typename A>
__device__ __forceinline__ Partial<A> merge(Partial<A> a, Partial<A> b) {
    const A level = std::fmax(a.level, b.level), from = base(level);
    return {level, a.total * exp2_of(a.level - from) + b.total * exp2_of(b.level - from)};
}

template <typename A, bool kCap>
__device__ __forceinline__ void take_one(const Curve<A, kCap>& curve, A raw, Partial<A>& partial) {
    const A bent = curve.bent(raw), level = bent * curve.rate;
    partial = merge(partial, {level, curve.exp(bent, base(level))});
}

template <typename S, int kPacks, typename A, bool kCap>
__device__ __forceinline__ void take(const Curve<A, kCap>& curve, const uint4* packs, Partial<A>& partial) {
    A top = -A(INFINITY);
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
        const auto raw = widen_all<S>(packs[u]);
#pragma unroll
        for (int k = 0; k < kWide<S>; ++k) top = std::fmax(top, raw.lane[k]);
    }
    const A level = std::fmax(partial.level, curve.bent(top) * curve.rate), from = base(level);
    A total = partial.total * exp2_of(partial.level - from);
#pragma unroll
    for (int u = 0; u < kPacks; ++u) {
        const auto raw = widen_all<S>(packs[u]);
        A sum = 0;
#pragma unroll
        for (int k = 0; k < kWide<S>; ++k) {
            const A term = curve.exp(curve.bent(raw.lane[k]), from);
            // A place taken out holds -infinity, which a cap would make a logit like others.
            sum += kCap && raw.lane[k] == -A(INFINITY) ? A(0) : term;
        }
        total += sum;
    }
    partial = {level, total};
}

// The first pass over what the thread has of the row.
template <typename S, bool kCap, typename A>
__device__ __forceinline__ void read_row(const Curve<A, kCap>& curve, const S* row, int64_t elements,
                                         Partial<A>& partial) {
    constexpr int kPacks = sizeof(S) == 4 && !kCap ? 4 : 2;  // kept in flight while as many are summed
    Pack<S, kWide<S>> nothing;
#pragma unroll
    for (int k = 0; k < kWide<S>; ++k) nothing.lane[k] = narrow<S>(-A(INFINITY));
    const int64_t packs = elements / kWide<S>, last = packs * kWide<S> + threadIdx.x;
    if (last < elements && widen(row[last]) != -A(INFINITY)) take_one(curve, A(widen(row[last])), partial);
    const uint4* const end = reinterpret_cast<const uint4*>(row) + packs;
    const uint4* at = end - packs + threadIdx.x;
    uint4 next[kPacks];
    const auto fetch = [&] {
#pragma unroll
        for (int u = 0; u < kPacks; ++u) {
            const uint4* const from = at + u * blockDim.x;
            next[u] = from < end ? *from : bit_cast<uint4>(nothing);
        }
    };
    fetch();
    while (at < end) {
        uint4 here[kPacks];
#pragma unroll
        for (int u = 0; u < kPacks; ++u) here[u] = next[u];
        at += kPacks * blockDim.x;
        fetch();
        take<S, kPacks>(curve, here, partial);
    }
}

template <typename A>
__device__ __forceinline__ Partial<A> merge_lanes(Partial<A> partial) {
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        Partial<A> other;
        other.level = __shfl_xor_sync(kAllLanes, partial.level, distance);
        other.total = __shfl_xor_sync(kAllLanes, partial.total, distance);
        partial = merge(partial, other);
    }
    return partial;
}

// Every thread gets the whole row's.
template <typename A>
__device__ __forceinline__ Partial<A> merge_block(Partial<A> partial) {
    __shared__ A levels[kWarp], totals[kWarp];
    const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    partial = merge_lanes(partial);
    if (lane == 0) {
        levels[warp] = partial.level;
        totals[warp] = partial.total;
    }
    __syncthreads();
    Partial<A> mine;
    if (lane < blockDim.x / kWarp) mine = {levels[lane], totals[lane]};
    return merge_lanes(mine);
}

// The first warp takes each distinct target's exact logit, and takes the rounded one out of the row: it
// leaves -infinity, by which it also knows a target that it has met before.
template <typename S, bool kCap, typename A>
__device__ __forceinline__ void take_targets(const Rows<S>& op, const Curve<A, kCap>& curve, S* logits,
                                             int64_t begin, int64_t end, Partial<A>& partial) {
    const int lane = threadIdx.x;
#pragma unroll 1
    for (int64_t first = begin; first < end; first += kWarp) {
        const bool mine = first + lane < end;
        const int64_t m = mine ? op.by_row.order[first + lane] : 0;
        const int64_t target = mine ? op.target[m] : -1 - lane;  // nobody's
        const bool met = mine && widen(logits[target]) == -A(INFINITY);
        const unsigned alike = __match_any_sync(kAllLanes, static_cast<unsigned long long>(target));
        if (mine && !met && (alike & ((1u << lane) - 1)) == 0) {
            take_one(curve, op.exact[m], partial);
            logits[target] = narrow<S>(-A(INFINITY));
        }
        __syncwarp();
    }
}

// The second pass, backwards: each element becomes change(element), computed with as A.
template <typename S, typename Change>
__device__ __forceinline__ void write_row(S* row, int64_t elements, const Change& change) {
    constexpr int kUnroll = kRowUnroll<S>;
    const int64_t packs = elements / kWide<S>, last = packs * kWide<S> + threadIdx.x;
    if (last < elements) row[last] = narrow<S>(change(widen(row[last])));
    uint4* const begin = reinterpret_cast<uint4*>(row);
    uint4* const end = begin + packs;
    const int64_t step = int64_t(kUnroll) * blockDim.x;
    for (uint4* at = begin + (packs + step - 1) / step * step - step + threadIdx.x; at >= begin;
         at -= step) {
        uint4 group[kUnroll];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
            if (at + u * blockDim.x < end) group[u] = at[u * blockDim.x];
        }
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
            const auto raw = widen_all<S>(group[u]);
            Pack<S, kWide<S>> pack;
#pragma unroll
            for (int k = 0; k < kWide<S>; ++k) pack.lane[k] = narrow<S>(change(raw.lane[k]));
            if (at + u * blockDim.x < end) __stcs(at + u * blockDim.x, bit_cast<uint4>(pack));
        }
    }
}

template <typename S>
__device__ __forceinline__ void clear_row(S* logits, int64_t vocabulary) {
    constexpr int kLanes = kWide<S>;
    const int64_t packs = vocabulary / kLanes, last = packs * kLanes + threadIdx.x;
    if (last < vocabulary) logits[last] = S{};
    for (int64_t i = threadIdx.x; i < packs; i += blockDim.x) store(logits + i * kLanes, Pack<S, kLanes>{});
}

// Logits rise with what the curve takes, so that the raw ones tell which target is the likeliest.
template <typename A>
__device__ __forceinline__ void likeliest_first(int64_t* order, int64_t begin, int64_t end, const A* raw) {
    int64_t likeliest = begin;
    for (int64_t i = begin + 1; i < end; ++i) {
        if (raw[order[i]] > raw[order[likeliest]]) likeliest = i;
    }
    const int64_t m = order[likeliest];
    order[likeliest] = order[begin];
    order[begin] = m;
}

template <typename S, bool kCap>
__global__ void __launch_bounds__(kRowThreads<S>, 1) rows_kernel(const Rows<S> op, DeviceFlag* flag) {
    using A = compute_t<S>;
    constexpr bool kExact = Compute<S>::half;
    const int64_t row = op.first + blockIdx.x;
    const int64_t begin = op.by_row.begin[row], end = op.by_row.begin[row + 1];
    S* const logits = op.logits + blockIdx.x * op.stride;
    if (begin == end) {
        if (op.gradient) clear_row(logits, op.vocabulary);
        if (threadIdx.x == 0) op.lse[row] = A(0);
        return;
    }
    const Curve<A, kCap> curve(op.scale, op.cap);
    Partial<A> whole;
    if constexpr (kExact) {
        if (threadIdx.x < kWarp) take_targets(op, curve, logits, begin, end, whole);
        __syncthreads();  // the first pass reads what take_targets has taken out
    } else {
        // The targets' logits wait in logp until the row's sum is known: by then the row is overwritten.
        for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
            const int64_t m = op.by_row.order[i];
            op.logp[m] = widen(logits[op.target[m]]);
        }
    }
    read_row(curve, logits, op.vocabulary, whole);
    whole = merge_block(whole);
    const A level = base(whole.level);
    if (op.gradient) {
        const A share = A(-1) / whole.total;
        write_row(logits, op.vocabulary, [&](A raw) {
            const A bent = curve.bent(raw);
            return curve.exp(bent, level) * (share * curve.slope(bent));
        });
        if (threadIdx.x == 0 && end - begin > 1) {
            likeliest_first(op.by_row.order, begin, end, kExact ? op.exact : op.logp);
        }
        __syncthreads();  // below, the targets' places are written over, and their order is read
    }
    const A log2_total = std::log2(whole.total);
    const int64_t own = op.target[op.by_row.order[begin]];
    if (threadIdx.x == 0) op.lse[row] = (level + log2_total) * kLog2<A>;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const int64_t m = op.by_row.order[i], target = op.target[m];
        const A bent = curve.bent(kExact ? op.exact[m] : op.logp[m]), slope = curve.slope(bent);
        const A rounded = (std::fma(bent, curve.rate, -level) - log2_total) * kLog2<A>;
        const A logp = rounded > A(0) ? A(0) : rounded;
        op.logp[m] = logp;
        if (op.slope != nullptr) op.slope[m] = slope;
        if (!(logp - logp == A(0))) raise_flag(flag, Fault::logprob, row, double(logp));
        // -expm1 keeps what is left of 1 - p where p is nearly 1.
        if (op.gradient)
            logits[target] = narrow<S>((target == own ? -std::expm1(logp) : -std::exp(logp)) * slope);
    }
}

// A block a row.
template <typename S, bool kCap>
__global__ void __launch_bounds__(kRowThreads<S>, 1) columns_kernel(const Columns<S> op, int64_t rows) {
    using A = compute_t<S>;
    const Curve<A, kCap> curve(op.scale, op.cap);
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const int64_t begin = op.by_row.begin[row], end = op.by_row.begin[row + 1];
        S* const logits = op.logits + row * op.stride;
        if (begin == end) {
            clear_row(logits, op.columns);
            continue;
        }
        const auto grad = [&](int64_t i) { return op.grad[op.sequence[op.by_row.order[i]]]; };
        A all = 0;
        for (int64_t i = begin; i < end; ++i) all += grad(i);
        const A lse = op.lse[row], level = lse / kLog2<A>;
        write_row(logits, op.columns, [&](A raw) {
            const A bent = curve.bent(raw), p = curve.exp(bent, level);
            // Of large logits the level is rounded by more than exp can take.
            return (p > A(1) ? A(1) : p) * (-all * curve.slope(bent));
        });
        __syncthreads();  // below, the targets' places are written over
        for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
            const int64_t m = op.by_row.order[i], target = op.target[m], place = target - op.first;
            if (place < 0 || place >= op.columns) continue;
            A others = 0;  // c of the row's triples with other targets
            for (int64_t k = begin; k < end; ++k)
                others += op.target[op.by_row.order[k]] == target ? A(0) : grad(k);
            // c of this target - C p, in the order that does not cancel where p is nearly 1.
            const A left = all * -std::expm1(op.logp[m]) - others;
            logits[place] = narrow<S>(left * curve.slope((op.logp[m] + lse) / op.cap));
        }
    }
}

}  // namespace rosepo
