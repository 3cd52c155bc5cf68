// The operator's kernels on the current CUDA device: each call puts work into `stream` (a cudaStream_t) and
// returns at once, with CUDA's message where the launch failed, else nullptr. Nothing is allocated and
// nothing waits, so that calls may be captured in a graph. What a value out of range or not finite does is
// said at each; `flag` is device_flag.h's.
//
// Order of a call: prepare_triples; torch sorts row_key and sequence_key (stable), which gives `order`;
// segment_starts; target_logits (16-bit S); for each chunk of rows a product, `rows` and, with gradient,
// the second product; sequence_sums. Backward: row_gradients, and for the weight add_to_weight, or columns.
#pragma once

#include "device_flag.h"
#include "sequence_logprob.h"

namespace rosepo {

// A triple is bad where its target, row or sequence is out of range. It raises the flag, belongs to no row,
// and its log-prob is NaN, which makes its sequence NaN.
template <typename A>
struct PrepareTriples {
    const int64_t* target;    // [M]
    const int64_t* row;       // [M]
    const int64_t* sequence;  // [M]
    int64_t rows;
    int64_t vocabulary;
    int64_t sequences;
    int64_t* row_key;       // out [M]: row, -1 where the triple is bad
    int64_t* sequence_key;  // out [M]: sequence, -1 where it is out of range
    int64_t* clean_target;  // out [M]: target, brought within 0..V-1
    A* logp;                // out [M]: NaN where the triple is bad, else 0
};

// dW_y += sum of coefficient_m h_row(m) over the triples of target y: what row_gradients left out of C_r
// u_r. Each element is read, added to and written once, by one thread, in an order that does not change.
template <typename S>
struct AddToWeight {
    using A = compute_t<S>;
    const S* hidden;  // [N, d]
    int64_t width;
    const int64_t* row_of_target;  // [M]
    const A* coefficient;          // [M]; where it is 0 the row and the target may be out of range
    const int64_t* targets;        // [M], sorted
    const int64_t* by_target;      // [M]: the triple at each place of `targets`
    S* grad_weight;                // [V, d]
};

template <typename A>
const char* prepare_triples_cuda(const PrepareTriples<A>& op, int64_t triples, DeviceFlag* flag,
                                 void* stream);

// begin[k], 0 <= k <= segments: the first place in `sorted` whose key is k or more; keys of -1 are in no
// segment.
const char* segment_starts_cuda(const int64_t* sorted, int64_t triples, int64_t segments, int64_t* begin,
                                void* stream);

// 16-bit S; row_of_target is row_key, and the logit of a triple without a row is not written.
template <typename S>
const char* target_logits_cuda(const TargetLogits<S>& op, int64_t triples, void* stream);

// The `count` rows of a chunk. 16-bit S needs `exact`, the others must not have it. A log-prob that is not
// finite raises the flag.
template <typename S>
const char* rows_cuda(const Rows<S>& op, int64_t count, DeviceFlag* flag, void* stream);

// All rows of the call, 0..rows - 1.
template <typename S>
const char* columns_cuda(const Columns<S>& op, int64_t rows, void* stream);

// out[s]: the sum of logp over the triples order[begin[s]] .. order[begin[s + 1] - 1], 0 where there are
// none.
template <typename A>
const char* sequence_sums_cuda(const int64_t* begin, const int64_t* order, const A* logp, int64_t sequences,
                               A* out, void* stream);

// All rows, 0..rows - 1. The coefficient of a triple without a row is not written.
template <typename S>
const char* row_gradients_cuda(const RowGradients<S>& op, int64_t rows, void* stream);

template <typename S>
const char* add_to_weight_cuda(const AddToWeight<S>& op, int64_t triples, void* stream);

}  // namespace rosepo
