// The operator forest_attention: checks, allocation, threads. What is computed is in forest_attention.h.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "forest_attention.h"
#include "isa.h"
#include "scratch.h"
#include "torch_glue.h"

namespace rosepo {
namespace {

using torch::stable::contiguous;
using MaybeTensor = std::optional<Tensor>;

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
    rosepo::refuse("forest_attention", parts...);
}

constexpr int64_t kMostTokens = int64_t(1) << 30;  // kernels count them in 32 bits

struct Arguments {
    Tensor query, key, value, end;
    MaybeTensor depth;
    int64_t window;
    double scaling;
    std::vector<Tree> trees;  // the longest first
};

void check_heads(const char* name, const Tensor& tensor, const Tensor& query) {
    if (tensor.dim() != 3) refuse(name, " has ", tensor.dim(), " dimensions: want [heads, tokens, width]");
    if (tensor.scalar_type() != query.scalar_type()) refuse(name, " differs from query in dtype");
    if (tensor.device() != query.device()) refuse(name, " is on another device than query");
    for (int64_t axis : {1, 2}) {
        if (tensor.size(axis) != query.size(axis))
            refuse(name, " has ", tensor.size(axis), axis == 1 ? " tokens" : " numbers a head",
                   ", query has ", query.size(axis));
    }
}

void check_index(const char* name, const Tensor& tensor, const Tensor& query) {
    if (tensor.dim() != 1) refuse(name, " has ", tensor.dim(), " dimensions: want [tokens]");
    if (tensor.size(0) != query.size(1))
        refuse(name, " has ", tensor.size(0), " tokens, query has ", query.size(1));
    if (tensor.scalar_type() != ScalarType::Long)
        refuse(name, " is ", torch::headeronly::toString(tensor.scalar_type()), ": want int64");
    if (tensor.device() != query.device()) refuse(name, " is on another device than query");
}

// The trees, in their order. Each token must end after it begins and within its parent.
std::vector<Tree> find_trees(const int64_t* end, int64_t tokens) {
    std::vector<Tree> trees;
    std::vector<int64_t> open;  // where the ancestors end
    for (int64_t k = 0; k < tokens; ++k) {
        while (!open.empty() && open.back() <= k) open.pop_back();
        const int64_t most = open.empty() ? tokens : open.back();
        if (end[k] <= k || end[k] > most)
            refuse("end[", k, "] is ", end[k], ": want ", k + 1, " to ", most,
                   open.empty() ? " (the tokens)" : " (the end of its parent)");
        if (open.empty()) trees.push_back({k, end[k]});
        open.push_back(end[k]);
    }
    return trees;
}

// A window counts depths along a path, where they grow.
void check_depth(const int64_t* depth, const int64_t* end, int64_t tokens) {
    std::vector<int64_t> path;
    for (int64_t k = 0; k < tokens; ++k) {
        while (!path.empty() && end[path.back()] <= k) path.pop_back();
        const int64_t least = path.empty() ? 0 : depth[path.back()] + 1;
        if (depth[k] < least || depth[k] > kMostTokens)
            refuse("depth[", k, "] is ", depth[k], ": want ", least, " to ", kMostTokens,
                   ", more than that of its parent");
        path.push_back(k);
    }
}

Tensor with_contiguous_rows(const Tensor& tensor) {
    return tensor.stride(2) == 1 || tensor.size(2) == 1 ? tensor : contiguous(tensor);
}

Arguments check(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& end,
                const MaybeTensor& depth, int64_t window, double scaling) {
    const ScalarType dtype = query.scalar_type();
    if (dtype != ScalarType::Float && dtype != ScalarType::Double && dtype != ScalarType::BFloat16 &&
        dtype != ScalarType::Half)
        refuse("query is ", torch::headeronly::toString(dtype),
               ": want float32, float64, bfloat16 or float16");
    if (query.dim() != 3) refuse("query has ", query.dim(), " dimensions: want [heads, tokens, width]");
    check_heads("key", key, query);
    check_heads("value", value, query);
    if (key.size(0) != value.size(0)) refuse("value has ", value.size(0), " heads, key has ", key.size(0));
    if (key.size(0) < 1 || query.size(0) % key.size(0) || query.size(0) < 1)
        refuse("query has ", query.size(0), " heads: want a multiple of key's, ", key.size(0));
    if (query.size(2) < 1) refuse("query has heads of width 0: want 1 or more");
    const int64_t tokens = query.size(1);
    if (tokens > kMostTokens) refuse("query has ", tokens, " tokens: want at most ", kMostTokens);
    check_index("end", end, query);
    if (depth) check_index("depth", *depth, query);
    if (window < 0) refuse("window is ", window, ": want 0 for none, or 1 and more");
    if (window > 0 && !depth) refuse("window is ", window, ", which counts in depths: give depth");
    if (!std::isfinite(scaling)) refuse("scaling is ", scaling, ": want a finite number");
    Arguments a = {with_contiguous_rows(query),
                   with_contiguous_rows(key),
                   with_contiguous_rows(value),
                   contiguous(end),
                   std::nullopt,
                   std::min(window, kMostTokens + 1),
                   scaling,
                   {}};
    a.trees = find_trees(read<int64_t>(a.end), tokens);
    if (window > 0) {
        a.depth = contiguous(*depth);
        check_depth(read<int64_t>(*a.depth), read<int64_t>(a.end), tokens);
    }
    // Those that take longest first, so that no thread is left alone with one.
    std::stable_sort(a.trees.begin(), a.trees.end(),
                     [](Tree x, Tree y) { return x.end - x.begin > y.end - y.begin; });
    return a;
}

template <typename S>
Heads<S> heads(const Tensor& tensor) {
    return {read<S>(tensor), tensor.stride(0), tensor.stride(1)};
}

template <typename S>
ForestAttention<S> pointers(const Arguments& a) {
    const int64_t longest = a.trees.empty() ? 0 : a.trees[0].end - a.trees[0].begin;
    const int64_t* depth = a.depth ? read<int64_t>(*a.depth) : nullptr;
    return {{read<int64_t>(a.end), depth, a.window, longest, a.query.size(2), compute_t<S>(a.scaling)},
            heads<S>(a.query),
            heads<S>(a.key),
            heads<S>(a.value),
            a.query.size(1),
            a.query.size(0),
            a.key.size(0)};
}

// body(tree, key head, workspace) for all of them, each thread taking the next as it is done with one.
template <typename S, typename Body>
void for_all(const Arguments& a, const ForestAttention<S>& op, bool backward, const Body& body) {
    selected_isa();  // throws what it has to say here, not in a worker
    const int64_t tasks = int64_t(a.trees.size()) * op.groups;
    const int64_t workers = std::min<int64_t>(tasks, torch::stable::get_num_threads());
    if (workers == 0) return;
    const int64_t bytes =
        (workspace<S>(0, op.forest.longest, op.forest.width, backward).bytes + 4095) / 4096 * 4096;
    const Scratch scratch(workers * bytes);
    std::atomic<int64_t> next{0};
    torch::stable::parallel_for(0, workers, 1, [&](int64_t worker, int64_t) {
        for (int64_t task; (task = next++) < tasks;) {
            body(a.trees[task / op.groups], task % op.groups,
                 static_cast<char*>(scratch.data()) + worker * bytes);
        }
    });
}

ScalarType wide(const Tensor& tensor) {
    return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// [heads, tokens, width] over memory [tokens, heads, width].
Tensor like(const Tensor& tensor) {
    return torch::stable::transpose(empty(tensor, {tensor.size(1), tensor.size(0), tensor.size(2)}), 0, 1);
}

std::tuple<Tensor, Tensor> forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                   const Tensor& end, const MaybeTensor& depth, int64_t window,
                                   double scaling) {
    const Arguments a = check(query, key, value, end, depth, window, scaling);
    const Tensor out = like(query), lse = empty(query, {query.size(0), query.size(1)}, wide(query));
    with_type(query.scalar_type(), [&](auto number) {
        using S = decltype(number);
        const ForestForward<S> op = {pointers<S>(a), write<S>(out), write<compute_t<S>>(lse)};
        for_all(a, op, false, [&](Tree tree, int64_t group, void* scratch) {
            ROSEPO_ON_ISA(forest_forward, op, tree, group, scratch);
        });
    });
    return {out, lse};
}

void check_saved(const char* name, const Tensor& tensor, const Tensor& query, ScalarType dtype,
                 int64_t dimensions) {
    bool same =
        tensor.dim() == dimensions && tensor.device() == query.device() && tensor.scalar_type() == dtype;
    for (int64_t axis = 0; same && axis < dimensions; ++axis) same = tensor.size(axis) == query.size(axis);
    if (!same)
        refuse("backward: ", name, " has another shape, dtype or device than the forward pass gives it");
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& query, const Tensor& key,
                                            const Tensor& value, const Tensor& end,
                                            const MaybeTensor& depth, const Tensor& out, const Tensor& lse,
                                            int64_t window, double scaling) {
    const Arguments a = check(query, key, value, end, depth, window, scaling);
    check_saved("grad", grad, query, query.scalar_type(), 3);
    check_saved("out", out, query, query.scalar_type(), 3);
    check_saved("lse", lse, query, wide(query), 2);
    const Tensor grads = with_contiguous_rows(grad), outs = with_contiguous_rows(out),
                 sums = contiguous(lse);
    const Tensor grad_query = like(query), grad_key = like(key), grad_value = like(value);
    with_type(query.scalar_type(), [&](auto number) {
        using S = decltype(number);
        const ForestBackward<S> op = {pointers<S>(a),           heads<S>(outs),       heads<S>(grads),
                                      read<compute_t<S>>(sums), write<S>(grad_query), write<S>(grad_key),
                                      write<S>(grad_value)};
        for_all(a, op, true, [&](Tree tree, int64_t group, void* scratch) {
            ROSEPO_ON_ISA(forest_backward, op, tree, group, scratch);
        });
    });
    return {grad_query, grad_key, grad_value};
}

}  // namespace
}  // namespace rosepo

STABLE_TORCH_LIBRARY_FRAGMENT(rosepo, m) {
    m.def(
        "forest_attention(Tensor query, Tensor key, Tensor value, Tensor end, Tensor? depth, int window, "
        "float "
        "scaling) -> (Tensor out, Tensor lse)");
    m.def(
        "forest_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor end, "
        "Tensor? depth, "
        "Tensor out, Tensor lse, int window, float scaling) -> (Tensor grad_query, Tensor grad_key, Tensor "
        "grad_value)");
}

STABLE_TORCH_LIBRARY_IMPL(rosepo, CPU, m) {
    m.impl("forest_attention", TORCH_BOX(&rosepo::forward));
    m.impl("forest_attention_backward", TORCH_BOX(&rosepo::backward));
}
