// What the operators share on torch's side: the stable ABI's tensors, refusals, threads and streams. The
// files that include this one are the only ones that see torch.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "number.h"

namespace rosepo {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// An error for people: "<operator>: <sentence>". rosepo_bench/engine turns it into a UserError.
template <typename... Parts>
[[noreturn]] void refuse(const char* op, const Parts&... parts) {
    std::ostringstream sentence;
    sentence << op << ": ";
    (sentence << ... << parts);
    throw std::runtime_error(sentence.str());
}

// a b into out, b's transpose where said; with `bias` added to every row.
void multiply(const Tensor& a, const Tensor& b, Tensor out);
void multiply_transposed(const Tensor& a, const Tensor& b, const std::optional<Tensor>& bias, Tensor out);

// Values in ascending order, equal ones in their own, and where each came from.
std::pair<Tensor, Tensor> sort(const Tensor& values);

Tensor empty(const Tensor& like, std::vector<int64_t> size, ScalarType dtype);
Tensor empty(const Tensor& like, std::vector<int64_t> size);

template <typename T>
const T* read(const Tensor& tensor) {
    return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
T* write(const Tensor& tensor) {
    return static_cast<T*>(tensor.mutable_data_ptr());
}

// f of a number of the type that tensors of `dtype` hold, one of the four that kernels are compiled for.
template <typename F>
auto with_type(ScalarType dtype, const F& f) {
    switch (dtype) {
        case ScalarType::Float:
            return f(float());
        case ScalarType::Double:
            return f(double());
        case ScalarType::BFloat16:
            return f(BFloat16());
        default:
            return f(Half());
    }
}

// torch's current CUDA stream. Throws where this torch is built without CUDA.
void* current_stream(const char* op, int32_t device);

}  // namespace rosepo
