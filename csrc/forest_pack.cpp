// Trees into forward passes. Sorted by length, a pass is a run of neighbours; dynamic programming finds
// where the runs end. Either each tree has a row of its own, padded to the longest of its run, or trees
// share rows: more attention, less padding, fewer passes. How evenly shared rows can be filled is only
// known once it was tried, so the search estimates it, tries what it found, and joins neighbours that are
// cheaper together.
#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

#include "forest.h"

namespace rosepo::forest {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

// With more trees than this, of near-equal neighbours, runs are searched with one tree a row alone, in less
// time.
constexpr int64_t kSearched = 512;

// The run [first, stop) of the sorted trees in `rows` rows; as many rows as trees is one tree a row.
struct Run {
    int64_t first, stop, rows;
    double cost;
};

class Packer {
  public:
    Packer(const std::vector<int64_t>& lengths, int64_t budget, double square, double fixed)
        : budget_(budget), square_(square), fixed_(fixed), order_(lengths.size()) {
        std::iota(order_.begin(), order_.end(), 0);
        std::stable_sort(order_.begin(), order_.end(),
                         [&lengths](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
        for (const int64_t tree : order_) {
            length_.push_back(lengths[tree]);
            tokens_.push_back(tokens_.back() + lengths[tree]);
        }
    }

    std::vector<Pass> run() const {
        const int64_t count = static_cast<int64_t>(length_.size());
        std::vector<Run> best = tried(search(0, count, false));
        if (count <= kSearched)
            if (std::vector<Run> other = tried(search(0, count, true)); total(other) < total(best))
                best = std::move(other);
        std::vector<Pass> passes;
        for (const Run& run : best) passes.push_back(pass(run));
        return passes;
    }

  private:
    double cost(int64_t rows, int64_t width) const {
        const double tokens = static_cast<double>(width);
        return fixed_ + static_cast<double>(rows) * (tokens + square_ * tokens * tokens);
    }

    int64_t tokens(int64_t first, int64_t stop) const { return tokens_[stop] - tokens_[first]; }

    static double total(const std::vector<Run>& runs) {
        return std::accumulate(runs.begin(), runs.end(), 0.0,
                               [](double sum, const Run& run) { return sum + run.cost; });
    }

    // The cheapest runs of [from, to), with one tree a row or with rows as if they could be filled evenly.
    std::vector<Run> search(int64_t from, int64_t to, bool shared) const {
        std::vector<Run> last(to + 1);
        std::vector<double> lowest(to + 1, kNever);
        lowest[from] = 0;
        for (int64_t first = from; first < to; ++first)
            for (int64_t stop = first + 1; stop <= to && tokens(first, stop) <= budget_; ++stop) {
                const Run run = shared ? even(first, stop) : separate(first, stop);
                if (lowest[first] + run.cost >= lowest[stop]) continue;
                lowest[stop] = lowest[first] + run.cost;
                last[stop] = run;
            }
        std::vector<Run> runs;
        for (int64_t stop = to; stop > from; stop = last[stop].first) runs.push_back(last[stop]);
        std::reverse(runs.begin(), runs.end());
        return runs;
    }

    Run separate(int64_t first, int64_t stop) const {
        const int64_t rows = stop - first, width = length_[first];
        return {first, stop, rows, rows * width > budget_ ? kNever : cost(rows, width)};
    }

    Run even(int64_t first, int64_t stop) const {
        return cheapest({first, stop, 0, kNever}, [](int64_t, int64_t least) { return least; });
    }

    Run filled(const Run& run) const {
        return cheapest(run, [&](int64_t rows, int64_t) { return fill(run, rows, nullptr); });
    }

    // `best`, or the same trees in another number of rows where that is below its cost. `width_of(rows,
    // least)` is the width of that many rows, `least` what it cannot be below.
    template <typename WidthOf>
    Run cheapest(Run best, WidthOf width_of) const {
        const int64_t sum = tokens(best.first, best.stop), longest = length_[best.first];
        const auto consider = [&](int64_t rows) {
            if (rows < 1 || rows > best.stop - best.first) return;
            const int64_t least = std::max(longest, (sum + rows - 1) / rows);
            if (rows * least > budget_ || cost(rows, least) >= best.cost) return;
            const int64_t width = width_of(rows, least);
            if (rows * width > budget_ || cost(rows, width) >= best.cost) return;
            best.rows = rows, best.cost = cost(rows, width);
        };
        consider(best.stop - best.first);
        // In so many rows the longest tree is as wide as a fair share; fewer rows are wider.
        const int64_t fair = (sum + longest - 1) / longest;
        consider(fair + 1);
        for (int64_t rows = fair; rows >= 1; rows = rows > 4 ? rows * 3 / 4 : rows - 1) consider(rows);
        return best;
    }

    // Runs with their true costs: what cannot be filled as estimated gets one tree a row, neighbours are
    // joined.
    std::vector<Run> tried(const std::vector<Run>& found) const {
        std::vector<Run> runs;
        for (const Run& run : found) {
            const Run whole = filled({run.first, run.stop, 0, kNever});
            if (whole.rows)
                runs.push_back(whole);
            else
                for (const Run& part : search(run.first, run.stop, false)) runs.push_back(filled(part));
        }
        while (join_best(runs)) continue;
        return runs;
    }

    // Joins the two neighbours that save most in one pass; false where none do.
    bool join_best(std::vector<Run>& runs) const {
        double most = 0;
        size_t where = 0;
        Run best{};
        for (size_t r = 0; r + 1 < runs.size(); ++r) {
            const double apart = runs[r].cost + runs[r + 1].cost;
            const Run joined = filled({runs[r].first, runs[r + 1].stop, 0, apart});
            if (apart - joined.cost <= most) continue;
            most = apart - joined.cost, where = r, best = joined;
        }
        if (most == 0) return false;
        runs[where] = best;
        runs.erase(runs.begin() + static_cast<int64_t>(where) + 1);
        return true;
    }

    // Longest first, each tree to the row with the fewest tokens. Returns the width; `rows` of trees go to
    // `out`.
    int64_t fill(const Run& run, int64_t rows, std::vector<std::vector<int64_t>>* out) const {
        using Load = std::pair<int64_t, int64_t>;  // tokens, row
        std::priority_queue<Load, std::vector<Load>, std::greater<Load>> loads;
        for (int64_t row = 0; row < rows; ++row) loads.emplace(0, row);
        int64_t width = 0;
        for (int64_t at = run.first; at < run.stop; ++at) {
            auto [load, row] = loads.top();
            loads.pop();
            load += length_[at];
            width = std::max(width, load);
            loads.emplace(load, row);
            if (out) (*out)[row].push_back(order_[at]);
        }
        return width;
    }

    Pass pass(const Run& run) const {
        std::vector<std::vector<int64_t>> rows(run.rows);
        fill(run, run.rows, &rows);
        Pass made;
        for (const std::vector<int64_t>& row : rows) {
            made.trees.insert(made.trees.end(), row.begin(), row.end());
            made.rows.push_back(static_cast<int64_t>(row.size()));
        }
        return made;
    }

    const int64_t budget_;
    const double square_, fixed_;
    std::vector<int64_t> order_, length_, tokens_ = {0};
};

}  // namespace

std::vector<Pass> pack(const std::vector<int64_t>& lengths, int64_t budget, double square, double fixed) {
    return Packer(lengths, budget, square, fixed).run();
}

}  // namespace rosepo::forest
