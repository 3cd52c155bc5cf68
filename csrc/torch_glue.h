// What the operators share on torch's side: the stable ABI's tensors, refusals, threads and streams. The
// files that include this one are the only ones that see torch.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <sstream>
#include <stdexcept>
#include <string>

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

// torch's current CUDA stream. Throws where this torch is built without CUDA.
void* current_stream(const char* op, int32_t device);

}  // namespace rosepo
