// Sequences of token ids to trees in depth-first order, by insertion into a trie: each token is looked at
// once, a prompt that sequences share once for all of them.
#include "forest.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <unordered_set>
#include <utility>

#include "forest_trie.h"

namespace rosepo::forest {
namespace {

class Builder {
  public:
    Builder(const std::vector<Span>& spans, const std::vector<Sequence>& sequences, const Limits& limits)
        : spans_(spans),
          sequences_(sequences),
          limits_(limits),
          bad_(spans.size()),
          prompts_(spans.size()) {
        for (size_t s = 0; s < spans.size(); ++s) bad_[s] = first_bad(spans[s]);
    }

    void add_group(int64_t group, int64_t first, int64_t last) {
        group_ = group, first_ = first;
        if (first == last) throw Refused(group, 0, "it is not there: a group has no sequence");
        for (int64_t s = first; s < last; ++s) check(s);
        if ((last - first) % limits_.unit)
            refuse(last - 1, "the sequences are ", last - first, " and do not go into units of ",
                   limits_.unit);
        const size_t before = out_.sequences.size();
        emit(first, last);
        out_.trees.push_back(static_cast<int64_t>(out_.sequences.size() - before));
    }

    Trees take() { return std::move(out_); }

  private:
    // The trie of the sequences [first, last): as one tree, or cut where the budget or the cost asks for
    // it.
    void emit(int64_t first, int64_t last) {
        grow(first, last);
        const int64_t units = (last - first) / limits_.unit;
        const std::vector<int64_t> cuts = best_cuts(units);
        if (cuts.size() == 2) {
            if (over_budget(trie_.size()))
                refuse(first, "its tree alone has ", trie_.size(), " tokens, a pass takes ", limits_.budget,
                       ": raise batch_tokens (in scoring, scoring.batch_tokens)");
            write(first, last);
            return;
        }
        for (size_t part = 0; part + 1 < cuts.size(); ++part)
            emit(first + cuts[part] * limits_.unit, first + cuts[part + 1] * limits_.unit);
    }

    void grow(int64_t first, int64_t last) {
        trie_.clear();
        path_.clear(), path_end_.clear(), total_.assign(1, 0), shared_.clear();
        ++epoch_;
        for (int64_t s = first; s < last; ++s) {
            const int64_t before = trie_.size();
            insert(sequences_[s]);
            if ((s - first) % limits_.unit == 0)  // what its tree would hold twice if it began another one
                shared_.push_back(inner_size(sequences_[s]) - (trie_.size() - before));
            if ((s - first) % limits_.unit == limits_.unit - 1) total_.push_back(trie_.size());
        }
        if (limits_.distinct) check_distinct(first, last);
    }

    // A last token is a target only: nothing follows it, unless another sequence goes on from there.
    void insert(const Sequence& sequence) {
        const Span &prompt = spans_[sequence.prompt], &response = spans_[sequence.response];
        auto& [epoch, end] = prompts_[sequence.prompt];
        if (epoch != epoch_) {
            end = kRoot;
            for (int64_t i = 0; i < prompt.size; ++i) end = trie_.step(end, prompt.ids[i]);
            epoch = epoch_;
        }
        int32_t node = end;
        path_.push_back(node);
        for (int64_t i = 0; i + 1 < response.size; ++i)
            path_.push_back(node = trie_.step(node, response.ids[i]));
        path_end_.push_back(static_cast<int64_t>(path_.size()));
    }

    void write(int64_t first, int64_t last) {
        trie_.write(out_, place_);
        int64_t at = 0;
        for (int64_t s = first; s < last; ++s) {
            const Span& response = spans_[sequences_[s].response];
            for (int64_t i = 0; i < response.size; ++i, ++at) {
                out_.node.push_back(place_[path_[at]]);
                out_.target.push_back(response.ids[i]);
                out_.sequence.push_back(s - first);
            }
        }
        out_.triples.push_back(static_cast<int64_t>(out_.node.size()));
        out_.sequences.push_back(last - first);
    }

    // The units at which trees begin, and the end. Two trees compute their common prefix twice, one tree
    // pays for the square of both: dynamic programming over where to cut. What later units share with those
    // before the cut alone is not seen here, so that emit looks at each part again.
    std::vector<int64_t> best_cuts(int64_t units) const {
        if (!over_budget(trie_.size()) && limits_.square == 0) return {0, units};
        std::vector<int64_t> begin(units + 1);
        std::vector<double> lowest(units + 1, 0);
        for (int64_t stop = 1; stop <= units; ++stop) {
            lowest[stop] = std::numeric_limits<double>::infinity();
            for (int64_t first = stop - 1; first >= 0; --first) {
                const int64_t size = total_[stop] - total_[first] + shared_[first];
                if (first < stop - 1 && (over_budget(size) || tree_cost(size) > lowest[stop])) break;
                if (const double cost = lowest[first] + tree_cost(size); cost <= lowest[stop])
                    lowest[stop] = cost, begin[stop] = first;
            }
        }
        std::vector<int64_t> cuts = {units};
        while (cuts.back() > 0) cuts.push_back(begin[cuts.back()]);
        std::reverse(cuts.begin(), cuts.end());
        return cuts;
    }

    double tree_cost(int64_t size) const {
        const double tokens = static_cast<double>(size);
        return tokens + limits_.square * tokens * tokens;
    }

    bool over_budget(int64_t size) const { return limits_.budget > 0 && size > limits_.budget; }

    int64_t inner_size(const Sequence& sequence) const {
        return spans_[sequence.prompt].size + spans_[sequence.response].size - 1;
    }

    // Index of the first id that is negative or beyond the vocabulary; the size where there is none.
    int64_t first_bad(const Span& span) const {
        const auto bad = [this](int32_t id) {
            return id < 0 || (limits_.vocabulary > 0 && id >= limits_.vocabulary);
        };
        return std::find_if(span.ids, span.ids + span.size, bad) - span.ids;
    }

    void check(int64_t s) const {
        const Span &prompt = spans_[sequences_[s].prompt], &response = spans_[sequences_[s].response];
        if (prompt.size == 0 || response.size == 0)
            refuse(s, "its ", prompt.size ? "response" : "prompt",
                   " is empty, at least one token is needed");
        check_ids(s, "prompt", sequences_[s].prompt);
        check_ids(s, "response", sequences_[s].response);
        if (prompt.size + response.size > limits_.context)
            refuse(s, "a prompt of ", prompt.size, " tokens with a response of ", response.size,
                   " is longer than the model's context of ", limits_.context,
                   "; shorten prompt.history or raise model.context");
    }

    void check_ids(int64_t s, const char* part, int32_t span) const {
        if (bad_[span] == spans_[span].size) return;
        const int32_t id = spans_[span].ids[bad_[span]];
        if (id < 0) refuse(s, "token ", bad_[span], " of its ", part, " is ", id, ": ids are not negative");
        refuse(s, "token ", bad_[span], " of its ", part, " is ", id, ", the vocabulary ends at ",
               limits_.vocabulary - 1);
    }

    // Two sequences are equal where they end at one node with one target.
    void check_distinct(int64_t first, int64_t last) const {
        std::unordered_set<uint64_t, EdgeHash> seen;
        for (int64_t s = first; s < last; ++s) {
            if ((s - first) % limits_.unit == 0) seen.clear();
            const Span& response = spans_[sequences_[s].response];
            const uint64_t node = static_cast<uint64_t>(path_[path_end_[s - first] - 1]);
            const uint64_t key = node << 32 | static_cast<uint32_t>(response.ids[response.size - 1]);
            if (!seen.insert(key).second)
                refuse(s, "another response that it is compared with has the very same tokens");
        }
    }

    template <typename... Parts>
    [[noreturn]] void refuse(int64_t s, const Parts&... parts) const {
        std::string reason;
        const auto append = [&reason](const auto& part) {
            if constexpr (std::is_arithmetic_v<std::decay_t<decltype(part)>>)
                reason += std::to_string(part);
            else
                reason += part;
        };
        (append(parts), ...);
        throw Refused(group_, s - first_, reason);
    }

    const std::vector<Span>& spans_;
    const std::vector<Sequence>& sequences_;
    const Limits limits_;
    std::vector<int64_t> bad_;
    std::vector<std::pair<int64_t, int32_t>> prompts_;  // where each prompt ends in the trie of that epoch
    int64_t epoch_ = 0, group_ = 0, first_ = 0;
    Trie trie_;
    std::vector<int32_t> path_;                       // nodes that predict, sequence after sequence
    std::vector<int64_t> path_end_, total_, shared_;  // of sequences; nodes after, prefix before each unit
    std::vector<int64_t> place_;
    Trees out_;
};

}  // namespace

Trees build(const std::vector<Span>& spans, const std::vector<Sequence>& sequences,
            const std::vector<int64_t>& ends, const Limits& limits) {
    Builder builder(spans, sequences, limits);
    int64_t first = 0;
    for (size_t group = 0; group < ends.size(); ++group) {
        builder.add_group(static_cast<int64_t>(group), first, ends[group]);
        first = ends[group];
    }
    return builder.take();
}

}  // namespace rosepo::forest
