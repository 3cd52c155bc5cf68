// A call of sequence_logprob: its head, its sizes, and its triples (target, row, sequence), checked and
// sorted.
#pragma once

#include "sequence_logprob.h"
#include "torch_glue.h"

namespace rosepo {

constexpr const char* kSequenceLogprob = "sequence_logprob";

// The triples of each segment (row or sequence): those of segment k are order[begin[k]] .. order[begin[k +
// 1] - 1].
struct Segments {
    Tensor begin;  // int64 [segments + 1]
    Tensor order;  // int64 [M]

    ByRow view() const { return {read<int64_t>(begin), write<int64_t>(order)}; }
};

struct Triples {
    Tensor target;  // int64 [M], within the vocabulary
    Tensor row;     // int64 [M], within the rows
    Segments by_row;
    Segments by_sequence;
    Tensor logp;  // [M], to be written row by row; NaN already where a triple was bad (on CUDA)
};

struct Shape {
    int64_t rows, vocabulary, width, triples, sequences;
};

struct Head {
    Tensor hidden, weight;  // contiguous
    std::optional<Tensor> bias;
    double scale, cap;
    int64_t chunk_rows;  // 0: a fitting number
};

}  // namespace rosepo
