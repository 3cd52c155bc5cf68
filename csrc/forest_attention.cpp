// Compiled once for each x86-64 level, with ROSEPO_ISA naming its namespace (see isa.h).
#include "forest_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "attention_block.h"
#include "attention_tiles.h"

namespace rosepo::ROSEPO_ISA {
namespace {

static_assert(kKeyPadding % kScoreRows == 0 && kKeyPadding % 12 == 0 && kQueries % 12 == 0);
static_assert(kForwardKeys % kKeyPadding == 0 && kBackwardKeys % kKeyPadding == 0);

template <typename A>
constexpr A kInfinity = std::numeric_limits<A>::infinity();

// products[row][query] = keys[node] · query for kScoreRows keys from j on, in lines of kQueries, of the
// vectors that hold a query which sees one of them; `panel` is the block transposed.
template <typename A>
void multiply_keys(const Walk<A>& block, int64_t j, std::pair<int64_t, int64_t> vectors, Rows<A> keys,
                   const A* panel, A* products) {
    const A* row[kScoreRows];
    for (int i = 0; i < kScoreRows; ++i) row[i] = keys.data + block.w.node[j + i] * keys.stride;
    in_strips<kScoreVectors>(
        vectors.first, vectors.second, [&](auto n, int64_t v) __attribute__((always_inline)) {
            Tile<A, kScoreRows, n> tile = {};
            const A* const at = panel + v * kLanes<A>;
            accumulate(
                tile, block.forest.width,
                [&](int i, int64_t l) __attribute__((always_inline)) { return row[i][l]; },
                [&](int64_t l) __attribute__((always_inline)) { return at + l * kQueries; });
            A* const out = products + v * kLanes<A>;
            store_tile(tile, [&](int i) __attribute__((always_inline)) { return out + i * kQueries; });
        });
}

// f(row, vector, place in lines of kQueries) for kScoreRows keys.
template <typename F>
ROSEPO_INLINE void each_vector(std::pair<int64_t, int64_t> vectors, int64_t lanes, const F& f) {
    for (int64_t i = 0; i < kScoreRows; ++i) {
        for (int64_t v = vectors.first; v < vectors.second; ++v) f(i, v, i * kQueries + v * lanes);
    }
}

// For each query of a block: mixed += sum over keys a .. b - 1 of weight rows[node]. `weights`
// [keys][kQueries], from key a on.
template <typename A>
void mix_rows(const Walk<A>& block, int64_t a, int64_t b, const A* weights, Rows<A> rows) {
    const Workspace<A>& w = block.w;
    const int64_t across = (block.forest.width + kLanes<A> - 1) / kLanes<A>;
    in_strips<kMostVectors>(0, across, [&](auto n, int64_t v) __attribute__((always_inline)) {
        constexpr int kRows = kTileRows<n>;
        int64_t known = std::min(b, block.ancestors);
        for (int64_t q = 0; q < block.count; q += kRows) {
            const int64_t listed = block.list_keys(a, b, q, kRows, known);
            A* const out = w.mixed + q * w.stride + v * kLanes<A>;
            const auto row = [&](int i) __attribute__((always_inline)) { return out + i * w.stride; };
            Tile<A, kRows, n> tile;
            load_tile(tile, row);
            const A* const weight = weights + q;
            const A* const from = rows.data + v * kLanes<A>;
            const int32_t *const list = w.list, *const node = w.node + a;
            accumulate(
                tile, listed,
                [&](int i, int64_t l)
                    __attribute__((always_inline)) { return weight[list[l] * kQueries + i]; },
                [&](int64_t l)
                    __attribute__((always_inline)) { return from + node[list[l]] * rows.stride; });
            store_tile(tile, row);
        }
    });
}

// For each of the keys a .. b - 1: sums[node] += sum over the block's queries of weight rows[query]. `rows`
// begins with the block.
template <typename A>
void collect_rows(const Walk<A>& block, int64_t a, int64_t b, const A* weights, Rows<A> rows,
                  Sums<A> sums) {
    const Workspace<A>& w = block.w;
    const int64_t across = (block.forest.width + kLanes<A> - 1) / kLanes<A>;
    in_strips<kMostVectors>(0, across, [&](auto n, int64_t v) __attribute__((always_inline)) {
        constexpr int kRows = kTileRows<n>;
        for (int64_t j = a; j < b; j += kRows) {
            const int64_t real = std::min<int64_t>(kRows, b - j);
            A* at[kRows];
            for (int64_t i = 0; i < kRows; ++i) {
                at[i] = (i < real ? sums.data + w.node[j + i] * sums.stride : w.spare) + v * kLanes<A>;
            }
            const auto row = [&](int i) __attribute__((always_inline)) { return at[i]; };
            const auto [from, to] = block.interval(j, real);
            Tile<A, kRows, n> tile;
            load_tile(tile, row);
            const A* const weight = weights + (j - a) * kQueries + from;
            const A* const first = rows.data + from * rows.stride + v * kLanes<A>;
            accumulate(
                tile, to - from,
                [&](int i, int64_t l) __attribute__((always_inline)) { return weight[i * kQueries + l]; },
                [&](int64_t l) __attribute__((always_inline)) { return first + l * rows.stride; });
            store_tile(tile, row);
        }
    });
}

// The vectors that hold the queries which see any of kScoreRows keys from j on.
template <typename A>
std::pair<int64_t, int64_t> vectors_of(const Walk<A>& block, int64_t j) {
    const auto [from, to] = block.interval(j, kScoreRows);
    return {from / block.lanes, (to + block.lanes - 1) / block.lanes};
}

// Scores of all keys, masked with -infinity, and each query's largest.
template <typename A>
void find_scores(const Walk<A>& block, Rows<A> keys) {
    const Workspace<A>& w = block.w;
    std::fill(w.top, w.top + kQueries, -kInfinity<A>);
    for (int64_t j = 0; j < block.keys; j += kScoreRows) {
        const auto vectors = vectors_of(block, j);
        w.first[j / kScoreRows] = int32_t(vectors.first);
        w.last[j / kScoreRows] = int32_t(vectors.second);
        A* const scores = w.scores + j * kQueries;
        multiply_keys(block, j, vectors, keys, w.query, scores);
        const bool all = block.all_see(j, kScoreRows, vectors.first, vectors.second);
        each_vector(vectors, kLanes<A>, [&](int64_t i, int64_t v, int64_t at) {
            lanes_t<A> x = load(scores + at) * block.forest.scaling;
            if (!all) x = block.seen(j + i, v) ? x : all_lanes<A>(-kInfinity<A>);
            store(scores + at, x);
            const lanes_t<A> top = load(w.top + v * kLanes<A>);
            store(w.top + v * kLanes<A>, x > top ? x : top);
        });
    }
}

// The scores of keys a .. b - 1 become their exponentials, 0 where a key is not seen, and are summed.
template <typename A>
void exponentiate(const Walk<A>& block, int64_t a, int64_t b) {
    const Workspace<A>& w = block.w;
    for (int64_t v = 0; v < block.vectors; ++v) {
        const lanes_t<A> top = load(w.top + v * kLanes<A>);
        lanes_t<A> sum = all_lanes<A>(0);
        for (int64_t j = a; j < b; ++j) {
            A* const at = w.scores + j * kQueries + v * kLanes<A>;
            const auto [first, last] = std::pair(w.first[j / kScoreRows], w.last[j / kScoreRows]);
            lanes_t<A> e = all_lanes<A>(0);
            if (v >= first && v < last) {
                const lanes_t<A> x = load(at) - top;
                e = x < Lanes<A>::least ? e : exp_lanes<A>(x);
            }
            store(at, e);
            sum += e;
        }
        store(w.sum + v * kLanes<A>, load(w.sum + v * kLanes<A>) + sum);
    }
}

template <typename S, typename A = compute_t<S>>
void write_block(const Walk<A>& block, const ForestForward<S>& op, int64_t head) {
    const Workspace<A>& w = block.w;
    for (int64_t q = 0; q < block.count; ++q) {
        const int64_t t = block.tree.begin + block.first + q;
        S* out = op.out + (t * op.heads + head) * op.forest.width;
        const A share = A(1) / w.sum[q];
        for (int64_t d = 0; d < op.forest.width; ++d) out[d] = narrow<S>(w.mixed[q * w.stride + d] * share);
        op.lse[head * op.tokens + t] = w.top[q] + std::log(w.sum[q]);
    }
}

template <typename S>
void forward(const ForestForward<S>& op, Tree tree, int64_t group, void* scratch) {
    using A = compute_t<S>;
    const Workspace<A> w =
        workspace<S>(reinterpret_cast<uintptr_t>(scratch), op.forest.longest, op.forest.width, false);
    const int64_t tokens = tree.end - tree.begin, shared = op.heads / op.groups;
    const Rows<A> key = rows_of(op.key, group, tree, op.forest.width, w.rows[1], w.stride);
    const Rows<A> value = rows_of(op.value, group, tree, op.forest.width, w.rows[2], w.stride);
    const bool good = all_finite(key, tokens, w.stride) && all_finite(value, tokens, w.stride);
    for (int64_t head = group * shared; head < (group + 1) * shared; ++head) {
        const Rows<A> query = rows_of(op.query, head, tree, op.forest.width, w.rows[0], w.stride);
        Walk<A> block = {op.forest, w, tree};
        // A query alone has no masked keys: what is not finite reaches those that see it and no other.
        while (block.next(good ? kQueries : 1)) {
            transpose<kQueries>(query.data + block.first * query.stride, query.stride, block.count,
                                block.vectors * kLanes<A>, op.forest.width, w.query);
            find_scores(block, key);
            std::fill(w.sum, w.sum + kQueries, A(0));
            std::fill(w.mixed, w.mixed + kQueries * w.stride, A(0));
            for (int64_t a = 0; a < block.keys; a += kForwardKeys) {
                const int64_t b = std::min(block.keys, a + kForwardKeys);
                exponentiate(block, a, b);
                mix_rows(block, a, b, w.scores + a * kQueries, value);
            }
            write_block(block, op, head);
        }
    }
}

// Of the keys a .. b - 1: probabilities into w.scores and gradients of scores, times the scaling, into
// w.slopes.
template <typename A>
void find_slopes(const Walk<A>& block, int64_t a, int64_t b, Rows<A> keys, Rows<A> values) {
    const Workspace<A>& w = block.w;
    const A scaling = block.forest.scaling;
    for (int64_t j = a; j < b; j += kScoreRows) {
        const auto vectors = vectors_of(block, j);
        A *const p = w.scores + (j - a) * kQueries, *const slope = w.slopes + (j - a) * kQueries;
        for (A* each : {p, slope}) {
            const auto clear = [&](int64_t, int64_t, int64_t at) { store(each + at, all_lanes<A>(0)); };
            each_vector({0, vectors.first}, kLanes<A>, clear);
            each_vector({vectors.second, block.vectors}, kLanes<A>, clear);
        }
        multiply_keys(block, j, vectors, keys, w.query, p);
        multiply_keys(block, j, vectors, values, w.grad, slope);
        const bool all = block.all_see(j, kScoreRows, vectors.first, vectors.second);
        each_vector(vectors, kLanes<A>, [&](int64_t i, int64_t v, int64_t at) {
            const lanes_t<A> score = load(p + at) * scaling - load(w.top + v * kLanes<A>), none = {};
            lanes_t<A> e = score < Lanes<A>::least ? none : exp_lanes<A>(score);
            lanes_t<A> x = e * scaling * (load(slope + at) - load(w.sum + v * kLanes<A>));
            if (!all) {
                const auto seen = block.seen(j + i, v);
                e = seen ? e : none;
                x = seen ? x : none;
            }
            store(p + at, e);
            store(slope + at, x);
        });
    }
}

// w.top: the queries' log of the sum of exponentials; w.sum: gradient times result, summed over the width.
template <typename S, typename A = compute_t<S>>
void find_deltas(const Walk<A>& block, const ForestBackward<S>& op, int64_t head, Rows<A> grad) {
    const Workspace<A>& w = block.w;
    const int64_t start = block.tree.begin + block.first;
    const int64_t wide = op.forest.width / kLanes<A> * kLanes<A>;
    std::fill(w.top, w.top + kQueries, A(0));
    std::fill(w.sum, w.sum + kQueries, A(0));
    for (int64_t q = 0; q < block.count; ++q) {
        const S* out = op.out.data + head * op.out.head + (start + q) * op.out.token;
        const A* g = grad.data + (block.first + q) * grad.stride;
        lanes_t<A> many = all_lanes<A>(0);
        A rest = 0;
        for (int64_t d = 0; d < wide; d += kLanes<A>) many += load(g + d) * load(out + d);
        for (int64_t d = wide; d < op.forest.width; ++d) rest += g[d] * A(widen(out[d]));
        w.sum[q] = add_lanes<A>(many) + rest;
        w.top[q] = op.lse[head * op.tokens + start + q];
    }
}

template <typename S, typename A = compute_t<S>>
void write_rows(S* to, int64_t step, const A* from, int64_t stride, int64_t count, int64_t width) {
    for (int64_t t = 0; t < count; ++t) {
        for (int64_t d = 0; d < width; ++d) to[t * step + d] = narrow<S>(from[t * stride + d]);
    }
}

template <typename A>
void backward_block(const Walk<A>& block, Rows<A> query, Rows<A> key, Rows<A> value, Rows<A> grad,
                    Sums<A> grad_key, Sums<A> grad_value) {
    const Workspace<A>& w = block.w;
    const int64_t whole = block.vectors * kLanes<A>;
    const Rows<A> queries = {query.data + block.first * query.stride, query.stride};
    const Rows<A> grads = {grad.data + block.first * grad.stride, grad.stride};
    transpose<kQueries>(queries.data, queries.stride, block.count, whole, block.forest.width, w.query);
    transpose<kQueries>(grads.data, grads.stride, block.count, whole, block.forest.width, w.grad);
    std::fill(w.mixed, w.mixed + kQueries * w.stride, A(0));
    for (int64_t a = 0; a < block.keys; a += kBackwardKeys) {
        const int64_t b = std::min(block.keys, a + kBackwardKeys);
        find_slopes(block, a, b, key, value);
        collect_rows(block, a, b, w.scores, grads, grad_value);
        collect_rows(block, a, b, w.slopes, queries, grad_key);
        mix_rows(block, a, b, w.slopes, key);
    }
}

template <typename S>
void backward(const ForestBackward<S>& op, Tree tree, int64_t group, void* scratch) {
    using A = compute_t<S>;
    const Workspace<A> w =
        workspace<S>(reinterpret_cast<uintptr_t>(scratch), op.forest.longest, op.forest.width, true);
    const int64_t tokens = tree.end - tree.begin, shared = op.heads / op.groups;
    const Rows<A> key = rows_of(op.key, group, tree, op.forest.width, w.rows[1], w.stride);
    const Rows<A> value = rows_of(op.value, group, tree, op.forest.width, w.rows[2], w.stride);
    const bool good = all_finite(key, tokens, w.stride) && all_finite(value, tokens, w.stride);
    const int64_t step = op.groups * op.forest.width, start = tree.begin * step + group * op.forest.width;
    const Sums<A> grad_key =
        sums_of(op.grad_key + start, step, tokens, op.forest.width, w.grad_key, w.stride);
    const Sums<A> grad_value =
        sums_of(op.grad_value + start, step, tokens, op.forest.width, w.grad_value, w.stride);
    for (int64_t head = group * shared; head < (group + 1) * shared; ++head) {
        const Rows<A> query = rows_of(op.query, head, tree, op.forest.width, w.rows[0], w.stride);
        const Rows<A> grad = rows_of(op.grad, head, tree, op.forest.width, w.rows[3], w.stride);
        const bool whole =
            good && all_finite(query, tokens, w.stride) && all_finite(grad, tokens, w.stride);
        Walk<A> block = {op.forest, w, tree};
        while (block.next(whole ? kQueries : 1)) {
            find_deltas(block, op, head, grad);
            backward_block(block, query, key, value, grad, grad_key, grad_value);
            S* const to = op.grad_query + ((tree.begin + block.first) * op.heads + head) * op.forest.width;
            write_rows(to, op.heads * op.forest.width, w.mixed, w.stride, block.count, op.forest.width);
        }
    }
    if (!in_place<S>(op.forest.width)) {
        write_rows(op.grad_key + start, step, w.grad_key, w.stride, tokens, op.forest.width);
        write_rows(op.grad_value + start, step, w.grad_value, w.stride, tokens, op.forest.width);
    }
}

}  // namespace

#define ROSEPO_DEFINE_FOR(S)                                                                     \
    void forest_forward(const ForestForward<S>& op, Tree tree, int64_t group, void* scratch) {   \
        forward(op, tree, group, scratch);                                                       \
    }                                                                                            \
    void forest_backward(const ForestBackward<S>& op, Tree tree, int64_t group, void* scratch) { \
        backward(op, tree, group, scratch);                                                      \
    }
ROSEPO_DEFINE_FOR(float)
ROSEPO_DEFINE_FOR(double)
ROSEPO_DEFINE_FOR(BFloat16)
ROSEPO_DEFINE_FOR(Half)

}  // namespace rosepo::ROSEPO_ISA
