// The operators, over torch's stable ABI: one library for every torch from TORCH_TARGET_VERSION on and
// every Python. The only file that includes torch. Gradients and fake kernels are registered by
// rosepo_bench/engine/ops.py.
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>

#include "isa.h"
#include "preference_loss.h"

// What rosepo_bench/engine/library.py looks for among the file's bytes before it loads it.
extern "C" __attribute__((used)) const char rosepo_build_id[] = "rosepo-build-id:" ROSEPO_BUILD_ID;

namespace rosepo {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using LossAndGradients = std::tuple<Tensor, Tensor, Tensor>;

// Below this many pairs a second thread costs more than it saves.
constexpr int64_t kGrain = 2048;

constexpr std::array<const char*, 5> kNames = {"chosen", "rejected", "reference_chosen",
                                               "reference_rejected", "epsilon"};

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    std::ostringstream sentence;
    sentence << "preference_loss: ";
    (sentence << ... << parts);
    throw std::runtime_error(sentence.str());
}

Form parse_form(const std::string& form) {
    if (form == "cdpo") return Form::cdpo;
    if (form == "robust") return Form::robust;
    refuse("form is '", form, "': want 'cdpo' or 'robust'");
}

void check(const std::array<Tensor, 5>& inputs, double beta) {
    const Tensor& first = inputs[0];
    const ScalarType dtype = first.scalar_type();
    if (dtype != ScalarType::Float && dtype != ScalarType::Double) {
        refuse("chosen is ", torch::headeronly::toString(dtype), ": want float32 or float64");
    }
    for (size_t k = 0; k < inputs.size(); ++k) {
        if (inputs[k].dim() != 1) refuse(kNames[k], " has ", inputs[k].dim(), " dimensions: want [pairs]");
        if (inputs[k].size(0) != first.size(0)) {
            refuse(kNames[k], " has ", inputs[k].size(0), " pairs, chosen has ", first.size(0));
        }
        if (inputs[k].scalar_type() != dtype) refuse(kNames[k], " differs from chosen in dtype");
        if (inputs[k].device() != first.device()) refuse(kNames[k], " is on another device than chosen");
    }
    if (!(beta > 0) || !std::isfinite(beta)) refuse("beta is ", beta, ": want a finite number above 0");
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
            refuse(kNames[k], "[", i, "] is ", logps[k], ": want a finite log-probability");
    }
    const double limit = max_epsilon(op.form);
    const T epsilon = op.epsilon[i];
    if (!(epsilon >= T(0) && epsilon <= static_cast<T>(limit))) {
        refuse("epsilon[", i, "] is ", epsilon, ": want 0 to ", limit, " for form '",
               op.form == Form::robust ? "robust" : "cdpo", "'");
    }
    refuse("beta times the margin of pair ", i, " overflows: look at the log-probabilities and at beta");
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
// The one symbol that a torch without CUDA lacks: looked up at run time, so that this library loads there
// too.
void* current_stream(int32_t device) {
    using Lookup = AOTITorchError (*)(int32_t, void**);
    static const Lookup lookup = [] {
        const char* name = "aoti_torch_get_current_cuda_stream";
        void* symbol = dlsym(RTLD_DEFAULT, name);
        if (symbol == nullptr) {  // torch loads its libraries out of the global scope on some platforms
            if (void* torch_cuda = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD)) {
                symbol = dlsym(torch_cuda, name);
            }
        }
        return reinterpret_cast<Lookup>(symbol);
    }();
    if (lookup == nullptr) refuse("this torch is built without CUDA");
    void* stream = nullptr;
    if (lookup(device, &stream) != AOTI_TORCH_SUCCESS) refuse("no CUDA stream for device ", device);
    return stream;
}

LossAndGradients preference_loss_gpu(const Tensor& chosen, const Tensor& rejected,
                                     const Tensor& reference_chosen, const Tensor& reference_rejected,
                                     const Tensor& epsilon, double beta, const std::string& form) {
    const int32_t device = chosen.get_device_index();
    return apply({chosen, rejected, reference_chosen, reference_rejected, epsilon}, beta, form,
                 [device](const auto& op, int64_t pairs) {
                     const torch::stable::accelerator::DeviceGuard guard(device);
                     const char* error = preference_loss_cuda(op, pairs, current_stream(device));
                     if (error != nullptr) refuse("CUDA: ", error);
                 });
}
#endif

// "name=value" lines, for rosepo_bench/engine/library.py.
std::string build_info() {
    std::ostringstream text;
    text << "build_id=" << ROSEPO_BUILD_ID << "\nisa=" << isa_name(selected_isa())
         << "\ncuda=" << ROSEPO_CUDA_ARCHITECTURES << "\ncompiler=" << __VERSION__
         << "\ntorch_target=" << ROSEPO_TORCH_TARGET;
    return text.str();
}

}  // namespace
}  // namespace rosepo

STABLE_TORCH_LIBRARY(rosepo, m) {
    m.def("build_info() -> str");
    m.def(
        "preference_loss(Tensor chosen, Tensor rejected, Tensor reference_chosen, Tensor "
        "reference_rejected, "
        "Tensor epsilon, float beta, str form) -> (Tensor loss, Tensor grad_chosen, Tensor grad_rejected)");
}

STABLE_TORCH_LIBRARY_IMPL(rosepo, CompositeExplicitAutograd, m) {
    m.impl("build_info", TORCH_BOX(&rosepo::build_info));
}

STABLE_TORCH_LIBRARY_IMPL(rosepo, CPU, m) {
    m.impl("preference_loss", TORCH_BOX(&rosepo::preference_loss_cpu));
}

#if defined(ROSEPO_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(rosepo, CUDA, m) {
    m.impl("preference_loss", TORCH_BOX(&rosepo::preference_loss_gpu));
}
#endif
