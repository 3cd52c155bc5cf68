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
        nodes_.assign(1, {0, -1, kNone, kNone, kNone});
        branches_.clear();
    }

    // Nodes of the tree, the root not counted.
    int64_t size() const { return static_cast<int64_t>(nodes_.size()) - 1; }

    // The child of `node` along `token`, made where it is absent.
    int32_t step(int32_t node, int32_t token) {
        const int32_t child = nodes_[node].child;
        if (child != kNone) {
            if (nodes_[child].token == token) return child;
            if (nodes_[child].sibling != kNone)
                if (const auto found = branches_.find(edge(node, token)); found != branches_.end())
                    return found->second;
        }
        const auto fresh = static_cast<int32_t>(nodes_.size());
        nodes_.push_back({token, nodes_[node].depth + 1, node, kNone, kNone});
        if (child == kNone) return nodes_[node].child = fresh;
        nodes_[fresh].sibling = nodes_[child].sibling;
        nodes_[child].sibling = fresh;
        branches_.emplace(edge(node, token), fresh);
        return fresh;
    }

    // Appends the nodes in depth-first order, children by their ids, to `out`. place[node] is where each
    // went, counted from the tree's first.
    void write(Trees& out, std::vector<int64_t>& place) {
        const int64_t base = out.nodes.back(), count = size();
        place.assign(nodes_.size(), kNone);
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
            out.tokens.push_back(nodes_[order[at]].token);
            out.depth.push_back(nodes_[order[at]].depth);
            out.end.push_back(at + 1);
        }
        // Backwards a subtree is complete before its parent is met.
        for (int64_t at = count - 1; at >= 0; --at)
            if (const int32_t parent = nodes_[order[at]].parent; parent != kRoot) {
                int64_t& end = out.end[base + place[parent]];
                end = std::max(end, out.end[base + at]);
            }
        out.nodes.push_back(base + count);
    }

  private:
    // `child` is the first that was made, the others hang on it as siblings.
    struct Node {
        int32_t token, depth, parent, child, sibling;
    };

    static uint64_t edge(int32_t node, int32_t token) {
        return static_cast<uint64_t>(node) << 32 | static_cast<uint32_t>(token);
    }

    // The child with the lowest id ends on top.
    void push_children(int32_t node, std::vector<int32_t>& stack) const {
        const auto before = static_cast<int64_t>(stack.size());
        for (int32_t child = nodes_[node].child; child != kNone; child = nodes_[child].sibling)
            stack.push_back(child);
        if (static_cast<int64_t>(stack.size()) > before + 1)
            std::sort(stack.begin() + before, stack.end(),
                      [this](int32_t a, int32_t b) { return nodes_[a].token > nodes_[b].token; });
    }

    std::vector<Node> nodes_;
    std::unordered_map<uint64_t, int32_t, EdgeHash> branches_;
};

}  // namespace rosepo::forest
