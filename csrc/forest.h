// The token forest's work on the CPU: sequences to trees, trees to forward passes. No Python and no torch
// in here; forest_module.cpp binds it.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace rosepo::forest {

// Token ids that the caller keeps alive.
struct Span {
    const int32_t* ids;
    int64_t size;
};

// A prompt and its response: places in a table of spans, where what many sequences share stands once.
struct Sequence {
    int32_t prompt;
    int32_t response;
};

struct Limits {
    int64_t context;     // longest prompt with its response
    int64_t vocabulary;  // ids are below it; 0: not known
    int64_t budget;      // most nodes of a tree; 0: any number
    double square;  // cost of a row of T tokens: T + square * T * T; 0: a group is never cut to save it
    int64_t unit;   // this many consecutive sequences of a group stay in one tree
    bool distinct;  // no two of a unit may be equal
};

// What is wrong with one sequence of one group.
struct Refused : std::runtime_error {
    Refused(int64_t group, int64_t sequence, const std::string& reason)
        : std::runtime_error(reason), group(group), sequence(sequence) {}
    int64_t group;
    int64_t sequence;
};

// Trees one after the other. Tree t has the nodes [nodes[t], nodes[t + 1]), the triples [triples[t],
// triples[t + 1]) and sequences[t] sequences, which it numbers from 0; trees[g] are those of group g.
struct Trees {
    std::vector<int64_t> trees, sequences, nodes = {0}, triples = {0};
    std::vector<int32_t> tokens, target;
    std::vector<int64_t> depth, end, node, sequence;
};

// Group g has the sequences [ends[g - 1], ends[g]). Throws Refused.
Trees build(const std::vector<Span>& spans, const std::vector<Sequence>& sequences,
            const std::vector<int64_t>& ends, const Limits& limits);

// What a batch needs of one tree; all of it the caller's.
struct View {
    int64_t size, triples, sequences;
    const int32_t *tokens, *target;
    const int64_t *depth, *end, *node, *sequence;
};

// Rows of `width` tokens, as rosepo_bench/engine/forest.py describes a Batch; `rows` and what follows grow.
struct Batch {
    int64_t width;
    int64_t *tokens, *depth, *end;
    std::vector<int64_t> rows, row_of_target, target, sequence;
};

// The length of the longest row: the first rows[0] trees share the first, and so on.
int64_t width(const std::vector<View>& trees, const std::vector<int64_t>& rows);

// Fills all of `batch`, the memory of its three arrays [rows, width] included.
void collate(const std::vector<View>& trees, const std::vector<int64_t>& rows, Batch& batch);

// One forward pass: the first rows[0] of `trees` share its first row, and so on.
struct Pass {
    std::vector<int64_t> trees, rows;
};

// Trees of the given lengths in passes of at most `budget` padded tokens that cost little in all. A row of
// T tokens costs T + square * T * T, a pass `fixed` on top. No length may be above the budget.
std::vector<Pass> pack(const std::vector<int64_t>& lengths, int64_t budget, double square, double fixed);

}  // namespace rosepo::forest
