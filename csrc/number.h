// The numbers that the kernels store: float, double, and the two 16-bit kinds, which are computed with as
// float. Plain bits, so that host, device and emulator agree; conversions round to nearest even.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__CUDACC__)
#    include <cuda_bf16.h>
#    include <cuda_fp16.h>
#    define ROSEPO_INLINE static __host__ __device__ __forceinline__
#else
#    define ROSEPO_INLINE static inline __attribute__((always_inline))
#endif

namespace rosepo {

struct BFloat16 {
    uint16_t bits;
};

struct Half {
    uint16_t bits;
};

// What a kernel computes with: float for all but double.
template <typename S>
struct Compute {
    using type = float;
    static constexpr bool half = true;  // 16 bits: what is stored is coarser than what is computed
};
template <>
struct Compute<float> {
    using type = float;
    static constexpr bool half = false;
};
template <>
struct Compute<double> {
    using type = double;
    static constexpr bool half = false;
};
template <typename S>
using compute_t = typename Compute<S>::type;

template <typename To, typename From>
ROSEPO_INLINE To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}

ROSEPO_INLINE float widen(float x) {
    return x;
}
ROSEPO_INLINE double widen(double x) {
    return x;
}
ROSEPO_INLINE float widen(BFloat16 x) {
    return bit_cast<float>(uint32_t(x.bits) << 16);
}
ROSEPO_INLINE float widen(Half x) {
#if defined(__CUDA_ARCH__)
    return __half2float(__ushort_as_half(x.bits));
#else
    // The exponent and mantissa moved into place and scaled by 2^112, which subnormals take too; infinity
    // and NaN have the exponent that the scale cannot reach.
    const uint32_t magnitude = uint32_t(x.bits & 0x7fff) << 13;
    const float scaled = bit_cast<float>(magnitude) * 0x1p112f;
    const uint32_t special =
        (x.bits & 0x7c00) == 0x7c00 ? 0x7f800000u | magnitude : bit_cast<uint32_t>(scaled);
    return bit_cast<float>(special | uint32_t(x.bits & 0x8000) << 16);
#endif
}

ROSEPO_INLINE BFloat16 to_bfloat16(float x) {
#if defined(__CUDA_ARCH__)
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    return {uint16_t(x != x ? 0x7fc0u : rounded >> 16)};
#endif
}

ROSEPO_INLINE Half to_half(float x) {
#if defined(__CUDA_ARCH__)
    return {__half_as_ushort(__float2half_rn(x))};
#else
    const uint32_t bits = bit_cast<uint32_t>(x);
    const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude >= 0x7f800000u) {  // infinity, NaN
        half = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    } else if (magnitude >= 0x38800000u) {  // normal; what is too large carries into infinity's exponent
        half = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
        if (half > 0x7c00u) half = 0x7c00u;
    } else {  // subnormal: adding 1/2 leaves its bits at the mantissa's end, rounded by the addition
        half = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    }
    return {uint16_t(sign | half)};
#endif
}

template <typename S>
ROSEPO_INLINE S narrow(compute_t<S> x) {
    if constexpr (std::is_same_v<S, BFloat16>) {
        return to_bfloat16(x);
    } else if constexpr (std::is_same_v<S, Half>) {
        return to_half(x);
    } else {
        return x;
    }
}

}  // namespace rosepo
