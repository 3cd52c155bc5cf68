// Which build of the CPU kernels runs: the same plain loops are compiled once for each x86-64 level.
//
// A file compiled for a level must not define inline functions with external linkage: the linker keeps one
// copy of them for the whole library, and a machine without that level would then run it. Hence `static`
// throughout.
#pragma once

#include <string>

#if defined(__x86_64__)
#    define ROSEPO_X86_64 1
#endif

namespace rosepo {

enum class Isa { generic, v2, v3, v4 };

// The best level that this CPU has, or the one that ROSEPO_CPU_ISA names. Read once, at the first call.
// Throws std::runtime_error where that level is unknown or the CPU lacks it.
Isa selected_isa();

std::string isa_name(Isa isa);

// Calls a function in the build of the level that runs.
#if defined(ROSEPO_X86_64)
#    define ROSEPO_ON_ISA(function, ...)                         \
        (selected_isa() == Isa::v4   ? v4::function(__VA_ARGS__) \
         : selected_isa() == Isa::v3 ? v3::function(__VA_ARGS__) \
                                     : v2::function(__VA_ARGS__))
#else
#    define ROSEPO_ON_ISA(function, ...) generic::function(__VA_ARGS__)
#endif

}  // namespace rosepo
