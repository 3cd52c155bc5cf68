// Products of small matrices, held in registers while they are summed, for forest_attention.cpp.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "lanes.h"

namespace rosepo {

// A tile of sums is kTileRows<vectors> rows of so many vectors: what the registers hold beside a row of the
// right matrix and one number of the left.
#if defined(__AVX512F__)
constexpr int kMostVectors = 4, kScoreVectors = 3, kScoreRows = 8;
template <int kVectors>
constexpr int kTileRows = kVectors > 2 ? 6 : 12;
#else
constexpr int kMostVectors = 2, kScoreVectors = 2, kScoreRows = 6;
template <int kVectors>
constexpr int kTileRows = 6;
#endif

// f of 0 .. n - 1 as constants.
template <int n, typename F>
ROSEPO_INLINE void unroll(const F& f) {
    [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
        (f(std::integral_constant<int, i>()), ...);
    }(std::make_integer_sequence<int, n>());
}

// f(vectors, at) for strips of at most kMost vectors of from .. to - 1, their number a constant.
template <int kMost, typename F>
ROSEPO_INLINE void in_strips(int64_t from, int64_t to, const F& f) {
    while (from < to) {
        const int64_t left = to - from;
        const int64_t vectors = left <= kMost ? left : left < 2 * kMost ? (left + 1) / 2 : kMost;
        unroll<kMost>([&](auto less) __attribute__((always_inline)) {
            if (vectors == less + 1) f(std::integral_constant<int, less + 1>(), from);
        });
        from += vectors;
    }
}

template <typename A, int kRows, int kVectors>
struct Tile {
    lanes_t<A> sum[kRows][kVectors];
};

// tile[i] += left(i, l) right(l)[..] over the terms l.
template <typename A, int kRows, int kVectors, typename Left, typename Right>
ROSEPO_INLINE void accumulate(Tile<A, kRows, kVectors>& tile, int64_t terms, const Left& left,
                              const Right& right) {
    for (int64_t l = 0; l < terms; ++l) {
        const A* const row = right(l);
        lanes_t<A> x[kVectors];
        unroll<kVectors>([&](auto v) __attribute__((always_inline)) { x[v] = load(row + v * kLanes<A>); });
        unroll<kRows>([&](auto i) __attribute__((always_inline)) {
            const A a = left(i, l);
            unroll<kVectors>([&](auto v) __attribute__((always_inline)) { tile.sum[i][v] += x[v] * a; });
        });
    }
}

// row(i)[..] to and from the tile.
template <typename A, int kRows, int kVectors, typename Row>
ROSEPO_INLINE void load_tile(Tile<A, kRows, kVectors>& tile, const Row& row) {
    unroll<kRows>([&](auto i) __attribute__((always_inline)) {
        unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
            tile.sum[i][v] = load(static_cast<const A*>(row(i)) + v * kLanes<A>);
        });
    });
}
template <typename A, int kRows, int kVectors, typename Row>
ROSEPO_INLINE void store_tile(const Tile<A, kRows, kVectors>& tile, const Row& row) {
    unroll<kRows>([&](auto i) __attribute__((always_inline)) {
        unroll<kVectors>(
            [&](auto v) __attribute__((always_inline)) { store(row(i) + v * kLanes<A>, tile.sum[i][v]); });
    });
}

// to[l][q] = from[q][l], l < width, for kLine queries in each line of `to`; from `count` on they are 0 up
// to `whole`.
template <int64_t kLine, typename A>
ROSEPO_INLINE void transpose(const A* from, int64_t stride, int64_t count, int64_t whole, int64_t width,
                             A* to) {
    constexpr int64_t kSide = 16 / int64_t(sizeof(A));
    typedef A Piece __attribute__((vector_size(16)));
    const auto at = [&](int64_t q, int64_t l) {
        Piece x;
        memcpy(&x, from + q * stride + l, sizeof(x));
        return x;
    };
    const auto put = [&](int64_t q, int64_t l, Piece x) { memcpy(to + l * kLine + q, &x, sizeof(x)); };
    const int64_t squares = count / kSide * kSide, wide = width / kSide * kSide;
    for (int64_t q = 0; q < squares; q += kSide) {
        for (int64_t l = 0; l < wide; l += kSide) {
            if constexpr (kSide == 4) {
                const Piece a = at(q, l), b = at(q + 1, l), c = at(q + 2, l), d = at(q + 3, l);
                const Piece ab = {a[0], b[0], a[1], b[1]}, cd = {c[0], d[0], c[1], d[1]};
                const Piece ab2 = {a[2], b[2], a[3], b[3]}, cd2 = {c[2], d[2], c[3], d[3]};
                put(q, l, Piece{ab[0], ab[1], cd[0], cd[1]});
                put(q, l + 1, Piece{ab[2], ab[3], cd[2], cd[3]});
                put(q, l + 2, Piece{ab2[0], ab2[1], cd2[0], cd2[1]});
                put(q, l + 3, Piece{ab2[2], ab2[3], cd2[2], cd2[3]});
            } else {
                const Piece a = at(q, l), b = at(q + 1, l);
                put(q, l, Piece{a[0], b[0]});
                put(q, l + 1, Piece{a[1], b[1]});
            }
        }
    }
    for (int64_t l = 0; l < width; ++l) {
        for (int64_t q = l < wide ? squares : 0; q < count; ++q) to[l * kLine + q] = from[q * stride + l];
        for (int64_t q = count; q < whole; ++q) to[l * kLine + q] = 0;
    }
}

}  // namespace rosepo
