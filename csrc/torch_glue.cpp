#include "torch_glue.h"

#include <dlfcn.h>

namespace rosepo {

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
