// The trie that sequences are put into, and its nodes in depth-first order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "forest.h"

namespace rosepo::forest {

inline constexpr int32_t kRoot = 0;  // stands before every first token and is no node of the tree
inline constexpr int32_t kNone = -1;

struct EdgeHash {
    size_t operator()(uint64_t edge) const {
        edge = (edge ^ (edge >> 31)) * 0x9e3779b97f4a7c15u;
        return edge ^ (edge >> 32);
    }
};

// Nodes in the order of their creation. A node's only child is found without a table; the hash table holds
// the further children of nodes that branch.
class Trie {
  public:
    Trie() { clear(); }

    void clear() {
        token_.assign(1, 0), depth_.assign(1, -1), parent_.assign(1, kNone);
        child_.assign(1, kNone), sibling_.assign(1, kNone);
        branches_.clear();
    }

    // Nodes of the tree, the root not counted.
    int64_t size() const { return static_cast<int64_t>(token_.size()) - 1; }

    // The child of `node` along `token`, made where it is absent.
    int32_t step(int32_t node, int32_t token) {
        const int32_t child = child_[node];
        if (child == kNone) return child_[node] = add(node, token);
        if (token_[child] == token) return child;
        if (sibling_[child] != kNone)
            if (const auto found = branches_.find(edge(node, token)); found != branches_.end())
                return found->second;
        const int32_t fresh = add(node, token);
        sibling_[fresh] = sibling_[child];
        sibling_[child] = fresh;
        branches_.emplace(edge(node, token), fresh);
        return fresh;
    }

    // Appends the nodes in depth-first order, children by their ids, to `out`. place[node] is where each
    // went, counted from the tree's first.
    void write(Trees& out, std::vector<int64_t>& place) {
        const int64_t base = out.nodes.back(), count = size();
        place.assign(token_.size(), kNone);
        std::vector<int32_t> order, stack;
        order.reserve(count);
        push_children(kRoot, stack);
        while (!stack.empty()) {
            const int32_t node = stack.back();
            stack.pop_back();
            place[node] = static_cast<int64_t>(order.size());
            order.push_back(node);
            push_children(node, stack);
        }
        for (int64_t at = 0; at < count; ++at) {
            out.tokens.push_back(token_[order[at]]);
            out.depth.push_back(depth_[order[at]]);
            out.end.push_back(at + 1);
        }
        // Backwards a subtree is complete before its parent is met.
        for (int64_t at = count - 1; at >= 0; --at)
            if (const int32_t parent = parent_[order[at]]; parent != kRoot) {
                int64_t& end = out.end[base + place[parent]];
                end = std::max(end, out.end[base + at]);
            }
        out.nodes.push_back(base + count);
    }

  private:
    static uint64_t edge(int32_t node, int32_t token) {
        return static_cast<uint64_t>(node) << 32 | static_cast<uint32_t>(token);
    }

    int32_t add(int32_t parent, int32_t token) {
        token_.push_back(token), depth_.push_back(depth_[parent] + 1), parent_.push_back(parent);
        child_.push_back(kNone), sibling_.push_back(kNone);
        return static_cast<int32_t>(token_.size()) - 1;
    }

    // The child with the lowest id ends on top.
    void push_children(int32_t node, std::vector<int32_t>& stack) const {
        const size_t before = stack.size();
        for (int32_t child = child_[node]; child != kNone; child = sibling_[child]) stack.push_back(child);
        if (stack.size() > before + 1)
            std::sort(stack.begin() + static_cast<int64_t>(before), stack.end(),
                      [this](int32_t a, int32_t b) { return token_[a] > token_[b]; });
    }

    std::vector<int32_t> token_, depth_, parent_, child_, sibling_;
    std::unordered_map<uint64_t, int32_t, EdgeHash> branches_;
};

}  // namespace rosepo::forest
