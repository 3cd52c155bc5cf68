// The kernels around the row kernel: the triples' checks and order, the targets' logits, and the backward
// pass.
#pragma once

#include "device.cuh"
#include "device_flag.h"
#include "sequence_logprob_cuda.h"

namespace rosepo {

constexpr int kThreads = 256;

// This thread's place among all of the grid's, and their number.
__device__ __forceinline__ int64_t grid_thread() {
    return int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t grid_threads() {
    return int64_t(gridDim.x) * blockDim.x;
}

template <typename A>
__global__ void __launch_bounds__(kThreads, 4)
    triples_kernel(const PrepareTriples<A> op, int64_t triples, DeviceFlag* flag) {
    for (int64_t m = grid_thread(); m < triples; m += grid_threads()) {
        const int64_t target = op.target[m], row = op.row[m], sequence = op.sequence[m];
        const bool target_good = target >= 0 && target < op.vocabulary;
        const bool row_good = row >= 0 && row < op.rows;
        const bool sequence_good = sequence >= 0 && sequence < op.sequences;
        const bool good = target_good && row_good && sequence_good;
        if (!target_good) raise_flag(flag, Fault::target, m, double(target));
        if (!row_good) raise_flag(flag, Fault::row_of_target, m, double(row));
        if (!sequence_good) raise_flag(flag, Fault::sequence_of_target, m, double(sequence));
        op.row_key[m] = good ? row : -1;
        op.sequence_key[m] = sequence_good ? sequence : -1;
        op.clean_target[m] = target_good ? target : target < 0 ? 0 : op.vocabulary - 1;
        op.logp[m] = good ? A(0) : A(NAN);
    }
}

static __global__ void __launch_bounds__(kThreads, 4)
    starts_kernel(const int64_t* sorted, int64_t triples, int64_t segments, int64_t* begin) {
    for (int64_t key = grid_thread(); key <= segments; key += grid_threads()) {
        int64_t low = 0, high = triples;
        while (low < high) {
            const int64_t middle = low + (high - low) / 2;
            if (sorted[middle] < key) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        begin[key] = low;
    }
}

// A warp a triple.
template <typename S, int kCount>
__global__ void __launch_bounds__(kThreads, 4)
    target_logits_kernel(const TargetLogits<S> op, int64_t triples) {
    using A = compute_t<S>;
    const int64_t packs = op.width / kCount;
    const int lane = threadIdx.x % kWarp;
    for (int64_t m = grid_thread() / kWarp; m < triples; m += grid_threads() / kWarp) {
        const int64_t row = op.row_of_target[m], target = op.target[m];
        if (row < 0) continue;
        const S* const hidden = op.hidden + row * op.width;
        const S* const weight = op.weight + target * op.width;
        A sum = 0;
#pragma unroll 4
        for (int64_t i = lane; i < packs; i += kWarp) {
            const auto h = load<kCount>(hidden + i * kCount), w = load<kCount>(weight + i * kCount);
#pragma unroll
            for (int k = 0; k < kCount; ++k) sum = std::fma(widen(h.lane[k]), widen(w.lane[k]), sum);
        }
        sum = add_lanes(sum);
        if (lane == 0) op.exact[m] = op.bias == nullptr ? sum : sum + widen(op.bias[target]);
    }
}

// A warp a sequence.
template <typename A>
__global__ void __launch_bounds__(kThreads, 4)
    sums_kernel(const int64_t* begin, const int64_t* order, const A* logp, int64_t sequences, A* out) {
    const int lane = threadIdx.x % kWarp;
    for (int64_t s = grid_thread() / kWarp; s < sequences; s += grid_threads() / kWarp) {
        double sum = 0;
        for (int64_t i = begin[s] + lane; i < begin[s + 1]; i += kWarp) sum += logp[order[i]];
        sum = add_lanes(sum);
        if (lane == 0) out[s] = A(sum);
    }
}

// to += factor * from.
template <typename A, typename S, int kCount>
__device__ __forceinline__ void add_scaled(Pack<A, kCount>& to, A factor, const Pack<S, kCount>& from) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) to.lane[k] = std::fma(factor, widen(from.lane[k]), to.lane[k]);
}

template <typename S, typename A, int kCount>
__device__ __forceinline__ Pack<S, kCount> rounded(const Pack<A, kCount>& from) {
    Pack<S, kCount> to;
#pragma unroll
    for (int k = 0; k < kCount; ++k) to.lane[k] = narrow<S>(from.lane[k]);
    return to;
}

// A block a row. A row of one triple, the common one, is scaled; the triples after the first add their own
// rows of W.
template <typename S, int kCount>
__global__ void __launch_bounds__(kThreads, 4)
    row_gradients_kernel(const RowGradients<S> op, int64_t rows) {
    using A = compute_t<S>;
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const int64_t begin = op.by_row.begin[row], end = op.by_row.begin[row + 1];
        const auto grad = [&](int64_t i) { return op.grad[op.sequence[op.by_row.order[i]]]; };
        A others = 0;
        for (int64_t i = begin + 1; i < end; ++i) others += grad(i);
        const A all = begin < end ? grad(begin) + others : A(0);
        const auto coefficient = [&](int64_t i) {
            const A slope = op.slope == nullptr ? op.scale : op.slope[op.by_row.order[i]];
            return (i == begin ? -others : grad(i)) * slope;
        };
        if (op.coefficient != nullptr) {
            for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
                op.coefficient[op.by_row.order[i]] = coefficient(i);
            }
        }
        for (int64_t j = threadIdx.x * kCount; j < op.width; j += int64_t(blockDim.x) * kCount) {
            const int64_t at = row * op.width + j;
            if (op.scaled_hidden != nullptr) {
                Pack<A, kCount> sum = {};
                if (begin < end) add_scaled(sum, all, load<kCount>(op.hidden + at));
                store(op.scaled_hidden + at, rounded<S>(sum));
            }
            if (op.grad_hidden != nullptr) {
                Pack<A, kCount> sum = {};
                if (begin < end) add_scaled(sum, all, load<kCount>(op.u + at));
                for (int64_t i = begin; end - begin > 1 && i < end; ++i) {
                    const A factor = coefficient(i);
                    if (factor == A(0)) continue;
                    const int64_t target = op.target[op.by_row.order[i]];
                    add_scaled(sum, factor, load<kCount>(op.weight + target * op.width + j));
                }
                store(op.grad_hidden + at, rounded<S>(sum));
            }
        }
    }
}

// A block a place of `targets` where a target begins, and a tile of columns.
template <typename S, int kCount>
__global__ void __launch_bounds__(kThreads, 4)
    add_to_weight_kernel(const AddToWeight<S> op, int64_t triples) {
    using A = compute_t<S>;
    for (int64_t first = blockIdx.x; first < triples; first += gridDim.x) {
        const int64_t target = op.targets[first];
        if (first > 0 && op.targets[first - 1] == target) continue;
        const int64_t column = int64_t(blockIdx.y) * blockDim.x + threadIdx.x;
        for (int64_t j = column * kCount; j < op.width; j += int64_t(gridDim.y) * blockDim.x * kCount) {
            Pack<A, kCount> sum = {};
            bool any = false;
            for (int64_t i = first; i < triples && op.targets[i] == target; ++i) {
                const int64_t m = op.by_target[i];
                const A factor = op.coefficient[m];
                if (factor == A(0)) continue;
                any = true;
                add_scaled(sum, factor, load<kCount>(op.hidden + op.row_of_target[m] * op.width + j));
            }
            if (!any) continue;
            S* const to = op.grad_weight + target * op.width + j;
            add_scaled(sum, A(1), load<kCount>(to));
            store(to, rounded<S>(sum));
        }
    }
}

}  // namespace rosepo
