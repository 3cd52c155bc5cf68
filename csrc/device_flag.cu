#include <cuda_runtime.h>

#include "device_flag.h"

namespace rosepo {
namespace {

// Each device has its own, zero from the start: nothing to allocate, so nothing that a graph capture
// forbids.
__device__ DeviceFlag flag_of_device;

const char* message(cudaError_t error) {
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* device_flag(DeviceFlag** flag) {
    return message(cudaGetSymbolAddress(reinterpret_cast<void**>(flag), flag_of_device));
}

const char* take_flag(DeviceFlag* found, void* stream) {
    const auto queue = static_cast<cudaStream_t>(stream);
    DeviceFlag* flag = nullptr;
    if (const char* error = device_flag(&flag)) return error;
    cudaError_t error = cudaMemcpyAsync(found, flag, sizeof(*found), cudaMemcpyDeviceToHost, queue);
    if (error == cudaSuccess) error = cudaStreamSynchronize(queue);
    if (error == cudaSuccess && found->fault != 0) error = cudaMemsetAsync(flag, 0, sizeof(*flag), queue);
    return message(error);
}

}  // namespace rosepo
