// What the operator preference_loss is given, and what it refuses whatever the values are.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "preference_loss.h"
#include "torch_glue.h"

namespace rosepo {

constexpr const char* kLossOp = "preference_loss";

// Shapes that an argument may have.
enum Shape : unsigned { kNumber = 1, kPairs = 2, kTable = 4 };

struct TensorArgument {
    const char* name;
    const Tensor* tensor;  // null: not given
    unsigned use;          // a Uses; 0: every loss takes it
    unsigned shapes;
    ScalarType dtype;
};

struct NumberArgument {
    const char* name;
    std::optional<double> number;
    unsigned use;
};

// A name, and the place of its formula in LossFormulas.
struct Loss {
    LossName row;
    int formula;
};
Loss find_loss(const std::string& wanted);

// Shapes, dtypes, devices and numbers; what the loss needs and what it does not use. The first tensor is
// chosen, the second rejected.
void check_loss(const LossName& loss, std::span<const TensorArgument> tensors,
                std::span<const NumberArgument> numbers);

}  // namespace rosepo
