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
    double square;  // cost of a tree of T tokens: T + square * T * T; 0: a group is never cut to save it
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

// Trees one after the other, as rosepo_bench/engine/forest/trees.py describes a Batch.
struct Batch {
    std::vector<int64_t> tokens, depth, end, rows, row_of_target, target, sequence;
};

Batch collate(const std::vector<View>& trees);

}  // namespace rosepo::forest
