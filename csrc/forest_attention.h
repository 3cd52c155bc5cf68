// Attention over the token forest, forward and backward, as plain pointers: one row of T tokens holds trees
// one after the other in depth-first order; `end[k]` is the index after k's subtree. Query q sees key k iff
// k <= q < end[k] and, in a window, depth[q] - depth[k] < window.
//
// A task is a tree and a key/value head, with all query heads that share it: tasks write nothing in common,
// so results do not depend on the number of threads. Queries go in blocks. The keys that a block sees are
// the ancestors of its first query and the block itself, a list that a walk in depth-first order keeps like
// a stack; and each key is seen by one interval of the block's queries, [k, end[k]). Scores stand with
// queries along the lanes, [keys][kQueries], so that whole vectors outside a key's interval are never
// computed, softmax needs no sum across lanes, and keys and values are read where they lie.
#pragma once

#include <cstdint>

#include "number.h"

namespace rosepo {

// Queries of a block, a multiple of every number of lanes and of every tile's rows; keys that go together
// from scores to sums, a multiple of the tiles' rows.
constexpr int64_t kQueries = 48, kForwardKeys = 48, kBackwardKeys = 96, kKeyPadding = 24;

// [heads, tokens, width] with the last axis contiguous.
template <typename S>
struct Heads {
    const S* data;
    int64_t head, token;  // strides, in elements
};

struct Tree {
    int64_t begin, end;
};

// What is the same for every tree and head.
template <typename A>
struct Forest {
    const int64_t* end;    // [T], checked
    const int64_t* depth;  // [T], growing along every path; null where window is 0
    int64_t window;
    int64_t longest;  // tokens of the longest tree
    int64_t width;    // of a head
    A scaling;
};

template <typename S>
struct ForestAttention {
    Forest<compute_t<S>> forest;
    Heads<S> query, key, value;
    int64_t tokens, heads, groups;
};

template <typename S>
struct ForestForward : ForestAttention<S> {
    S* out;             // out [T, H, D]
    compute_t<S>* lse;  // out [H, T]: log of the sum of exponentials
};

template <typename S>
struct ForestBackward : ForestAttention<S> {
    Heads<S> out, grad;
    const compute_t<S>* lse;
    S *grad_query, *grad_key, *grad_value;  // out [T, H, D], [T, G, D]
};

// Whether rows are computed with where they lie: of the right type, and whole vectors at every level.
template <typename S>
ROSEPO_INLINE bool in_place(int64_t width) {
    return !Compute<S>::half && width * int64_t(sizeof(S)) % 64 == 0;
}

// What a worker has for itself.
template <typename A>
struct Workspace {
    int32_t *path, *node;   // [longest]: ancestors and block; those of them that are seen, padded
    int32_t *from, *to;     // each key's interval of queries
    int32_t* reach;         // the depth, above the block's least, from which a query does not see the key
    int32_t *first, *last;  // of each group of keys: its interval in vectors
    int32_t* list;          // keys of a chunk that a group of queries sees
    A *query, *grad;        // [width][kQueries]: the block, transposed
    A *scores, *slopes;     // [keys][kQueries]
    A* mixed;               // [kQueries][stride]: what sums over keys
    A *top, *sum;           // [kQueries]
    A* rows[4];  // [longest][stride]: query, key, value, grad, where they are not computed with in place
    A *grad_key, *grad_value;  // [longest][stride], likewise
    A* spare;                  // [stride]: takes what padding gives
    int64_t stride;            // width, padded to 64 bytes
    int64_t bytes;
};

// Lays it out from `base` on, which is a multiple of 64.
template <typename S>
ROSEPO_INLINE Workspace<compute_t<S>> workspace(uintptr_t base, int64_t longest, int64_t width,
                                                bool backward) {
    using A = compute_t<S>;
    uintptr_t at = base;
    const auto take = [&at](auto*& pointer, int64_t count) {
        using T = std::remove_reference_t<decltype(*pointer)>;
        pointer = reinterpret_cast<T*>(at);
        at += uintptr_t(count * int64_t(sizeof(T)) + 63) / 64 * 64;
    };
    Workspace<A> w = {};
    constexpr int64_t step = 64 / int64_t(sizeof(A));
    w.stride = (width + step - 1) / step * step;
    const int64_t keys = longest + kKeyPadding;
    for (int32_t** each : {&w.path, &w.node, &w.from, &w.to, &w.reach, &w.first, &w.last})
        take(*each, keys);
    take(w.list, kBackwardKeys);
    take(w.query, width * kQueries);
    take(w.mixed, w.stride * kQueries);
    take(w.top, kQueries);
    take(w.sum, kQueries);
    take(w.scores, (backward ? kBackwardKeys : keys) * kQueries);
    if (!in_place<S>(width)) {
        for (A*& each : w.rows) take(each, longest * w.stride);
        take(w.grad_key, longest * w.stride);
        take(w.grad_value, longest * w.stride);
    }
    if (backward) {
        take(w.grad, width * kQueries);
        take(w.slopes, kBackwardKeys * kQueries);
        take(w.spare, w.stride);
    }
    w.bytes = int64_t(at - base);
    return w;
}

// Each computes one tree's attention of one key/value head; `scratch` is a workspace.
#define ROSEPO_DECLARE_FOREST_FOR(S)                                                          \
    void forest_forward(const ForestForward<S>& op, Tree tree, int64_t group, void* scratch); \
    void forest_backward(const ForestBackward<S>& op, Tree tree, int64_t group, void* scratch);
#define ROSEPO_DECLARE_FOREST_ATTENTION(isa) \
    namespace isa {                          \
    ROSEPO_DECLARE_FOREST_FOR(float)         \
    ROSEPO_DECLARE_FOREST_FOR(double)        \
    ROSEPO_DECLARE_FOREST_FOR(BFloat16)      \
    ROSEPO_DECLARE_FOREST_FOR(Half)          \
    }
ROSEPO_DECLARE_FOREST_ATTENTION(generic)
ROSEPO_DECLARE_FOREST_ATTENTION(v2)
ROSEPO_DECLARE_FOREST_ATTENTION(v3)
ROSEPO_DECLARE_FOREST_ATTENTION(v4)

}  // namespace rosepo
