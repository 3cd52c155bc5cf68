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

// The elements i of a and b together, in that order.
#if defined(__clang__)
#    define ROSEPO_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#    define ROSEPO_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype(a == b){__VA_ARGS__})
#endif

// A square of vectors of 16 bytes, transposed.
typedef float Piece4 __attribute__((vector_size(16)));
typedef double Piece2 __attribute__((vector_size(16)));
ROSEPO_INLINE void transpose(Piece4 (&x)[4]) {
    const Piece4 a = ROSEPO_SHUFFLE(x[0], x[1], 0, 4, 1, 5), b = ROSEPO_SHUFFLE(x[2], x[3], 0, 4, 1, 5);
    const Piece4 c = ROSEPO_SHUFFLE(x[0], x[1], 2, 6, 3, 7), d = ROSEPO_SHUFFLE(x[2], x[3], 2, 6, 3, 7);
    x[0] = ROSEPO_SHUFFLE(a, b, 0, 1, 4, 5);
    x[1] = ROSEPO_SHUFFLE(a, b, 2, 3, 6, 7);
    x[2] = ROSEPO_SHUFFLE(c, d, 0, 1, 4, 5);
    x[3] = ROSEPO_SHUFFLE(c, d, 2, 3, 6, 7);
}
ROSEPO_INLINE void transpose(Piece2 (&x)[2]) {
    const Piece2 a = x[0];
    x[0] = ROSEPO_SHUFFLE(a, x[1], 0, 2);
    x[1] = ROSEPO_SHUFFLE(a, x[1], 1, 3);
}

// to[l][q] = from[q][l], l < width, for `count` queries in each line of `to`; from there on it is 0, up to
// `whole`.
template <int64_t kLine, typename A>
ROSEPO_INLINE void transpose(const A* from, int64_t stride, int64_t count, int64_t whole, int64_t width,
                             A* to) {
    constexpr int kSide = 16 / int(sizeof(A));
    std::conditional_t<sizeof(A) == 4, Piece4, Piece2> x[kSide];
    const int64_t squares = count / kSide * kSide, wide = width / kSide * kSide;
    for (int64_t q = 0; q < squares; q += kSide) {
        for (int64_t l = 0; l < wide; l += kSide) {
            unroll<kSide>([&](auto i) { memcpy(&x[i], from + (q + i) * stride + l, 16); });
            transpose(x);
            unroll<kSide>([&](auto i) { memcpy(to + (l + i) * kLine + q, &x[i], 16); });
        }
    }
    for (int64_t l = 0; l < width; ++l) {
        for (int64_t q = l < wide ? squares : 0; q < count; ++q) to[l * kLine + q] = from[q * stride + l];
        for (int64_t q = count; q < whole; ++q) to[l * kLine + q] = 0;
    }
}

}  // namespace rosepo
