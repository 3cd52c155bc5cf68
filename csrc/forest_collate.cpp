// Trees one after the other, and the positions that predict something, each once.
#include <algorithm>
#include <stdexcept>

#include "forest.h"

namespace rosepo::forest {
namespace {

constexpr int64_t kUnused = -1;
constexpr int64_t kMostSequences = int64_t(1) << 40;  // of a tree, so that those of many can be added

// No index may lead outside of its tree, even where Python calls with arrays of its own.
void check(const View& tree) {
    const auto demand = [](bool good, const char* wrong) {
        if (!good) throw std::invalid_argument(wrong);
    };
    demand(tree.sequences >= 0 && tree.sequences <= kMostSequences,
           "a tree has no such number of sequences");
    for (int64_t k = 0; k < tree.size; ++k)
        demand(tree.end[k] > k && tree.end[k] <= tree.size, "a subtree ends outside of its tree");
    for (int64_t i = 0; i < tree.triples; ++i) {
        demand(tree.node[i] >= 0 && tree.node[i] < tree.size,
               "a triple names a node that its tree does not have");
        demand(tree.sequence[i] >= 0 && tree.sequence[i] < tree.sequences,
               "a triple names a sequence that its tree does not have");
    }
}

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
        check(tree);
        starts.push_back(static_cast<int64_t>(batch.tokens.size()));
        place(tree, batch);
    }
    std::vector<int64_t> rank(batch.tokens.size(), kUnused);
    for (size_t t = 0; t < trees.size(); ++t)
        for (int64_t i = 0; i < trees[t].triples; ++i) rank[starts[t] + trees[t].node[i]] = 0;
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
