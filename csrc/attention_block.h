// The queries of a block of forest_attention.cpp and the keys that they see, compiled for each level.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "attention_tiles.h"
#include "forest_attention.h"
#include "lanes.h"

namespace rosepo::ROSEPO_ISA {
namespace {

template <typename A>
struct Rows {
    const A* data;
    int64_t stride;
};

// A tree's rows of one head: in place, or widened and padded into `copy`.
template <typename S, typename A = compute_t<S>>
Rows<A> rows_of(const Heads<S>& heads, int64_t head, Tree tree, int64_t width, A* copy, int64_t stride) {
    const S* from = heads.data + head * heads.head + tree.begin * heads.token;
    if constexpr (!Compute<S>::half) {
        if (in_place<S>(width)) return {from, heads.token};
    }
    for (int64_t t = 0; t < tree.end - tree.begin; ++t) {
        A* to = copy + t * stride;
        for (int64_t d = 0; d < width; ++d) to[d] = widen(from[t * heads.token + d]);
        for (int64_t d = width; d < stride; ++d) to[d] = 0;
    }
    return {copy, stride};
}

// Where the sums of a tree's rows stand: in the result, or, to be rounded and cut, in `copy`; 0 so far.
template <typename A>
struct Sums {
    A* data;
    int64_t stride;
};
template <typename S, typename A = compute_t<S>>
Sums<A> sums_of(S* result, int64_t step, int64_t count, int64_t width, A* copy, int64_t stride) {
    Sums<A> sums = {copy, stride};
    if constexpr (!Compute<S>::half) {
        if (in_place<S>(width)) sums = {result, step};
    }
    for (int64_t t = 0; t < count; ++t) {
        for (int64_t d = 0; d < stride; d += kLanes<A>)
            store(sums.data + t * sums.stride + d, all_lanes<A>(0));
    }
    return sums;
}

template <typename A>
bool all_finite(Rows<A> rows, int64_t count, int64_t stride) {
    lanes_t<A> sum[4] = {};  // several, as each addition waits for the last one
    for (int64_t t = 0; t < count; ++t) {
        const A* const row = rows.data + t * rows.stride;
        int64_t d = 0;
        for (; d + 4 * kLanes<A> <= stride; d += 4 * kLanes<A>) {
            unroll<4>([&](auto k) { sum[k] += load(row + d + k * kLanes<A>) * A(0); });
        }
        for (; d < stride; d += kLanes<A>) sum[0] += load(row + d) * A(0);
    }
    return add_lanes<A>((sum[0] + sum[1]) + (sum[2] + sum[3])) == 0;
}

// Walks a tree in blocks of queries and lists the keys that each block sees.
template <typename A>
struct Walk {
    using Bits = typename Lanes<A>::bits;
    using Element = std::remove_reference_t<decltype(Bits()[0])>;
    static constexpr int64_t lanes = kLanes<A>;

    const Forest<A>& forest;
    const Workspace<A>& w;
    const Tree tree;
    // Of the block: its first query, how many, that in vectors; keys, and how many of these are ancestors.
    int64_t first = 0, count = 0, vectors = 0, keys = 0, ancestors = 0;
    int64_t passed = 0;                 // how long w.path is
    int64_t least = 0;                  // the least depth of the block
    Bits depth[kQueries / lanes] = {};  // of each query, above `least`; in a window

    int64_t tokens() const { return tree.end - tree.begin; }
    int64_t end_of(int64_t k) const { return forest.end[tree.begin + k] - tree.begin; }
    const int64_t* depths() const { return forest.depth + tree.begin; }

    // To the next block of at most `most` queries; false where there is none. What of the last block's keys
    // is still open are ancestors.
    bool next(int64_t most) {
        first += count;
        if (first == tokens()) return false;
        count = std::min(most, tokens() - first);
        vectors = (count + lanes - 1) / lanes;
        passed =
            std::remove_if(w.path, w.path + passed, [&](int32_t k) { return end_of(k) <= first; }) - w.path;
        if (forest.window) find_depths();
        keys = 0;
        for (int64_t j = 0; j < passed; ++j) {
            if (forest.window && depths()[w.path[j]] <= least - forest.window) continue;
            add_key(w.path[j]);
        }
        ancestors = keys;
        for (int64_t k = first; k < first + count; ++k) add_key(w.path[passed++] = int32_t(k));
        for (int64_t j = keys; j % kKeyPadding; ++j) {
            for (int32_t* each : {w.node, w.from, w.to, w.reach}) each[j] = each[keys - 1];
        }
        return true;
    }

    void find_depths() {
        const int64_t* of = depths() + first;
        least = *std::min_element(of, of + count);
        for (int64_t q = 0; q < kQueries; ++q) depth[q / lanes][q % lanes] = q < count ? of[q] - least : 0;
    }

    void add_key(int64_t k) {
        w.node[keys] = int32_t(k);
        w.from[keys] = int32_t(std::max<int64_t>(0, k - first));
        w.to[keys] = int32_t(std::min(count, end_of(k) - first));
        const int64_t reach = forest.window ? depths()[k] - least + forest.window : 0;
        w.reach[keys++] = int32_t(std::min<int64_t>(reach, std::numeric_limits<int32_t>::max()));
    }

    // The queries that see any of n keys from j on.
    std::pair<int64_t, int64_t> interval(int64_t j, int64_t n) const {
        return {*std::min_element(w.from + j, w.from + j + n), *std::max_element(w.to + j, w.to + j + n)};
    }

    // Whether every query from vector `a` to before vector `b` sees all of n keys from j on.
    bool all_see(int64_t j, int64_t n, int64_t a, int64_t b) const {
        bool all = !forest.window;
        for (int64_t i = j; i < j + n; ++i)
            all = all && w.from[i] <= a * lanes && w.to[i] >= std::min(count, b * lanes);
        return all;
    }

    // Which queries of a vector see key j.
    Bits seen(int64_t j, int64_t vector) const {
        Bits query;
        for (int64_t i = 0; i < lanes; ++i) query[i] = vector * lanes + i;
        Bits see = (query >= Element(w.from[j])) & (query < Element(w.to[j]));
        return forest.window ? see & (depth[vector] < Element(w.reach[j])) : see;
    }

    // The keys a .. b - 1 that any of n queries from `query` on sees, into w.list, counted from a. `known`:
    // of the ancestors, how many the queries before these see.
    int64_t list_keys(int64_t a, int64_t b, int64_t query, int64_t n, int64_t& known) const {
        int64_t listed = 0;
        while (known > a && w.to[known - 1] <= query) --known;
        for (int64_t j = a; j < known; ++j) w.list[listed++] = int32_t(j - a);
        for (int64_t j = std::max(a, ancestors); j < b; ++j) {
            w.list[listed] = int32_t(j - a);
            listed += w.from[j] < query + n && w.to[j] > query;
        }
        return listed;
    }
};

}  // namespace
}  // namespace rosepo::ROSEPO_ISA
