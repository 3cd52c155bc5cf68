#include "preference_loss_check.h"

#include <cmath>
#include <sstream>

namespace rosepo {
namespace {

template <typename... Parts>
[[noreturn]] void refuse_loss(const Parts&... parts) {
    refuse(kLossOp, parts...);
}

void check_use(const LossName& loss, const char* argument, unsigned use, bool given) {
    if (given && use != 0 && !((loss.needs | loss.takes) & use))
        refuse_loss(argument, " is given: loss '", loss.name, "' does not use it");
    if (!given && (loss.needs & use)) refuse_loss(argument, " is missing: loss '", loss.name, "' needs it");
}

std::string shape_of(const Tensor& tensor) {
    std::ostringstream text;
    text << "[";
    for (int64_t k = 0; k < tensor.dim(); ++k) text << (k == 0 ? "" : ", ") << tensor.size(k);
    text << "]";
    return text.str();
}

bool fits(const Tensor& tensor, unsigned shapes, int64_t pairs, int64_t rejected) {
    if (tensor.dim() == 0) return shapes & kNumber;
    if (tensor.size(0) != pairs) return false;
    if (tensor.dim() == 1) return shapes & kPairs;
    return tensor.dim() == 2 && (shapes & kTable) && tensor.size(1) == rejected;
}

std::string wanted_shapes(unsigned shapes, int64_t pairs, int64_t rejected) {
    std::ostringstream text;
    const char* between = "";
    const auto append = [&](unsigned shape, const auto&... parts) {
        if (!(shapes & shape)) return;
        ((text << between) << ... << parts);
        between = " or ";
    };
    append(kNumber, "[]");
    append(kPairs, "[", pairs, "]");
    append(kTable, "[", pairs, ", ", rejected, "]");
    return text.str();
}

void check_tensor(const TensorArgument& argument, const Tensor& chosen, int64_t rejected) {
    const Tensor& tensor = *argument.tensor;
    const int64_t pairs = chosen.size(0);
    if (tensor.scalar_type() != argument.dtype)
        refuse_loss(argument.name, " is ", torch::headeronly::toString(tensor.scalar_type()), ": want ",
                    torch::headeronly::toString(argument.dtype));
    if (tensor.device() != chosen.device()) refuse_loss(argument.name, " is on another device than chosen");
    if (!fits(tensor, argument.shapes, pairs, rejected))
        refuse_loss(argument.name, " has shape ", shape_of(tensor), ": want ",
                    wanted_shapes(argument.shapes, pairs, rejected));
}

// The two arguments that give all others their size and dtype.
void check_logps(const LossName& loss, const Tensor& chosen, const Tensor& rejected) {
    const ScalarType dtype = chosen.scalar_type();
    if (dtype != ScalarType::Float && dtype != ScalarType::Double)
        refuse_loss("chosen is ", torch::headeronly::toString(dtype), ": want Float or Double");
    if (chosen.dim() != 1) refuse_loss("chosen has shape ", shape_of(chosen), ": want [pairs]");
    if (rejected.dim() != 2 || rejected.size(1) == 0)
        refuse_loss("rejected has shape ", shape_of(rejected), ": want [pairs, 1 or more]");
    if (rejected.size(1) > 1 && !loss.many)
        refuse_loss("rejected has ", rejected.size(1), " columns: loss '", loss.name, "' takes one");
}

}  // namespace

Loss find_loss(const std::string& wanted) {
    std::optional<Loss> found;
    LossFormulas::each([&](auto formula, int place) {
        for (const LossName& row : formula.kNames) {
            if (wanted == row.name) found = Loss{row, place};
        }
    });
    if (!found) refuse_loss("loss is '", wanted, "': no such loss, `ls losses` names all");
    return *found;
}

void check_loss(const LossName& loss, std::span<const TensorArgument> tensors,
                std::span<const NumberArgument> numbers) {
    const Tensor& chosen = *tensors[0].tensor;
    const Tensor& rejected = *tensors[1].tensor;
    for (const auto& each : tensors) check_use(loss, each.name, each.use, each.tensor != nullptr);
    for (const auto& each : numbers) check_use(loss, each.name, each.use, each.number.has_value());
    check_logps(loss, chosen, rejected);
    for (const auto& each : tensors) {
        if (each.tensor != nullptr) check_tensor(each, chosen, rejected.size(1));
    }
    for (const auto& each : numbers) {
        if (each.number && !(std::isfinite(*each.number) && *each.number >= 0))
            refuse_loss(each.name, " is ", *each.number, ": want a finite number, 0 or more");
    }
}

}  // namespace rosepo
