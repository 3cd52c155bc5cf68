// Trees side by side in rows, and the positions that predict something, each once.
#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "forest.h"

namespace rosepo::forest {
namespace {

constexpr int64_t kUnused = -1;

// Padding sees itself alone and predicts nothing.
void pad(Batch& batch, int64_t first, int64_t last) {
    for (int64_t at = first; at < last; ++at) {
        batch.tokens[at] = batch.depth[at] = 0;
        batch.end[at] = at % batch.width + 1;
    }
}

void place(const View& tree, int64_t at, Batch& batch) {
    const int64_t column = at % batch.width;
    std::copy(tree.tokens, tree.tokens + tree.size, batch.tokens + at);
    std::copy(tree.depth, tree.depth + tree.size, batch.depth + at);
    std::transform(tree.end, tree.end + tree.size, batch.end + at,
                   [column](int64_t end) { return end + column; });
}

}  // namespace

int64_t width(const std::vector<View>& trees, const std::vector<int64_t>& rows) {
    const bool empty = std::any_of(rows.begin(), rows.end(), [](int64_t count) { return count < 1; });
    if (empty ||
        std::accumulate(rows.begin(), rows.end(), int64_t{0}) != static_cast<int64_t>(trees.size()))
        throw std::invalid_argument("rows do not hold each tree once");
    int64_t longest = 0;
    size_t t = 0;
    for (const int64_t count : rows) {
        int64_t tokens = 0;
        for (int64_t k = 0; k < count; ++k) tokens += trees[t++].size;
        longest = std::max(longest, tokens);
    }
    return longest;
}

void collate(const std::vector<View>& trees, const std::vector<int64_t>& rows, Batch& batch) {
    std::vector<int64_t> starts;
    int64_t row = 0;
    size_t t = 0;
    for (const int64_t count : rows) {
        int64_t at = row++ * batch.width;
        for (int64_t k = 0; k < count; ++k) {
            place(trees[t], at, batch);
            starts.push_back(at);
            at += trees[t++].size;
        }
        pad(batch, at, row * batch.width);
    }
    std::vector<int64_t> rank(row * batch.width, kUnused);
    for (t = 0; t < trees.size(); ++t)
        for (int64_t i = 0; i < trees[t].triples; ++i) {
            if (trees[t].node[i] < 0 || trees[t].node[i] >= trees[t].size)
                throw std::invalid_argument("a triple names a node that its tree does not have");
            rank[starts[t] + trees[t].node[i]] = 0;
        }
    for (size_t at = 0; at < rank.size(); ++at)
        if (rank[at] != kUnused) {
            rank[at] = static_cast<int64_t>(batch.rows.size());
            batch.rows.push_back(static_cast<int64_t>(at));
        }
    int64_t sequences = 0;
    for (t = 0; t < trees.size(); ++t) {
        for (int64_t i = 0; i < trees[t].triples; ++i) {
            batch.row_of_target.push_back(rank[starts[t] + trees[t].node[i]]);
            batch.target.push_back(trees[t].target[i]);
            batch.sequence.push_back(trees[t].sequence[i] + sequences);
        }
        sequences += trees[t].sequences;
    }
}

}  // namespace rosepo::forest
