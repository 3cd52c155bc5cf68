// The operators preference_loss (allocation and dispatch; the formulas are in preference_loss.h) and
// loss_table.
#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "isa.h"
#include "preference_loss_check.h"
#include "preference_loss_pair.h"
#include "torch_glue.h"

namespace rosepo {
namespace {

using MaybeTensor = std::optional<Tensor>;
using MaybeNumber = std::optional<double>;
using Results = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // loss, grad_chosen, grad_rejected, statistics

template <typename T>
View<T> view(const TensorArgument& argument) {
    if (argument.tensor == nullptr) return {nullptr, 0, 0};
    const Tensor& tensor = *argument.tensor;
    const bool columns = tensor.dim() == 2 && tensor.size(1) > 1;
    return {read<T>(tensor), tensor.dim() == 0 ? 0 : tensor.stride(0), columns ? tensor.stride(1) : 0};
}

template <typename T>
PreferenceLoss<T> pointers(const LossName& loss, const std::array<TensorArgument, 10>& in,
                           const std::array<NumberArgument, 4>& scalars, const Results& out) {
    PreferenceLoss<T> op;
    op.pairs = in[0].tensor->size(0);
    op.rejected_count = in[1].tensor->size(1);
    op.chosen = view<T>(in[0]);
    op.rejected = view<T>(in[1]);
    op.reference_chosen = view<T>(in[2]);
    op.reference_rejected = view<T>(in[3]);
    op.chosen_tokens = view<int64_t>(in[4]);
    op.rejected_tokens = view<int64_t>(in[5]);
    op.epsilon = view<T>(in[6]);
    op.beta = view<T>(in[7]);
    op.weight = view<T>(in[8]);
    op.kl = view<T>(in[9]);
    op.max_epsilon = loss.max_epsilon;
    op.gamma = scalars[0].number.value_or(0);
    op.sft_weight = scalars[1].number.value_or(1);
    op.desirable = scalars[2].number.value_or(1);
    op.undesirable = scalars[3].number.value_or(1);
    op.loss = write<T>(std::get<0>(out));
    op.grad_chosen = write<T>(std::get<1>(out));
    op.grad_rejected = write<T>(std::get<2>(out));
    return op;
}

struct Cpu {
    // Pairs of one sum and one task: sums do not depend on the number of threads, and below this many a
    // second thread costs more than it saves.
    static constexpr int64_t kPairsOfSum = 2048;

    template <typename T>
    static void run(const PreferenceLoss<T>& op, int formula, const Tensor& statistics) {
        selected_isa();  // throws what it has to say here: nothing may be thrown from a worker
        const int64_t sums = (op.pairs + kPairsOfSum - 1) / kPairsOfSum;
        std::vector<LossSums> partial(sums, LossSums{});
        std::vector<DeviceFlag> faults(sums, DeviceFlag{});
        torch::stable::parallel_for(0, sums, 1, [&](int64_t begin, int64_t end) {
            for (int64_t k = begin; k < end; ++k) {
                faults[k] = ROSEPO_ON_ISA(preference_loss, op, formula, k * kPairsOfSum,
                                          std::min(op.pairs, (k + 1) * kPairsOfSum), partial[k]);
            }
        });
        LossSums total{};
        for (int64_t k = 0; k < sums; ++k) {
            if (faults[k].fault != 0) throw std::runtime_error(sentence(faults[k]));
            add(total, partial[k]);
        }
        const double share = op.pairs == 0 ? 0. : 1. / static_cast<double>(op.pairs);
        double* const means = write<double>(statistics);
        means[0] = total.margin * share;
        means[1] = total.correct * share;
        means[2] = total.epsilon * share;
    }
};

#if defined(ROSEPO_WITH_CUDA)
struct Cuda {
    template <typename T>
    static void run(const PreferenceLoss<T>& op, int formula, const Tensor& statistics) {
        const int32_t device = statistics.get_device_index();
        const torch::stable::accelerator::DeviceGuard guard(device);
        // torch hands memory that was freed here only to later work in the same stream.
        const Tensor partial = empty(
            statistics, {preference_loss_blocks(op.pairs) * int64_t(sizeof(LossSums) / sizeof(double))});
        const char* error =
            preference_loss_cuda(op, formula, write<LossSums>(partial), write<double>(statistics),
                                 current_stream(kLossOp, device));
        if (error != nullptr) refuse(kLossOp, "CUDA: ", error);
    }
};
#endif

template <class Device>
Results preference_loss(const Tensor& chosen, const Tensor& rejected, const MaybeTensor& reference_chosen,
                        const MaybeTensor& reference_rejected, const MaybeTensor& chosen_tokens,
                        const MaybeTensor& rejected_tokens, const MaybeTensor& epsilon, const Tensor& beta,
                        const MaybeTensor& weight, const MaybeTensor& kl, MaybeNumber gamma,
                        MaybeNumber sft_weight, MaybeNumber desirable, MaybeNumber undesirable,
                        const std::string& loss) {
    const auto pointer = [](const MaybeTensor& tensor) { return tensor ? &*tensor : nullptr; };
    const ScalarType dtype = chosen.scalar_type();
    const std::array<TensorArgument, 10> tensors = {{
        {"chosen", &chosen, 0, kPairs, dtype},
        {"rejected", &rejected, 0, kTable, dtype},
        {"reference_chosen", pointer(reference_chosen), kReference, kPairs, dtype},
        {"reference_rejected", pointer(reference_rejected), kReference, kTable, dtype},
        {"chosen_tokens", pointer(chosen_tokens), kChosenTokens, kPairs, ScalarType::Long},
        {"rejected_tokens", pointer(rejected_tokens), kRejectedTokens, kTable, ScalarType::Long},
        {"epsilon", pointer(epsilon), kEpsilon, kNumber | kPairs | kTable, dtype},
        {"beta", &beta, 0, kNumber | kPairs, dtype},
        {"weight", pointer(weight), 0, kPairs, dtype},
        {"kl", pointer(kl), kKl, kNumber, dtype},
    }};
    const std::array<NumberArgument, 4> numbers = {{{"gamma", gamma, kGamma},
                                                    {"sft_weight", sft_weight, kSftWeight},
                                                    {"desirable", desirable, kDesirable},
                                                    {"undesirable", undesirable, kDesirable}}};
    const Loss found = find_loss(loss);
    check_loss(found.row, tensors, numbers);
    const int64_t pairs = chosen.size(0);
    const Results results = {empty(chosen, {pairs}), empty(chosen, {pairs}),
                             empty(chosen, {pairs, rejected.size(1)}),
                             empty(chosen, {3}, ScalarType::Double)};
    if (dtype == ScalarType::Float) {
        Device::run(pointers<float>(found.row, tensors, numbers, results), found.formula,
                    std::get<3>(results));
    } else {
        Device::run(pointers<double>(found.row, tensors, numbers, results), found.formula,
                    std::get<3>(results));
    }
    return results;
}

// A line for each name: "<name> <needs> <takes> <max_epsilon> <many>", the middle two as bits of Uses.
std::string loss_table() {
    std::ostringstream text;
    LossFormulas::each([&](auto formula, int) {
        for (const LossName& row : formula.kNames) {
            text << row.name << ' ' << row.needs << ' ' << row.takes << ' ' << row.max_epsilon << ' '
                 << row.many << '\n';
        }
    });
    return text.str();
}

}  // namespace
}  // namespace rosepo

STABLE_TORCH_LIBRARY_FRAGMENT(rosepo, m) {
    m.def("loss_table() -> str");
    m.def(
        "preference_loss(Tensor chosen, Tensor rejected, Tensor? reference_chosen, Tensor? "
        "reference_rejected, Tensor? chosen_tokens, Tensor? rejected_tokens, Tensor? epsilon, Tensor beta, "
        "Tensor? weight, Tensor? kl, float? gamma, float? sft_weight, float? desirable, float? "
        "undesirable, str loss) -> (Tensor loss, Tensor grad_chosen, Tensor grad_rejected, Tensor "
        "statistics)");
}

STABLE_TORCH_LIBRARY_IMPL(rosepo, CompositeExplicitAutograd, m) {
    m.impl("loss_table", TORCH_BOX(&rosepo::loss_table));
}

STABLE_TORCH_LIBRARY_IMPL(rosepo, CPU, m) {
    m.impl("preference_loss", TORCH_BOX(&rosepo::preference_loss<rosepo::Cpu>));
}

#if defined(ROSEPO_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(rosepo, CUDA, m) {
    m.impl("preference_loss", TORCH_BOX(&rosepo::preference_loss<rosepo::Cuda>));
}
#endif
