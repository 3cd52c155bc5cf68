// Trees one after the other, and the positions that predict something, each once.
#include <algorithm>
#include <stdexcept>

#include "forest.h"

namespace rosepo::forest {
namespace {

constexpr int64_t kUnused = -1;

void place(const View& tree, Batch& batch) {
    const auto start = static_cast<int64_t>(batch.tokens.size());
    batch.tokens.insert(batch.tokens.end(), tree.tokens, tree.tokens + tree.size);
    batch.depth.insert(batch.depth.end(), tree.depth, tree.depth + tree.size);
    std::transform(tree.end, tree.end + tree.size, std::back_inserter(batch.end),
                   [start](int64_t end) { return end + start; });
}

}  // namespace

Batch collate(const std::vector<View>& trees) {
    Batch batch;
    std::vector<int64_t> starts;
    for (const View& tree : trees) {
        starts.push_back(static_cast<int64_t>(batch.tokens.size()));
        place(tree, batch);
    }
    std::vector<int64_t> rank(batch.tokens.size(), kUnused);
    for (size_t t = 0; t < trees.size(); ++t)
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
    for (size_t t = 0; t < trees.size(); ++t) {
        for (int64_t i = 0; i < trees[t].triples; ++i) {
            batch.row_of_target.push_back(rank[starts[t] + trees[t].node[i]]);
            batch.target.push_back(trees[t].target[i]);
            batch.sequence.push_back(trees[t].sequence[i] + sequences);
        }
        sequences += trees[t].sequences;
    }
    return batch;
}

}  // namespace rosepo::forest
