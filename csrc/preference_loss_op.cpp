// The operator preference_loss: checks, allocation, dispatch. The formula is in preference_loss.h.
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>

#include "isa.h"
#include "preference_loss.h"
#include "torch_glue.h"

namespace rosepo {
namespace {

using LossAndGradients = std::tuple<Tensor, Tensor, Tensor>;

// Below this many pairs a second thread costs more than it saves.
constexpr int64_t kGrain = 2048;

constexpr std::array<const char*, 5> kNames = {"chosen", "rejected", "reference_chosen",
                                               "reference_rejected", "epsilon"};

constexpr const char* kOp = "preference_loss";

template <typename... Parts>
[[noreturn]] void refuse_loss(const Parts&... parts) {
    refuse(kOp, parts...);
}

Form parse_form(const std::string& form) {
    if (form == "cdpo") return Form::cdpo;
    if (form == "robust") return Form::robust;
    refuse_loss("form is '", form, "': want 'cdpo' or 'robust'");
}

void check(const std::array<Tensor, 5>& inputs, double beta) {
    const Tensor& first = inputs[0];
    const ScalarType dtype = first.scalar_type();
    if (dtype != ScalarType::Float && dtype != ScalarType::Double) {
        refuse_loss("chosen is ", torch::headeronly::toString(dtype), ": want float32 or float64");
    }
    for (size_t k = 0; k < inputs.size(); ++k) {
        if (inputs[k].dim() != 1)
            refuse_loss(kNames[k], " has ", inputs[k].dim(), " dimensions: want [pairs]");
        if (inputs[k].size(0) != first.size(0)) {
            refuse_loss(kNames[k], " has ", inputs[k].size(0), " pairs, chosen has ", first.size(0));
        }
        if (inputs[k].scalar_type() != dtype) refuse_loss(kNames[k], " differs from chosen in dtype");
        if (inputs[k].device() != first.device())
            refuse_loss(kNames[k], " is on another device than chosen");
    }
    if (!(beta > 0) || !std::isfinite(beta))
        refuse_loss("beta is ", beta, ": want a finite number above 0");
}

template <typename T>
PreferenceLoss<T> pointers(const std::array<Tensor, 5>& inputs, LossAndGradients& outputs, double beta,
                           Form form) {
    const auto in = [&](size_t k) { return static_cast<const T*>(inputs[k].const_data_ptr()); };
    const auto out = [](Tensor& tensor) { return static_cast<T*>(tensor.mutable_data_ptr()); };
    return {in(0),
            in(1),
            in(2),
            in(3),
            in(4),
            static_cast<T>(beta),
            form,
            out(std::get<0>(outputs)),
            out(std::get<1>(outputs)),
            out(std::get<2>(outputs))};
}

template <typename T>
[[noreturn]] void refuse_pair(const PreferenceLoss<T>& op, int64_t i) {
    const std::array<T, 4> logps = {op.chosen[i], op.rejected[i], op.reference_chosen[i],
                                    op.reference_rejected[i]};
    for (size_t k = 0; k < logps.size(); ++k) {
        if (!std::isfinite(logps[k]))
            refuse_loss(kNames[k], "[", i, "] is ", logps[k], ": want a finite log-probability");
    }
    const double limit = max_epsilon(op.form);
    const T epsilon = op.epsilon[i];
    if (!(epsilon >= T(0) && epsilon <= static_cast<T>(limit))) {
        refuse_loss("epsilon[", i, "] is ", epsilon, ": want 0 to ", limit, " for form '",
                    op.form == Form::robust ? "robust" : "cdpo", "'");
    }
    refuse_loss("beta times the margin of pair ", i,
                " overflows: look at the log-probabilities and at beta");
}

template <typename T>
int64_t run_isa(const PreferenceLoss<T>& op, int64_t begin, int64_t end) {
#if defined(ROSEPO_X86_64)
    switch (selected_isa()) {
        case Isa::v4:
            return v4::preference_loss(op, begin, end);
        case Isa::v3:
            return v3::preference_loss(op, begin, end);
        default:
            return v2::preference_loss(op, begin, end);
    }
#else
    selected_isa();  // refuses a ROSEPO_CPU_ISA that cannot be obeyed
    return generic::preference_loss(op, begin, end);
#endif
}

template <typename T>
void run_cpu(const PreferenceLoss<T>& op, int64_t pairs) {
    selected_isa();
    // Nothing may be thrown from a worker: it leaves the number of the first bad pair, the line above has
    // thrown what selected_isa has to say.
    std::atomic<int64_t> bad{pairs};
    torch::stable::parallel_for(0, pairs, kGrain, [&](int64_t begin, int64_t end) {
        const int64_t found = run_isa(op, begin, end);
        int64_t known = bad.load();
        while (found >= 0 && found < known && !bad.compare_exchange_weak(known, found)) {
        }
    });
    if (bad.load() < pairs) refuse_pair(op, bad.load());
}

// Checks, allocates and hands raw pointers to `run(op, pairs)`, of the tensors' own type.
template <typename Run>
LossAndGradients apply(const std::array<Tensor, 5>& given, double beta, const std::string& form,
                       const Run& run) {
    using torch::stable::contiguous;
    using torch::stable::empty_like;
    const Form parsed = parse_form(form);
    check(given, beta);
    const std::array<Tensor, 5> inputs = {contiguous(given[0]), contiguous(given[1]), contiguous(given[2]),
                                          contiguous(given[3]), contiguous(given[4])};
    LossAndGradients outputs = {empty_like(inputs[0]), empty_like(inputs[0]), empty_like(inputs[0])};
    if (inputs[0].scalar_type() == ScalarType::Float) {
        run(pointers<float>(inputs, outputs, beta, parsed), inputs[0].size(0));
    } else {
        run(pointers<double>(inputs, outputs, beta, parsed), inputs[0].size(0));
    }
    return outputs;
}

LossAndGradients preference_loss_cpu(const Tensor& chosen, const Tensor& rejected,
                                     const Tensor& reference_chosen, const Tensor& reference_rejected,
                                     const Tensor& epsilon, double beta, const std::string& form) {
    return apply({chosen, rejected, reference_chosen, reference_rejected, epsilon}, beta, form,
                 [](const auto& op, int64_t pairs) { run_cpu(op, pairs); });
}

#if defined(ROSEPO_WITH_CUDA)
LossAndGradients preference_loss_gpu(const Tensor& chosen, const Tensor& rejected,
                                     const Tensor& reference_chosen, const Tensor& reference_rejected,
                                     const Tensor& epsilon, double beta, const std::string& form) {
    const int32_t device = chosen.get_device_index();
    return apply({chosen, rejected, reference_chosen, reference_rejected, epsilon}, beta, form,
                 [device](const auto& op, int64_t pairs) {
                     const torch::stable::accelerator::DeviceGuard guard(device);
                     const char* error = preference_loss_cuda(op, pairs, current_stream(kOp, device));
                     if (error != nullptr) refuse_loss("CUDA: ", error);
                 });
}
#endif

}  // namespace
}  // namespace rosepo

STABLE_TORCH_LIBRARY_FRAGMENT(rosepo, m) {
    m.def(
        "preference_loss(Tensor chosen, Tensor rejected, Tensor reference_chosen, Tensor "
        "reference_rejected, "
        "Tensor epsilon, float beta, str form) -> (Tensor loss, Tensor grad_chosen, Tensor grad_rejected)");
}

STABLE_TORCH_LIBRARY_IMPL(rosepo, CPU, m) {
    m.impl("preference_loss", TORCH_BOX(&rosepo::preference_loss_cpu));
}

#if defined(ROSEPO_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(rosepo, CUDA, m) {
    m.impl("preference_loss", TORCH_BOX(&rosepo::preference_loss_gpu));
}
#endif
