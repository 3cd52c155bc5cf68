// The operator take_error: what went wrong on a CUDA device since it was last asked.
#include "device_flag.h"
#include "torch_glue.h"

#if defined(ROSEPO_WITH_CUDA)
namespace rosepo {
namespace {

constexpr const char* kOp = "take_error";

// "" where nothing was wrong. Waits for the device's current stream: what runs in others may not be seen
// yet.
std::string take_error(int64_t device) {
    const torch::stable::accelerator::DeviceGuard guard(static_cast<int32_t>(device));
    DeviceFlag found{};
    const char* error = take_flag(&found, current_stream(kOp, static_cast<int32_t>(device)));
    if (error != nullptr) refuse(kOp, "CUDA: ", error);
    return found.fault == 0 ? "" : sentence(found);
}

}  // namespace
}  // namespace rosepo

STABLE_TORCH_LIBRARY_FRAGMENT(rosepo, m) {
    m.def("take_error(int device) -> str");
}

STABLE_TORCH_LIBRARY_IMPL(rosepo, CompositeExplicitAutograd, m) {
    m.impl("take_error", TORCH_BOX(&rosepo::take_error));
}
#endif
