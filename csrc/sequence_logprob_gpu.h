// sequence_logprob's kernels on a CUDA device, in torch's current stream. Nothing here waits for the
// device.
#pragma once

#include "device_flag.h"
#include "sequence_logprob_call.h"
#include "sequence_logprob_cuda.h"

namespace rosepo {

struct OnCuda {
    // Of a call that names no chunk: a thousand rows make the products efficient, 256 is the least that
    // does not read the weight more often than its work is worth.
    static constexpr int64_t kScratchBytes = int64_t(256) << 20, kLeastRows = 256, kMostRows = 1024;

    struct Guard {
        explicit Guard(const Tensor& tensor) : device(tensor.get_device_index()) {}
        torch::stable::accelerator::DeviceGuard device;
    };

    // torch's allocator keeps memory between calls, in the order of the stream.
    struct Buffer {
        explicit Buffer(int64_t) {}
        Tensor matrix(const Tensor& like, int64_t rows, int64_t columns) const {
            return empty(like, {rows, columns});
        }
    };

    static void* stream(const Tensor& tensor) {
        return current_stream(kSequenceLogprob, tensor.get_device_index());
    }

    static void check(const char* error) {
        if (error != nullptr) refuse(kSequenceLogprob, "CUDA: ", error);
    }

    static DeviceFlag* flag() {
        DeviceFlag* flag = nullptr;
        check(device_flag(&flag));
        return flag;
    }

    static Segments segments(const Tensor& keys, int64_t count) {
        const auto [sorted, order] = sort(keys);
        const Segments result{empty(keys, {count + 1}), order};
        check(segment_starts_cuda(read<int64_t>(sorted), keys.numel(), count, write<int64_t>(result.begin),
                                  stream(keys)));
        return result;
    }

    static Triples prepare(const Tensor& target, const Tensor& row, const Tensor& sequence, const Shape& n,
                           ScalarType dtype) {
        const Tensor row_key = empty(target, {n.triples}), sequence_key = empty(target, {n.triples});
        const Tensor clean = empty(target, {n.triples}), logp = empty(target, {n.triples}, dtype);
        const auto run = [&](auto number) {
            using A = decltype(number);
            check(prepare_triples_cuda(
                PrepareTriples<A>{read<int64_t>(target), read<int64_t>(row), read<int64_t>(sequence),
                                  n.rows, n.vocabulary, n.sequences, write<int64_t>(row_key),
                                  write<int64_t>(sequence_key), write<int64_t>(clean), write<A>(logp)},
                n.triples, flag(), stream(target)));
        };
        dtype == ScalarType::Double ? run(double()) : run(float());
        return {clean, row_key, segments(row_key, n.rows), segments(sequence_key, n.sequences), logp};
    }

    template <typename S>
    static void rows(const Rows<S>& op, int64_t count, const Head& head) {
        check(rows_cuda(op, count, flag(), stream(head.hidden)));
    }

    // A gradient that is not finite shows in the loss's own gradient; looking at it here would wait.
    template <typename S>
    static void check_gradient(const Head&, const Tensor&) {}

    template <typename S>
    static void target_logits(const TargetLogits<S>& op, int64_t triples, const Head& head) {
        check(target_logits_cuda(op, triples, stream(head.hidden)));
    }

    template <typename S>
    static void columns(const Columns<S>& op, int64_t count, const Head& head) {
        check(columns_cuda(op, count, stream(head.hidden)));
    }

    template <typename S>
    static void row_gradients(const RowGradients<S>& op, int64_t count, const Head& head) {
        check(row_gradients_cuda(op, count, stream(head.hidden)));
    }

    template <typename A>
    static void sequence_sums(const Triples& triples, const Tensor& logps) {
        const ByRow by = triples.by_sequence.view();
        check(sequence_sums_cuda(by.begin, by.order, read<A>(triples.logp), logps.numel(), write<A>(logps),
                                 stream(logps)));
    }

    template <typename S>
    static void add_to_weight(const Tensor& grad_weight, const Tensor& hidden, const Tensor& coefficient,
                              const Tensor& row, const Tensor& target) {
        using A = compute_t<S>;
        const auto [sorted, order] = sort(target);
        check(add_to_weight_cuda(
            AddToWeight<S>{read<S>(hidden), hidden.size(1), read<int64_t>(row), read<A>(coefficient),
                           read<int64_t>(sorted), read<int64_t>(order), write<S>(grad_weight)},
            target.numel(), stream(hidden)));
    }
};

}  // namespace rosepo
