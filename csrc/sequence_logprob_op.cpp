// The operator sequence_logprob: checks, chunks, matrix products. The mathematics are in
// sequence_logprob.h.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>

#include "sequence_logprob_cpu.h"
#include "sequence_logprob_flow.h"
#if defined(ROSEPO_WITH_CUDA)
#    include "sequence_logprob_gpu.h"
#endif

namespace rosepo {
namespace {

using torch::stable::contiguous;

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    rosepo::refuse(kSequenceLogprob, parts...);
}

// Of logit_scale and soft_cap: in float32 they, and their quotients with logits, are numbers.
constexpr double kLeast = 1e-6, kMost = 1e6;
constexpr int64_t kMostCounted = int64_t(1) << 48;

void check_numbers(const Head& head, int64_t num_sequences, int64_t memory_budget) {
    const auto sensible = [](double x) { return x >= kLeast && x <= kMost; };
    if (!sensible(head.scale)) refuse("logit_scale is ", head.scale, ": want ", kLeast, " to ", kMost);
    if (head.cap != 0 && !sensible(head.cap))
        refuse("soft_cap is ", head.cap, ": want ", kLeast, " to ", kMost, ", or 0 for none");
    const auto check_count = [](const char* name, int64_t number, const char* unit) {
        if (number < 0 || number > kMostCounted)
            refuse(name, " is ", number, ": want ", unit, "0 to ", kMostCounted);
    };
    check_count("num_sequences", num_sequences, "");
    check_count("chunk_rows", head.chunk_rows, "rows, ");
    check_count("memory_budget", memory_budget, "bytes, ");
}

void check_values(const char* name, const Tensor& tensor, const Tensor& hidden, std::array<int64_t, 2> size,
                  const char* want) {
    const bool flat = size[1] < 0;
    if (tensor.dim() != (flat ? 1 : 2)) refuse(name, " has ", tensor.dim(), " dimensions: want ", want);
    if ((size[0] >= 0 && tensor.size(0) != size[0]) || (!flat && tensor.size(1) != size[1]))
        refuse(name, " has size ", tensor.size(flat ? 0 : 1), ": want ", flat ? size[0] : size[1], ", ",
               want);
    if (tensor.scalar_type() != hidden.scalar_type()) refuse(name, " differs from hidden in dtype");
    if (tensor.device() != hidden.device()) refuse(name, " is on another device than hidden");
}

void check_index(const char* name, const Tensor& tensor, const Tensor& hidden, int64_t triples) {
    if (tensor.dim() != 1) refuse(name, " has ", tensor.dim(), " dimensions: want [triples]");
    if (tensor.size(0) != triples) refuse(name, " has ", tensor.size(0), " triples, targets has ", triples);
    if (tensor.scalar_type() != ScalarType::Long)
        refuse(name, " is ", torch::headeronly::toString(tensor.scalar_type()), ": want int64");
    if (tensor.device() != hidden.device()) refuse(name, " is on another device than hidden");
}

Shape check(const Head& head, const Tensor& targets, const Tensor& row_of_target,
            const Tensor& sequence_of_target, int64_t num_sequences, int64_t memory_budget) {
    const ScalarType dtype = head.hidden.scalar_type();
    if (dtype != ScalarType::Float && dtype != ScalarType::Double && dtype != ScalarType::BFloat16 &&
        dtype != ScalarType::Half)
        refuse("hidden is ", torch::headeronly::toString(dtype),
               ": want float32, float64, bfloat16 or float16");
    if (head.hidden.dim() != 2) refuse("hidden has ", head.hidden.dim(), " dimensions: want [rows, width]");
    check_values("weight", head.weight, head.hidden, {-1, head.hidden.size(1)}, "[vocabulary, width]");
    if (head.bias) check_values("bias", *head.bias, head.hidden, {head.weight.size(0), -1}, "[vocabulary]");
    if (targets.dim() != 1) refuse("targets has ", targets.dim(), " dimensions: want [triples]");
    check_index("targets", targets, head.hidden, targets.size(0));
    check_index("row_of_target", row_of_target, head.hidden, targets.size(0));
    check_index("sequence_of_target", sequence_of_target, head.hidden, targets.size(0));
    check_numbers(head, num_sequences, memory_budget);
    return {head.hidden.size(0), head.weight.size(0), head.hidden.size(1), targets.size(0), num_sequences};
}

void make_contiguous(Head& head) {
    head.hidden = contiguous(head.hidden);
    head.weight = contiguous(head.weight);
    if (head.bias) head.bias = contiguous(*head.bias);
}

template <typename Device>
Forward run_forward(const Tensor& hidden, const Tensor& weight, std::optional<Tensor> bias,
                    const Tensor& targets, const Tensor& row_of_target, const Tensor& sequence_of_target,
                    int64_t num_sequences, double logit_scale, double soft_cap, int64_t chunk_rows,
                    int64_t memory_budget, bool hidden_gradient, bool weight_gradient) {
    Head head = {hidden, weight, bias, logit_scale, soft_cap, chunk_rows};
    const Shape n = check(head, targets, row_of_target, sequence_of_target, num_sequences, memory_budget);
    make_contiguous(head);
    const typename Device::Guard guard(hidden);
    return with_type(hidden.scalar_type(), [&](auto number) {
        return forward<decltype(number), Device>(head, contiguous(targets), contiguous(row_of_target),
                                                 contiguous(sequence_of_target), n, memory_budget,
                                                 hidden_gradient, weight_gradient);
    });
}

// What forward returned and backward reads, [size[0], size[1]] or, where that is -1, [size[0]].
void check_saved(const char* name, const Tensor& tensor, const Head& head, ScalarType dtype,
                 std::array<int64_t, 2> size) {
    const bool flat = size[1] < 0;
    if (tensor.dim() != (flat ? 1 : 2) || tensor.size(0) != size[0] || (!flat && tensor.size(1) != size[1]))
        refuse("backward: ", name, " has another shape than the forward pass of these arguments returns");
    if (tensor.scalar_type() != dtype || tensor.device() != head.hidden.device() || !tensor.is_contiguous())
        refuse("backward: ", name,
               " is not what the forward pass returned: other dtype, device or strides");
}

// No index may lead outside, even where the operator is called by hand: on CUDA that is the caller's
// business.
void check_segments(const Saved& saved, int64_t rows, int64_t triples) {
    const int64_t* begin = read<int64_t>(saved.begin);
    bool good = begin[0] == 0 && begin[rows] == triples;
    for (int64_t r = 0; r < rows; ++r) good = good && begin[r] <= begin[r + 1];
    for (int64_t m = 0; m < triples; ++m) {
        const int64_t at = read<int64_t>(saved.order)[m];
        good = good && at >= 0 && at < triples;
    }
    if (!good) refuse("backward: begin and order are not what the forward pass returned");
}

template <typename Device>
void check_backward(const Head& head, const Tensor& grad, const Tensor& targets,
                    const Tensor& row_of_target, const Tensor& sequence_of_target, const Saved& saved,
                    bool hidden_gradient, bool head_gradient) {
    if (grad.dim() != 1) refuse("backward: grad has ", grad.dim(), " dimensions: want [sequences]");
    const Shape n = check(head, targets, row_of_target, sequence_of_target, grad.size(0), 0);
    const ScalarType dtype = head.hidden.scalar_type();
    const ScalarType wide = dtype == ScalarType::Double ? dtype : ScalarType::Float;
    const auto flat = [&](const char* name, const Tensor& tensor, ScalarType type, int64_t size) {
        check_saved(name, tensor, head, type, {size, -1});
    };
    flat("grad", grad, wide, n.sequences);
    flat("begin", saved.begin, ScalarType::Long, n.rows + 1);
    flat("order", saved.order, ScalarType::Long, n.triples);
    if (head.cap > 0) flat("slope", saved.slope, wide, n.triples);
    if (hidden_gradient) check_saved("u", saved.u, head, dtype, {n.rows, n.width});
    if (head_gradient && saved.kept.numel()) {
        const int64_t stride =
            with_type(dtype, [&](auto s) { return stride_of<decltype(s)>(n.vocabulary); });
        check_saved("kept", saved.kept, head, dtype, {n.rows, stride});
    } else if (head_gradient && n.vocabulary) {
        flat("logp", saved.logp, wide, n.triples);
        flat("lse", saved.lse, wide, n.rows);
    }
    if constexpr (std::is_same_v<Device, OnCpu>) {
        OnCpu::check_ranges(targets, row_of_target, sequence_of_target, n);
        check_segments(saved, n.rows, n.triples);
    }
}

template <typename Device>
Backward run_backward(const Tensor& grad, const Tensor& hidden, const Tensor& weight,
                      std::optional<Tensor> bias, const Tensor& targets, const Tensor& row_of_target,
                      const Tensor& sequence_of_target, const Tensor& u, const Tensor& kept,
                      const Tensor& begin, const Tensor& order, const Tensor& slope, const Tensor& logp,
                      const Tensor& lse, double logit_scale, double soft_cap, int64_t chunk_rows,
                      bool hidden_gradient, bool weight_gradient, bool bias_gradient) {
    Head head = {hidden, weight, bias, logit_scale, soft_cap, chunk_rows};
    const Saved saved = {u, kept, begin, order, slope, logp, lse};
    const Tensor c = contiguous(grad), target = contiguous(targets), row = contiguous(row_of_target),
                 sequence = contiguous(sequence_of_target);
    check_backward<Device>(head, c, target, row, sequence, saved, hidden_gradient,
                           weight_gradient || bias_gradient);
    make_contiguous(head);
    const typename Device::Guard guard(hidden);
    return with_type(hidden.scalar_type(), [&](auto number) {
        return backward<decltype(number), Device>(head, c, target, row, sequence, saved, hidden_gradient,
                                                  weight_gradient, bias_gradient);
    });
}

}  // namespace
}  // namespace rosepo

STABLE_TORCH_LIBRARY_FRAGMENT(rosepo, m) {
    m.def(
        "sequence_logprob(Tensor hidden, Tensor weight, Tensor? bias, Tensor targets, Tensor "
        "row_of_target, "
        "Tensor sequence_of_target, SymInt num_sequences, float logit_scale, float soft_cap, int "
        "chunk_rows, "
        "int memory_budget, bool hidden_gradient, bool weight_gradient) -> (Tensor logps, Tensor u, Tensor "
        "kept, "
        "Tensor begin, Tensor order, Tensor slope, Tensor logp, Tensor lse)");
    m.def(
        "sequence_logprob_backward(Tensor grad, Tensor hidden, Tensor weight, Tensor? bias, Tensor "
        "targets, "
        "Tensor row_of_target, Tensor sequence_of_target, Tensor u, Tensor kept, Tensor begin, Tensor "
        "order, "
        "Tensor slope, Tensor logp, Tensor lse, float logit_scale, float soft_cap, int chunk_rows, "
        "bool hidden_gradient, bool weight_gradient, bool bias_gradient) -> (Tensor grad_hidden, "
        "Tensor grad_weight, Tensor grad_bias)");
}

STABLE_TORCH_LIBRARY_IMPL(rosepo, CPU, m) {
    m.impl("sequence_logprob", TORCH_BOX(&rosepo::run_forward<rosepo::OnCpu>));
    m.impl("sequence_logprob_backward", TORCH_BOX(&rosepo::run_backward<rosepo::OnCpu>));
}

#if defined(ROSEPO_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(rosepo, CUDA, m) {
    m.impl("sequence_logprob", TORCH_BOX(&rosepo::run_forward<rosepo::OnCuda>));
    m.impl("sequence_logprob_backward", TORCH_BOX(&rosepo::run_backward<rosepo::OnCuda>));
}
#endif
