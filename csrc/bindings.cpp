// What the library says of itself. One library for every torch from TORCH_TARGET_VERSION on and every
// Python: the operators (files *_op.cpp) go through torch's stable ABI. Gradients and fake kernels are
// registered in Python by rosepo_bench/engine.
#include <sstream>
#include <string>

#include "isa.h"
#include "torch_glue.h"

// What rosepo_bench/engine/ops/library.py looks for among the file's bytes before it loads it.
extern "C" __attribute__((used)) const char rosepo_build_id[] = "rosepo-build-id:" ROSEPO_BUILD_ID;

namespace rosepo {
namespace {

// "name=value" lines, for rosepo_bench/engine/ops/library.py.
std::string build_info() {
    std::ostringstream text;
    text << "build_id=" << ROSEPO_BUILD_ID << "\nisa=" << isa_name(selected_isa())
         << "\ncuda=" << ROSEPO_CUDA_ARCHITECTURES << "\ncompiler=" << __VERSION__
         << "\ntorch_target=" << ROSEPO_TORCH_TARGET;
    return text.str();
}

}  // namespace
}  // namespace rosepo

STABLE_TORCH_LIBRARY(rosepo, m) {
    m.def("build_info() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(rosepo, CompositeExplicitAutograd, m) {
    m.impl("build_info", TORCH_BOX(&rosepo::build_info));
}
