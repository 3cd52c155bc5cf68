// The launch functions of sequence_logprob for ctypes: `op` points to the operation's struct, `dtype` is
// its place in float32, float64, bfloat16, float16.
#include "sequence_logprob_cuda.h"

using namespace rosepo;

namespace {

template <typename F>
const char* with_number(int dtype, const F& f) {
    switch (dtype) {
        case 0:
            return f(float());
        case 1:
            return f(double());
        case 2:
            return f(BFloat16());
        default:
            return f(Half());
    }
}

template <typename Op>
const Op& as(const void* op) {
    return *static_cast<const Op*>(op);
}

}  // namespace

extern "C" {

const char* prepare_triples(int dtype, const void* op, int64_t triples, DeviceFlag* flag) {
    if (dtype == 1) return prepare_triples_cuda(as<PrepareTriples<double>>(op), triples, flag, nullptr);
    return prepare_triples_cuda(as<PrepareTriples<float>>(op), triples, flag, nullptr);
}

const char* segment_starts(const int64_t* sorted, int64_t triples, int64_t segments, int64_t* begin) {
    return segment_starts_cuda(sorted, triples, segments, begin, nullptr);
}

const char* target_logits(int dtype, const void* op, int64_t triples) {
    if (dtype == 2) return target_logits_cuda(as<TargetLogits<BFloat16>>(op), triples, nullptr);
    return target_logits_cuda(as<TargetLogits<Half>>(op), triples, nullptr);
}

const char* rows(int dtype, const void* op, int64_t count, DeviceFlag* flag) {
    return with_number(dtype,
                       [&](auto s) { return rows_cuda(as<Rows<decltype(s)>>(op), count, flag, nullptr); });
}

const char* columns(int dtype, const void* op, int64_t count) {
    return with_number(dtype,
                       [&](auto s) { return columns_cuda(as<Columns<decltype(s)>>(op), count, nullptr); });
}

const char* sequence_sums(int dtype, const int64_t* begin, const int64_t* order, const void* logp,
                          int64_t sequences, void* out) {
    const auto sums = [&](auto a) {
        using A = decltype(a);
        return sequence_sums_cuda(begin, order, static_cast<const A*>(logp), sequences,
                                  static_cast<A*>(out), nullptr);
    };
    return dtype == 1 ? sums(double()) : sums(float());
}

const char* row_gradients(int dtype, const void* op, int64_t count) {
    return with_number(dtype, [&](auto s) {
        return row_gradients_cuda(as<RowGradients<decltype(s)>>(op), count, nullptr);
    });
}

const char* add_to_weight(int dtype, const void* op, int64_t triples) {
    return with_number(dtype, [&](auto s) {
        return add_to_weight_cuda(as<AddToWeight<decltype(s)>>(op), triples, nullptr);
    });
}
}
