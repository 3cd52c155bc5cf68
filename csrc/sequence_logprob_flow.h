// The flow of sequence_logprob: chunks and matrix products, the same for every Device
// (sequence_logprob_cpu.h, sequence_logprob_gpu.h), which says how what is between the products runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "sequence_logprob_call.h"

namespace rosepo {

using torch::stable::narrow;

// logps, and what the backward pass needs: u, probabilities kept, the rows' triples (begin, order), slope,
// logp, lse. Of these, what is not needed has no elements.
using Forward = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
// Gradients of hidden, weight, bias; without elements where not wanted.
using Backward = std::tuple<Tensor, Tensor, Tensor>;

struct Saved {
    Tensor u, kept, begin, order, slope, logp, lse;
};

template <typename S>
int64_t stride_of(int64_t columns) {
    const int64_t step = 64 / int64_t(sizeof(S));
    return (columns + step - 1) / step * step;
}

// Rows of one product: the caller's, else what the scratch holds, within what is quick.
template <typename S, typename Device>
int64_t chunk_of(int64_t asked, int64_t stride) {
    if (asked > 0) return asked;
    const int64_t row = std::max<int64_t>(1, stride * int64_t(sizeof(S)));  // no vocabulary, no bytes
    return std::clamp(Device::kScratchBytes / row, Device::kLeastRows, Device::kMostRows);
}

template <typename S, typename Device>
Forward forward(const Head& head, const Tensor& targets, const Tensor& row_of_target,
                const Tensor& sequence_of_target, const Shape& n, int64_t memory_budget,
                bool hidden_gradient, bool weight_gradient) {
    using A = compute_t<S>;
    const ScalarType wide = sizeof(A) == 8 ? ScalarType::Double : ScalarType::Float;
    const Triples triples = Device::prepare(targets, row_of_target, sequence_of_target, n, wide);
    const int64_t stride = stride_of<S>(n.vocabulary);
    const bool keep = weight_gradient && n.rows * stride <= memory_budget / int64_t(sizeof(S));
    const int64_t chunk =
        std::min(std::max<int64_t>(1, n.rows), chunk_of<S, Device>(head.chunk_rows, stride));

    Tensor u = empty(head.hidden, {hidden_gradient ? n.rows : 0, n.width});
    Tensor kept = empty(head.hidden, {keep ? n.rows : 0, stride});
    const typename Device::Buffer buffer(keep ? 0 : chunk * stride * int64_t(sizeof(S)));
    Tensor scratch = buffer.matrix(head.hidden, keep ? 0 : chunk, stride);
    const Tensor lse = empty(targets, {n.rows}, wide);
    const Tensor slope = empty(targets, {head.cap > 0 ? n.triples : 0}, wide);
    const Tensor exact = empty(targets, {Compute<S>::half ? n.triples : 0}, wide);
    if (Compute<S>::half) {
        Device::template target_logits<S>(
            {read<S>(head.hidden), read<S>(head.weight), head.bias ? read<S>(*head.bias) : nullptr, n.width,
             read<int64_t>(triples.target), read<int64_t>(triples.row), write<A>(exact)},
            n.triples, head);
    }
    Tensor hidden = head.hidden;
    for (int64_t first = 0; first < n.rows; first += chunk) {
        const int64_t rows = std::min(chunk, n.rows - first);
        Tensor padded = keep ? narrow(kept, 0, first, rows) : narrow(scratch, 0, 0, rows);
        const Tensor logits = narrow(padded, 1, 0, n.vocabulary);
        multiply_transposed(narrow(hidden, 0, first, rows), head.weight, head.bias, logits);
        Device::template rows<S>(
            {write<S>(padded), stride, n.vocabulary, first, triples.by_row.view(),
             read<int64_t>(triples.target), Compute<S>::half ? read<A>(exact) : nullptr, A(head.scale),
             A(head.cap), hidden_gradient || keep, write<A>(lse), write<A>(triples.logp),
             head.cap > 0 ? write<A>(slope) : nullptr},
            rows, head);
        if (hidden_gradient) multiply(logits, head.weight, narrow(u, 0, first, rows));
    }
    Device::template check_gradient<S>(head, u);
    const Tensor logps = empty(targets, {n.sequences}, wide);
    Device::template sequence_sums<A>(triples, logps);
    const bool again = weight_gradient && !keep;
    const auto nothing = [&] { return empty(targets, {0}, wide); };  // outputs must not share memory
    return {logps,
            u,
            kept,
            triples.by_row.begin,
            triples.by_row.order,
            slope,
            again ? triples.logp : nothing(),
            again ? lse : nothing()};
}

// The gradient of the weight (or, with a column of ones for hidden, of the bias) from the probabilities
// kept.
template <typename S, typename Device>
Tensor weight_from_kept(const Tensor& kept, int64_t vocabulary, const Tensor& hidden, const Tensor& scaled,
                        const Tensor& coefficient, const Tensor& row_of_target, const Tensor& targets) {
    const Tensor out = empty(hidden, {vocabulary, hidden.size(1)});
    Tensor padded = kept;
    multiply(torch::stable::transpose(narrow(padded, 1, 0, vocabulary), 0, 1), scaled, out);
    Device::template add_to_weight<S>(out, hidden, coefficient, row_of_target, targets);
    return out;
}

// Gradients of weight and bias with the logits computed again, a block of columns at a time.
template <typename S, typename Device>
void weight_again(const Head& head, const Tensor& grad, const Tensor& targets,
                  const Tensor& sequence_of_target, const Saved& saved, const Shape& n, Tensor grad_weight,
                  Tensor grad_bias, const Tensor& ones) {
    using A = compute_t<S>;
    const int64_t rows = std::max<int64_t>(1, n.rows);
    const int64_t asked = std::min(head.chunk_rows, rows) * n.vocabulary;
    const int64_t room = asked > 0 ? asked : Device::kScratchBytes / int64_t(sizeof(S));
    const int64_t block =
        std::clamp<int64_t>(room / rows, std::min<int64_t>(n.vocabulary, 256), n.vocabulary);
    const typename Device::Buffer buffer(n.rows * stride_of<S>(block) * int64_t(sizeof(S)));
    Tensor scratch = buffer.matrix(head.hidden, n.rows, stride_of<S>(block));
    Tensor weight = head.weight;
    std::optional<Tensor> bias = head.bias;
    for (int64_t first = 0; first < n.vocabulary; first += block) {
        const int64_t columns = std::min(block, n.vocabulary - first);
        const Tensor logits = narrow(scratch, 1, 0, columns);
        const auto part = bias ? std::optional<Tensor>(narrow(*bias, 0, first, columns)) : std::nullopt;
        multiply_transposed(head.hidden, narrow(weight, 0, first, columns), part, logits);
        Device::template columns<S>({write<S>(scratch),
                                     stride_of<S>(block),
                                     first,
                                     columns,
                                     {read<int64_t>(saved.begin), write<int64_t>(saved.order)},
                                     read<int64_t>(targets),
                                     read<int64_t>(sequence_of_target),
                                     read<A>(grad),
                                     read<A>(saved.logp),
                                     read<A>(saved.lse),
                                     A(head.scale),
                                     A(head.cap)},
                                    n.rows, head);
        const Tensor transposed = torch::stable::transpose(logits, 0, 1);
        if (grad_weight.numel()) multiply(transposed, head.hidden, narrow(grad_weight, 0, first, columns));
        if (grad_bias.numel()) multiply(transposed, ones, narrow(grad_bias, 0, first, columns));
    }
}

template <typename S, typename Device>
Backward backward(const Head& head, const Tensor& grad, const Tensor& targets, const Tensor& row_of_target,
                  const Tensor& sequence_of_target, const Saved& saved, bool hidden_gradient,
                  bool weight_gradient, bool bias_gradient) {
    using A = compute_t<S>;
    const Shape n = {head.hidden.size(0), head.weight.size(0), head.hidden.size(1), targets.size(0),
                     grad.size(0)};
    const bool keep = saved.kept.numel() > 0;
    const Tensor grad_hidden = empty(head.hidden, {hidden_gradient ? n.rows : 0, n.width});
    Tensor scaled = empty(head.hidden, {keep && weight_gradient ? n.rows : 0, n.width});
    Tensor coefficient = torch::stable::new_zeros(grad, std::vector<int64_t>{keep ? n.triples : 0});
    const Tensor none = empty(head.hidden, {0, 0});
    const auto row_gradients = [&](const Tensor& hidden, const Tensor& out, const Tensor& times) {
        Device::template row_gradients<S>({read<S>(hidden),
                                           read<S>(head.weight),
                                           read<S>(saved.u),
                                           hidden.size(1),
                                           {read<int64_t>(saved.begin), write<int64_t>(saved.order)},
                                           read<int64_t>(targets),
                                           read<int64_t>(sequence_of_target),
                                           head.cap > 0 ? read<A>(saved.slope) : nullptr,
                                           A(head.scale),
                                           read<A>(grad),
                                           out.numel() ? write<S>(out) : nullptr,
                                           times.numel() ? write<S>(times) : nullptr,
                                           keep ? write<A>(coefficient) : nullptr},
                                          n.rows, head);
    };
    if (hidden_gradient || scaled.numel()) row_gradients(head.hidden, grad_hidden, scaled);

    Tensor ones = empty(head.hidden, {bias_gradient ? n.rows : 0, 1});
    torch::stable::fill_(ones, 1.0);
    Tensor grad_weight = empty(head.hidden, {0}), grad_bias = empty(head.hidden, {0, 1});
    if (keep) {
        if (weight_gradient)
            grad_weight = weight_from_kept<S, Device>(saved.kept, n.vocabulary, head.hidden, scaled,
                                                      coefficient, row_of_target, targets);
        if (bias_gradient) {
            const Tensor totals = empty(head.hidden, {n.rows, 1});
            row_gradients(ones, none, totals);
            grad_bias = weight_from_kept<S, Device>(saved.kept, n.vocabulary, ones, totals, coefficient,
                                                    row_of_target, targets);
        }
    } else if (weight_gradient || bias_gradient) {
        grad_weight = empty(head.hidden, {weight_gradient ? n.vocabulary : 0, n.width});
        grad_bias = empty(head.hidden, {bias_gradient ? n.vocabulary : 0, 1});
        weight_again<S, Device>(head, grad, targets, sequence_of_target, saved, n, grad_weight, grad_bias,
                                ones);
    }
    return {grad_hidden, grad_weight, torch::stable::view(grad_bias, std::vector<int64_t>{-1})};
}

}  // namespace rosepo
