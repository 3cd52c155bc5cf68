// Log-probs of sequences from hidden rows, and their gradient, without the N x V matrix of probabilities.
//
//   x_rv   = squash(scale (h_r W_v + b_v)),  squash(x) = cap tanh(x / cap), or x where cap is 0
//   logp_m = x_ry - log sum_v exp(x_rv),     r, y, s: row, target and sequence of triple m
//   L_s    = sum of logp_m over the triples of sequence s
//
// With c_s = dloss/dL_s, which only the backward pass knows, C_r = sum of c over the triples of row r, p =
// softmax of x and y0 the target of a row's first triple (which one that is, is free; see ByRow):
//
//   dloss/dh_r = C_r u_r + sum_m coefficient_m slope_m W_y,   u_r = sum_v (1[v = y0] - p_rv) slope_rv W_v
//
// where coefficient is c_m for all triples but the first, and (sum of the others' c) with a minus for that.
// So forward computes u, the second and last product with W, and backward scales it. Where p_y0 is nearly 1
// the sum over v cancels; taking 1 - p before the product keeps what is left, as plain softmax
// cross-entropy does.
//
// Matrix products are torch's; what is between them is here: plain loops and kernels on pointers, without
// torch. The readable reference is rosepo_bench/engine/ops/logprob_reference.py.
//
// Shape legend: N rows, V vocabulary, d width, M triples, S sequences.
#pragma once

#include <cstdint>

#include "number.h"

namespace rosepo {

// The triples of each row: those of row r are order[begin[r]] .. order[begin[r + 1] - 1], in their own
// order but for the first, which `rows`, for a gradient, makes the likeliest one. Where another than the
// first had a probability near 1, C_r u_r and its coefficient would be large and cancel, rounded to S
// already.
struct ByRow {
    const int64_t* begin;  // [N + 1]
    int64_t* order;        // [M]
};

// Consecutive rows of one call. `logits` holds their products; where `gradient`, it leaves as
// (1[v = y0] - p_rv) slope_rv, zeros in a row without triples, else as rubbish. All other pointers are
// those of the whole call.
template <typename S>
struct Rows {
    using A = compute_t<S>;
    S* logits;       // [rows, stride]: row first + i at i * stride, aligned to 16 bytes; in: h_r W_v + b_v
    int64_t stride;  // >= V, a multiple of 16 bytes
    int64_t vocabulary;
    int64_t first;
    ByRow by_row;
    const int64_t* target;  // [M], within 0..V-1
    const A* exact;         // [M] h_r W_y + b_y in A, see target_logits; null where S is as fine as A
    A scale;
    A cap;  // 0: none
    bool gradient;
    A* lse;    // out [N]: log sum_v exp(x_rv); 0 in a row without triples
    A* logp;   // out [M]
    A* slope;  // out [M]: dx_ry / d(h_r W_y); null: it is `scale` everywhere (cap is 0)
};

// h_r W_y + b_y as a dot product in A: 16-bit logits are too coarse for the target's.
template <typename S>
struct TargetLogits {
    using A = compute_t<S>;
    const S* hidden;  // [N, d]
    const S* weight;  // [V, d]
    const S* bias;    // [V] or null
    int64_t width;
    const int64_t* target;         // [M]
    const int64_t* row_of_target;  // [M]
    A* exact;                      // out [M]
};

// A block of the vocabulary's columns for all rows: dloss/d(h_r W_v + b_v), for a trained head whose
// probabilities were not kept. Its product with the hidden rows is the block's gradient, summed over all
// rows at once.
template <typename S>
struct Columns {
    using A = compute_t<S>;
    S* logits;       // [N, stride]; in: h_r W_v + b_v of the columns first .. first + columns - 1; out: the
                     // gradient
    int64_t stride;  // >= columns, a multiple of 16 bytes
    int64_t first;
    int64_t columns;
    ByRow by_row;
    const int64_t* target;    // [M]
    const int64_t* sequence;  // [M]
    const A* grad;            // [S]: c
    const A* logp;            // [M], as `rows` wrote it
    const A* lse;             // [N], likewise
    A scale;
    A cap;
};

// The backward pass but for its products. Any output may be null.
template <typename S>
struct RowGradients {
    using A = compute_t<S>;
    const S* hidden;  // [N, d]
    const S* weight;  // [V, d]
    const S* u;       // [N, d]; null where grad_hidden is
    int64_t width;
    ByRow by_row;
    const int64_t* target;    // [M]
    const int64_t* sequence;  // [M]
    const A* slope;           // [M]; null: `scale` everywhere
    A scale;
    const A* grad;     // [S]: c
    S* grad_hidden;    // out [N, d]
    S* scaled_hidden;  // out [N, d]: C_r h_r
    A* coefficient;    // out [M]: coefficient_m slope_m, what of dloss/dx_ry is not in C_r u_r
};

// Each calls for the indices begin..end - 1 (rows of the chunk, triples, rows of the call). `rows` returns
// the first row of the chunk that has a log-prob which is not finite, -1 where there is none.
#define ROSEPO_DECLARE_FOR(S)                                                  \
    int64_t rows(const Rows<S>& op, int64_t begin, int64_t end);               \
    void target_logits(const TargetLogits<S>& op, int64_t begin, int64_t end); \
    void columns(const Columns<S>& op, int64_t begin, int64_t end);            \
    void row_gradients(const RowGradients<S>& op, int64_t begin, int64_t end);
#define ROSEPO_DECLARE_SEQUENCE_LOGPROB(isa) \
    namespace isa {                          \
    ROSEPO_DECLARE_FOR(float)                \
    ROSEPO_DECLARE_FOR(double)               \
    ROSEPO_DECLARE_FOR(BFloat16)             \
    ROSEPO_DECLARE_FOR(Half)                 \
    }
ROSEPO_DECLARE_SEQUENCE_LOGPROB(generic)
ROSEPO_DECLARE_SEQUENCE_LOGPROB(v2)
ROSEPO_DECLARE_SEQUENCE_LOGPROB(v3)
ROSEPO_DECLARE_SEQUENCE_LOGPROB(v4)

}  // namespace rosepo
