#include "isa.h"

#include <cstdlib>
#include <stdexcept>

namespace rosepo {
namespace {

#if defined(ROSEPO_X86_64)
// By feature rather than __builtin_cpu_supports("x86-64-v4"), which older compilers lack.
bool supported(Isa isa) {
    __builtin_cpu_init();
    const bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    const bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    return isa == Isa::v4 ? v4 : isa == Isa::v3 ? v3 : v2;
}

Isa best() {
    for (Isa isa : {Isa::v4, Isa::v3, Isa::v2}) {
        if (supported(isa)) return isa;
    }
    throw std::runtime_error(
        "rosepo: this CPU lacks SSE4.2 (x86-64-v2), which the library is compiled for");
}
#endif

Isa select() {
    const char* wanted = std::getenv("ROSEPO_CPU_ISA");
    const std::string name = wanted == nullptr ? "" : wanted;
#if defined(ROSEPO_X86_64)
    if (name.empty()) return best();
    for (Isa isa : {Isa::v2, Isa::v3, Isa::v4}) {
        if (name != isa_name(isa)) continue;
        if (supported(isa)) return isa;
        throw std::runtime_error("rosepo: ROSEPO_CPU_ISA=" + name + ", but this CPU supports up to " +
                                 isa_name(best()));
    }
    throw std::runtime_error("rosepo: ROSEPO_CPU_ISA=" + name +
                             " is unknown: want v2, v3, v4, or leave it unset");
#else
    if (name.empty()) return Isa::generic;
    throw std::runtime_error("rosepo: ROSEPO_CPU_ISA=" + name +
                             ": this build has no x86-64 kernels; unset it");
#endif
}

}  // namespace

Isa selected_isa() {
    static const Isa isa = select();
    return isa;
}

std::string isa_name(Isa isa) {
    switch (isa) {
        case Isa::v2:
            return "v2";
        case Isa::v3:
            return "v3";
        case Isa::v4:
            return "v4";
        case Isa::generic:
            break;
    }
    return "generic";
}

}  // namespace rosepo
