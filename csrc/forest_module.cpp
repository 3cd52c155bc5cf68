// Python's door to the token forest: arrays in, arrays out, no object for a token. The GIL is free
// meanwhile.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "forest.h"

namespace rosepo::forest {
namespace {

namespace py = pybind11;
using Whole = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

// Every array once, however many sequences it stands in.
class Table {
  public:
    int32_t place(py::handle ids, int64_t group, int64_t sequence) {
        const auto [found, fresh] = places_.try_emplace(ids.ptr(), static_cast<int32_t>(spans_.size()));
        if (fresh) add(ids, group, sequence);
        return found->second;
    }

    const std::vector<Span>& spans() const { return spans_; }

  private:
    void add(py::handle ids, int64_t group, int64_t sequence) {
        const char* const wanted = "its token ids are not one row of integers";
        const py::array array = py::array::ensure(ids);  // false for, say, a list within the list
        if (!array) throw Refused(group, sequence, wanted);
        const char kind = array.dtype().kind();
        if (array.ndim() != 1 || (array.size() > 0 && kind != 'i' && kind != 'u'))
            throw Refused(group, sequence, wanted);
        keep_.push_back(py::reinterpret_borrow<py::object>(ids));
        if (py::isinstance<py::array_t<int32_t>>(array) && (array.flags() & py::array::c_style)) {
            keep_.push_back(array);
            spans_.push_back({static_cast<const int32_t*>(array.data()), array.size()});
        } else {
            spans_.push_back(narrowed(Whole(array), group, sequence));
        }
    }

    Span narrowed(const Whole& array, int64_t group, int64_t sequence) {
        std::vector<int32_t>& ids = owned_.emplace_back();
        ids.reserve(array.size());
        for (py::ssize_t i = 0; i < array.size(); ++i) {
            const int64_t id = array.data()[i];
            if (id != static_cast<int32_t>(id))
                throw Refused(group, sequence, "its token id " + std::to_string(id) + " is beyond 32 bits");
            ids.push_back(static_cast<int32_t>(id));
        }
        return {ids.data(), array.size()};
    }

    std::unordered_map<PyObject*, int32_t> places_;
    std::vector<Span> spans_;
    std::vector<py::object> keep_;  // also what places_ knows by its address
    std::deque<std::vector<int32_t>> owned_;
};

// An array that owns the vector's memory.
template <typename T>
py::array_t<T> array_of(std::vector<T>&& values) {
    auto held = std::make_unique<std::vector<T>>(std::move(values));
    const py::capsule owner(held.get(), [](void* memory) { delete static_cast<std::vector<T>*>(memory); });
    const std::vector<T>& kept = *held.release();
    return py::array_t<T>(static_cast<py::ssize_t>(kept.size()), kept.data(), owner);
}

// Raises UserError with the sequence's name before the reason.
[[noreturn]] void refuse(const Refused& refused, const py::function& name) {
    const std::string who = py::str(name(refused.group, refused.sequence));
    py::set_error(py::module_::import("rosepo_bench.base.errors").attr("UserError"),
                  (who + ": " + refused.what()).c_str());
    throw py::error_already_set();
}

void demand(bool good, const char* wanted) {
    if (!good) throw py::value_error(wanted);
}

py::tuple build_trees(const py::iterable& groups, int64_t context, int64_t vocabulary, int64_t budget,
                      double square, int64_t unit, bool distinct, const py::function& name) {
    demand(unit >= 1, "unit must be at least 1");
    demand(std::isfinite(square) && square >= 0, "square must be finite and not negative");
    Table table;
    std::vector<Sequence> sequences;
    std::vector<int64_t> ends;
    Trees made;
    try {
        for (const py::handle group : groups) {
            const auto number = static_cast<int64_t>(ends.size());
            int64_t place = 0;
            for (const py::handle pair : group) {
                const auto both = py::reinterpret_borrow<py::object>(pair).cast<py::tuple>();
                if (both.size() != 2) throw Refused(number, place, "it is not a prompt and a response");
                const int32_t prompt = table.place(both[0], number, place);
                sequences.push_back({prompt, table.place(both[1], number, place)});
                ++place;
            }
            ends.push_back(static_cast<int64_t>(sequences.size()));
        }
        const py::gil_scoped_release free;
        made = build(table.spans(), sequences, ends, {context, vocabulary, budget, square, unit, distinct});
    } catch (const Refused& refused) {
        refuse(refused, name);
    }
    return py::make_tuple(std::move(made.trees), std::move(made.sequences), std::move(made.nodes),
                          std::move(made.triples), array_of(std::move(made.tokens)),
                          array_of(std::move(made.depth)), array_of(std::move(made.end)),
                          array_of(std::move(made.node)), array_of(std::move(made.target)),
                          array_of(std::move(made.sequence)));
}

using Ids = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;

// A tree's arrays, held as long as they are read.
struct Held {
    explicit Held(py::handle tree)
        : tokens(tree.attr("tokens")),
          target(tree.attr("target")),
          depth(tree.attr("depth")),
          end(tree.attr("end")),
          node(tree.attr("node")),
          sequence(tree.attr("sequence")),
          view{tokens.size(), node.size(),   tree.attr("sequences").cast<int64_t>(),
               tokens.data(), target.data(), depth.data(),
               end.data(),    node.data(),   sequence.data()} {
        demand(depth.size() == view.size && end.size() == view.size && target.size() == view.triples &&
                   sequence.size() == view.triples,
               "a tree's arrays differ in length");
    }
    Ids tokens, target;
    Whole depth, end, node, sequence;
    View view;
};

py::tuple collate_trees(const py::sequence& given) {
    std::deque<Held> held;
    std::vector<View> trees;
    for (const py::handle tree : given) trees.push_back(held.emplace_back(tree).view);
    Batch batch;
    {
        const py::gil_scoped_release free;
        batch = collate(trees);
    }
    return py::make_tuple(array_of(std::move(batch.tokens)), array_of(std::move(batch.depth)),
                          array_of(std::move(batch.end)), array_of(std::move(batch.rows)),
                          array_of(std::move(batch.row_of_target)), array_of(std::move(batch.target)),
                          array_of(std::move(batch.sequence)));
}

}  // namespace
}  // namespace rosepo::forest

PYBIND11_MODULE(_forest, module) {
    namespace py = pybind11;
    using namespace rosepo::forest;
    module.def("build", build_trees, py::arg("groups"), py::kw_only(), py::arg("context"),
               py::arg("vocabulary"), py::arg("budget"), py::arg("square"), py::arg("unit"),
               py::arg("distinct"), py::arg("name"));
    module.def("collate", collate_trees, py::arg("trees"));
}
