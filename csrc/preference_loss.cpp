// Compiled once for each x86-64 level, with ROSEPO_ISA naming its namespace (see isa.h).
#include "preference_loss_pair.h"

namespace rosepo::ROSEPO_ISA {
namespace {

template <typename T>
DeviceFlag run(const PreferenceLoss<T>& op, int formula, int64_t begin, int64_t end, LossSums& sums) {
    DeviceFlag first{};
    LossFormulas::visit(formula, [&](auto chosen) {
        for (int64_t i = begin; i < end; ++i) {
            const Outcome pair = evaluate<decltype(chosen)>(op, i);
            add(sums, pair.sums);
            if (first.fault == 0) first = pair.fault;
        }
    });
    return first;
}

}  // namespace

DeviceFlag preference_loss(const PreferenceLoss<float>& op, int formula, int64_t begin, int64_t end,
                           LossSums& sums) {
    return run(op, formula, begin, end, sums);
}

DeviceFlag preference_loss(const PreferenceLoss<double>& op, int formula, int64_t begin, int64_t end,
                           LossSums& sums) {
    return run(op, formula, begin, end, sums);
}

}  // namespace rosepo::ROSEPO_ISA
