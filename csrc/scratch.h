// The CPU's scratch: one buffer kept between calls, since fresh pages cost as much as the work done in
// them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rosepo {

class Scratch {
  public:
    // `bytes` of memory for the life of this object: the kept buffer, grown where it must be, or, while
    // another call holds that, or where more than kKeptBytes are asked for, a buffer of its own.
    explicit Scratch(int64_t bytes);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    void* data() const { return data_; }

    static constexpr int64_t kKeptBytes = int64_t(64) << 20;

  private:
    void* data_;
    int64_t bytes_;
};

}  // namespace rosepo
