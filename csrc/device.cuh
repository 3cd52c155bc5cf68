// What the kernels share: 16 bytes at a time, powers of two, sums over a warp.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "number.h"

namespace rosepo {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

template <typename S>
constexpr int kWide = 16 / sizeof(S);  // elements of the widest access

// Neighbouring elements that one thread takes at once: kWide<S>, aligned to 16 bytes, or 1.
template <typename S, int kCount>
struct Pack {
    S lane[kCount];
};

template <int kCount, typename S>
__device__ __forceinline__ Pack<S, kCount> load(const S* from) {
    if constexpr (kCount == 1) {
        return {from[0]};
    } else {
        return bit_cast<Pack<S, kCount>>(*reinterpret_cast<const uint4*>(from));
    }
}

template <typename S, int kCount>
__device__ __forceinline__ void store(S* to, const Pack<S, kCount>& pack) {
    if constexpr (kCount == 1) {
        to[0] = pack.lane[0];
    } else {
        *reinterpret_cast<uint4*>(to) = bit_cast<uint4>(pack);
    }
}

// The numbers in 16 bytes. BFloat16 in pairs: the compiler takes three instructions for two that suffice.
template <typename S>
__device__ __forceinline__ Pack<compute_t<S>, kWide<S>> widen_all(uint4 bits) {
    Pack<compute_t<S>, kWide<S>> all;
    if constexpr (std::is_same_v<S, BFloat16>) {
        const auto pairs = bit_cast<Pack<uint32_t, 4>>(bits);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            all.lane[2 * k] = bit_cast<float>(pairs.lane[k] << 16);
            all.lane[2 * k + 1] = bit_cast<float>(pairs.lane[k] & 0xffff0000u);
        }
    } else {
        const auto pack = bit_cast<Pack<S, kWide<S>>>(bits);
#pragma unroll
        for (int k = 0; k < kWide<S>; ++k) all.lane[k] = widen(pack.lane[k]);
    }
    return all;
}

// Where a row is `width` long and starts at each of `pointers`: may all be read kWide<S> at a time?
template <typename S, typename... Pointers>
bool wide(int64_t width, Pointers... pointers) {
    return width % kWide<S> == 0 && (reinterpret_cast<uintptr_t>(pointers) | ...) % sizeof(uint4) == 0;
}

__device__ __forceinline__ double exp2_of(double x) {
    return ::exp2(x);
}
// What is under 2^-126 of a row's largest term is lost here, which spares three instructions an element.
__device__ __forceinline__ float exp2_of(float x) {
#if defined(__CUDA_ARCH__)
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return ::exp2f(x);
#endif
}

template <typename T>
__device__ __forceinline__ T add_lanes(T x) {
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
        x += __shfl_xor_sync(kAllLanes, x, distance);
    }
    return x;
}

}  // namespace rosepo
