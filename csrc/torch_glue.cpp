#include "torch_glue.h"

#include <dlfcn.h>

#include <array>

namespace rosepo {

using torch::stable::detail::from;
using torch::stable::detail::to;

void multiply(const Tensor& a, const Tensor& b, Tensor out) {
    std::array<StableIValue, 3> stack{from(a), from(b), from(out)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::mm", "out", stack.data(), TORCH_ABI_VERSION));
    to<Tensor>(stack[0]);  // the result is `out` again: a reference to give back
}

void multiply_transposed(const Tensor& a, const Tensor& b, const std::optional<Tensor>& bias, Tensor out) {
    if (!bias) return multiply(a, torch::stable::transpose(b, 0, 1), out);
    std::array<StableIValue, 4> stack{from(a), from(b), from(bias), from(out)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::linear", "out", stack.data(), TORCH_ABI_VERSION));
    to<Tensor>(stack[0]);
}

std::pair<Tensor, Tensor> sort(const Tensor& values) {
    std::array<StableIValue, 4> stack{from(values), from(std::optional<bool>(true)), from(int64_t(-1)),
                                      from(false)};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION));
    return {to<Tensor>(stack[0]), to<Tensor>(stack[1])};
}

Tensor empty(const Tensor& like, std::vector<int64_t> size, ScalarType dtype) {
    return torch::stable::new_empty(like, size, dtype);
}

Tensor empty(const Tensor& like, std::vector<int64_t> size) {
    return torch::stable::new_empty(like, size);
}

// The one symbol that a torch without CUDA lacks: looked up at run time, so that this library loads there
// too.
void* current_stream(const char* op, int32_t device) {
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
    if (lookup == nullptr) refuse(op, "this torch is built without CUDA");
    void* stream = nullptr;
    if (lookup(device, &stream) != AOTI_TORCH_SUCCESS) refuse(op, "no CUDA stream for device ", device);
    return stream;
}

}  // namespace rosepo
