// sequence_logprob's kernels on the CPU: torch's threads, the level of the CPU in use.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "isa.h"
#include "scratch.h"
#include "sequence_logprob_call.h"

namespace rosepo {

struct OnCpu {
    // Of a call that names no chunk. More rows reuse more of the weight, which is what counts for wide
    // models; above 512 nothing is gained.
    static constexpr int64_t kScratchBytes = Scratch::kKeptBytes, kLeastRows = 32, kMostRows = 512;

    struct Guard {
        explicit Guard(const Tensor&) {}
    };

    struct Buffer {
        explicit Buffer(int64_t bytes) : scratch(bytes) {}
        Tensor matrix(const Tensor& like, int64_t rows, int64_t columns) const {
            return torch::stable::from_blob(scratch.data(), {rows, columns}, {columns, 1}, like.device(),
                                            like.scalar_type());
        }
        Scratch scratch;
    };

    // A number outside 0 .. limit - 1 is refused by name.
    static void check_range(const char* name, const Tensor& values, int64_t limit, const char* of) {
        const int64_t* v = read<int64_t>(values);
        for (int64_t m = 0; m < values.numel(); ++m) {
            if (v[m] < 0 || v[m] >= limit) {
                refuse(kSequenceLogprob, name, "[", m, "] is ", v[m], ": want 0 to ", limit - 1, " (", of,
                       ")");
            }
        }
    }

    static void check_ranges(const Tensor& target, const Tensor& row, const Tensor& sequence,
                             const Shape& n) {
        check_range("targets", target, n.vocabulary, "rows of weight");
        check_range("row_of_target", row, n.rows, "rows of hidden");
        check_range("sequence_of_target", sequence, n.sequences, "num_sequences");
    }

    // A counting sort: stable, linear.
    static Segments segments(const Tensor& keys, int64_t count) {
        const int64_t triples = keys.numel();
        Segments result{empty(keys, {count + 1}), empty(keys, {triples})};
        int64_t* begin = write<int64_t>(result.begin);
        int64_t* order = write<int64_t>(result.order);
        const int64_t* key = read<int64_t>(keys);
        std::fill(begin, begin + count + 1, 0);
        for (int64_t m = 0; m < triples; ++m) ++begin[key[m]];
        // Backwards from each segment's end, which leaves begin[k] at its beginning.
        for (int64_t k = 1; k <= count; ++k) begin[k] += begin[k - 1];
        for (int64_t m = triples; m-- > 0;) order[--begin[key[m]]] = m;
        return result;
    }

    static Triples prepare(const Tensor& target, const Tensor& row, const Tensor& sequence, const Shape& n,
                           ScalarType dtype) {
        check_ranges(target, row, sequence, n);
        return {target, row, segments(row, n.rows), segments(sequence, n.sequences),
                empty(target, {n.triples}, dtype)};
    }

    // Names the first value in these rows of a tensor that is not finite.
    template <typename S>
    static void check_finite(const char* name, const Tensor& tensor, int64_t from, int64_t rows) {
        const int64_t width = tensor.numel() / std::max<int64_t>(1, tensor.size(0));
        for (int64_t i = from * width; i < (from + rows) * width; ++i) {
            const auto value = widen(read<S>(tensor)[i]);
            if (value - value == 0) continue;
            if (tensor.dim() == 1)
                refuse(kSequenceLogprob, name, "[", i, "] is ", value, ": want a finite number");
            refuse(kSequenceLogprob, name, "[", i / width, ", ", i % width, "] is ", value,
                   ": want a finite number");
        }
    }

    // What made the row's log-probs or gradient not finite is named; where no value is, a product
    // overflows.
    template <typename S>
    [[noreturn]] static void refuse_row(const Head& head, int64_t row, const char* what) {
        check_finite<S>("hidden", head.hidden, row, 1);
        check_finite<S>("weight", head.weight, 0, head.weight.size(0));
        if (head.bias) check_finite<S>("bias", *head.bias, 0, head.bias->size(0));
        refuse(kSequenceLogprob, "the ", what, " of hidden[", row,
               "] are not finite, though hidden and weight are: their product overflows",
               Compute<S>::half ? " in 16 bits" : "");
    }

    // A U that is not finite comes of an infinite weight whose token has probability 0.
    template <typename S>
    static void check_gradient(const Head& head, const Tensor& u) {
        for (int64_t i = 0; i < u.numel(); ++i) {
            const auto value = widen(read<S>(u)[i]);
            if (value - value != 0) refuse_row<S>(head, i / u.size(1), "gradients");
        }
    }

    template <typename Body>
    static void parallel(int64_t count, const Body& body) {
        selected_isa();  // throws what it has to say here, not in a worker
        torch::stable::parallel_for(0, count, 1, body);
    }

    template <typename S>
    static void rows(const Rows<S>& op, int64_t count, const Head& head) {
        std::atomic<int64_t> bad{count};
        parallel(count, [&](int64_t begin, int64_t end) {
            const int64_t found = ROSEPO_ON_ISA(rows, op, begin, end);
            int64_t known = bad.load();
            while (found >= 0 && found < known && !bad.compare_exchange_weak(known, found)) {
            }
        });
        if (bad.load() < count) refuse_row<S>(head, op.first + bad.load(), "log-probs");
        // A row without triples has no log-prob that would tell, and takes part in the weight's gradient.
        const int64_t* triples = op.by_row.begin + op.first;
        for (int64_t i = 0; i < count; ++i) {
            if (triples[i] == triples[i + 1]) check_finite<S>("hidden", head.hidden, op.first + i, 1);
        }
    }

    template <typename S>
    static void target_logits(const TargetLogits<S>& op, int64_t triples, const Head&) {
        parallel(triples,
                 [&](int64_t begin, int64_t end) { ROSEPO_ON_ISA(target_logits, op, begin, end); });
    }

    template <typename S>
    static void columns(const Columns<S>& op, int64_t count, const Head&) {
        parallel(count, [&](int64_t begin, int64_t end) { ROSEPO_ON_ISA(columns, op, begin, end); });
    }

    template <typename S>
    static void row_gradients(const RowGradients<S>& op, int64_t count, const Head&) {
        parallel(count, [&](int64_t begin, int64_t end) { ROSEPO_ON_ISA(row_gradients, op, begin, end); });
    }

    // L_s, summed in the triples' order.
    template <typename A>
    static void sequence_sums(const Triples& triples, const Tensor& logps) {
        const ByRow by = triples.by_sequence.view();
        const A* logp = read<A>(triples.logp);
        A* out = write<A>(logps);
        for (int64_t s = 0; s < logps.numel(); ++s) {
            double sum = 0;
            for (int64_t k = by.begin[s]; k < by.begin[s + 1]; ++k) sum += double(logp[by.order[k]]);
            out[s] = A(sum);
        }
    }

    // Adds coefficient_m h_row(m) to the targets' rows of a weight's gradient, one slice of the width a
    // thread. Each element is summed in double and rounded once, however many triples its target has.
    template <typename S>
    static void add_to_weight(const Tensor& grad_weight, const Tensor& hidden, const Tensor& coefficient,
                              const Tensor& row, const Tensor& target) {
        using A = compute_t<S>;
        constexpr int64_t kBlock = 64;
        const int64_t width = hidden.size(1), vocabulary = grad_weight.size(0);
        const Segments by_target = segments(target, vocabulary);
        const ByRow by = by_target.view();
        S* out = write<S>(grad_weight);
        const auto add = [&](int64_t y, int64_t from, int64_t n) {
            S* w = out + y * width + from;
            double sum[kBlock];
            for (int64_t i = 0; i < n; ++i) sum[i] = widen(w[i]);
            for (int64_t k = by.begin[y]; k < by.begin[y + 1]; ++k) {
                const int64_t m = by.order[k];
                const double c = read<A>(coefficient)[m];
                if (c == 0) continue;
                const S* h = read<S>(hidden) + read<int64_t>(row)[m] * width + from;
                for (int64_t i = 0; i < n; ++i) sum[i] += c * double(widen(h[i]));
            }
            for (int64_t i = 0; i < n; ++i) w[i] = narrow<S>(A(sum[i]));
        };
        torch::stable::parallel_for(0, width, kBlock, [&](int64_t begin, int64_t end) {
            for (int64_t y = 0; y < vocabulary; ++y) {
                if (by.begin[y] == by.begin[y + 1]) continue;
                for (int64_t i = begin; i < end; i += kBlock) add(y, i, std::min(kBlock, end - i));
            }
        });
    }
};

}  // namespace rosepo
