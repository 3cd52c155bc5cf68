#include "scratch.h"

#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <new>
#if defined(__SANITIZE_ADDRESS__)
#    include <sanitizer/asan_interface.h>
#endif

namespace rosepo {
namespace {

constexpr int64_t kPage =
    int64_t(2) << 20;  // a huge page: one entry of the translation buffer in place of 512

std::mutex mutex;
void* kept = nullptr;  // never freed at exit: other threads may still run
int64_t kept_bytes = 0;

void* allocate(int64_t bytes) {
    void* data = std::aligned_alloc(kPage, bytes);
    if (data == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    madvise(data, bytes, MADV_HUGEPAGE);  // a wish: where it is refused, small pages do
#endif
    return data;
}

}  // namespace

Scratch::Scratch(int64_t bytes) : bytes_((bytes / kPage + 1) * kPage) {
    {
        const std::lock_guard lock(mutex);
        data_ = kept_bytes >= bytes_ ? kept : nullptr;
        if (data_ != nullptr) {
            bytes_ = kept_bytes;
            kept = nullptr;
            kept_bytes = 0;
        }
    }
    if (data_ == nullptr) data_ = allocate(bytes_);
#if defined(__SANITIZE_ADDRESS__)  // what was not asked for is out of bounds
    ASAN_UNPOISON_MEMORY_REGION(data_, bytes_);
    ASAN_POISON_MEMORY_REGION(static_cast<char*>(data_) + bytes, bytes_ - bytes);
#endif
}

Scratch::~Scratch() {
    void* surplus = data_;
    if (bytes_ <= kKeptBytes + kPage) {
        const std::lock_guard lock(mutex);
        if (bytes_ > kept_bytes) {
            surplus = kept;
            kept = data_;
            kept_bytes = bytes_;
        }
    }
    std::free(surplus);
}

}  // namespace rosepo
