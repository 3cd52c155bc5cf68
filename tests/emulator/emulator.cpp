#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#    include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {
namespace {

constexpr size_t kStack = size_t(1) << 16;
constexpr unsigned kWarp = 32;

enum class State { ready, at_block, at_warp, done };

struct Fiber : Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStack]};
    void* shadow = nullptr;  // what the address sanitizer keeps of a stack that is left
    State state = State::done;
    Site site = {};
    unsigned mask = 0;
    uint64_t given = 0, received[kWarp];

    bool same_site(const Fiber& other) const {
        return site.file == other.site.file && site.line == other.site.line;
    }
};

std::vector<std::unique_ptr<Fiber>> fibers;  // of the block, kept from launch to launch
std::vector<unsigned> ready;
ucontext_t scheduler;
const std::function<void()>* body = nullptr;
std::mt19937_64 generator;
unsigned until_yield = 0, between_yields = 2;  // accesses to memory
std::string message;                           // of the error since the last look
std::string skipped_file;
int skipped_line = 0;

Fiber& own() {
    return *static_cast<Fiber*>(current);
}

void enter(Fiber& fiber) {
    current = &fiber;
#if defined(__SANITIZE_ADDRESS__)
    void* shadow = nullptr;
    __sanitizer_start_switch_fiber(&shadow, fiber.stack.get(), kStack);
#endif
    swapcontext(&scheduler, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(shadow, nullptr, nullptr);
#endif
    current = nullptr;
}

#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack;
size_t scheduler_size;
#endif

void leave(State state) {
    Fiber& fiber = own();
    fiber.state = state;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(state == State::done ? nullptr : &fiber.shadow, scheduler_stack,
                                   scheduler_size);
#endif
    swapcontext(&fiber.context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber.shadow, nullptr, nullptr);
#endif
}

void run_fiber() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
    (*body)();
    leave(State::done);
}

void make_ready(unsigned index) {
    fibers[index]->state = State::ready;
    ready.push_back(index);
}

void start(unsigned index, dim3 block) {
    Fiber& fiber = *fibers[index];
    fiber.index = dim3(index, 0, 0);
    fiber.block = block;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
    make_ready(index);
}

std::string name(Site site) {
    const std::string file = site.file;
    return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line);
}

// Opens the block's barrier when all threads are there, and fails where one will never come.
void try_block(unsigned threads) {
    const Fiber* first = nullptr;
    unsigned waiting = 0, done = 0;
    for (unsigned i = 0; i < threads; ++i) {
        const Fiber& fiber = *fibers[i];
        done += fiber.state == State::done;
        if (fiber.state != State::at_block) continue;
        ++waiting;
        if (first == nullptr) first = &fiber;
        if (!fiber.same_site(*first))
            message = "threads wait at " + name(fiber.site) + " and " + name(first->site);
    }
    if (waiting && done) message = "a thread has ended while others wait at " + name(first->site);
    if (!message.empty() || waiting < threads) return;
    for (unsigned i = 0; i < threads; ++i) make_ready(i);
}

void try_warp(unsigned index, unsigned threads) {
    const Fiber& last = *fibers[index];
    const unsigned base = index / kWarp * kWarp;
    uint64_t given[kWarp] = {};
    for (unsigned lane = 0; lane < kWarp; ++lane) {
        if (!(last.mask >> lane & 1)) continue;
        if (base + lane >= threads) return;
        const Fiber& fiber = *fibers[base + lane];
        if (fiber.state != State::at_warp || fiber.mask != last.mask || !fiber.same_site(last)) return;
        given[lane] = fiber.given;
    }
    for (unsigned lane = 0; lane < kWarp; ++lane) {
        if (!(last.mask >> lane & 1)) continue;
        memcpy(fibers[base + lane]->received, given, sizeof(given));
        make_ready(base + lane);
    }
}

void describe_deadlock(unsigned threads) {
    for (unsigned i = 0; i < threads; ++i) {
        if (fibers[i]->state == State::done) continue;
        message = "deadlock: thread " + std::to_string(i) + " waits for ever at " + name(fibers[i]->site);
        return;
    }
}

bool run_block(dim3 block, unsigned threads) {
    ready.clear();
    for (unsigned i = 0; i < threads; ++i) start(i, block);
    for (unsigned running = threads; running > 0;) {
        if (message.empty() && ready.empty()) describe_deadlock(threads);
        if (!message.empty()) return false;
        std::swap(ready[generator() % ready.size()], ready.back());
        const unsigned index = ready.back();
        ready.pop_back();
        enter(*fibers[index]);
        switch (fibers[index]->state) {
            case State::ready:
                ready.push_back(index);
                break;
            case State::at_warp:
                try_warp(index, threads);
                break;
            case State::done:
                --running;
                [[fallthrough]];
            case State::at_block:
                try_block(threads);
        }
    }
    return message.empty();
}

bool taken_out(Site site) {
    return site.line == skipped_line && name(site) == skipped_file + ":" + std::to_string(skipped_line);
}

}  // namespace

Thread* current = nullptr;
dim3 block_size, grid_size;

void launch(const std::function<void()>& kernel, dim3 blocks, unsigned threads) {
    body = &kernel;
    block_size = dim3(threads);
    grid_size = blocks;
    while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
    std::vector<dim3> order;
    for (unsigned y = 0; y < blocks.y; ++y) {
        for (unsigned x = 0; x < blocks.x; ++x) order.push_back(dim3(x, y, 0));
    }
    std::shuffle(order.begin(), order.end(), generator);
    for (const dim3 block : order) {
        bool finished = false;
        std::thread([&] { finished = run_block(block, threads); }).join();
        if (finished) continue;
        fibers.clear();  // their stacks still hold the frames of threads that never ended
        return;
    }
}

void yield() {
    if (current != nullptr) leave(State::ready);
}

void sync_block(Site site) {
    if (taken_out(site)) return;
    own().site = site;
    leave(State::at_block);
}

bool sync_warp(Site site, unsigned mask, uint64_t value, uint64_t (&all)[32]) {
    if (taken_out(site)) return false;
    Fiber& fiber = own();
    fiber.site = site;
    fiber.mask = mask;
    fiber.given = value;
    leave(State::at_warp);
    memcpy(all, fiber.received, sizeof(all));
    return true;
}

}  // namespace emulator

cudaError_t cudaGetLastError() {
    return emulator::message.empty() ? cudaSuccess : 1;
}

const char* cudaGetErrorString(cudaError_t) {
    static std::string last;
    last.swap(emulator::message);
    emulator::message.clear();
    return last.c_str();
}

// The kernels are compiled as for the thread sanitizer, which calls these at each access to memory: there
// too another thread may come first.
namespace {
void at_access() {
    if (emulator::current == nullptr || emulator::until_yield-- > 0) return;
    emulator::until_yield = unsigned(emulator::generator()) % emulator::between_yields;
    emulator::yield();
}
}  // namespace

extern "C" {
#define EMULATOR_ACCESS(size)                  \
    void __tsan_read##size(void*) {            \
        at_access();                           \
    }                                          \
    void __tsan_write##size(void*) {           \
        at_access();                           \
    }                                          \
    void __tsan_unaligned_read##size(void*) {  \
        at_access();                           \
    }                                          \
    void __tsan_unaligned_write##size(void*) { \
        at_access();                           \
    }
EMULATOR_ACCESS(1)
EMULATOR_ACCESS(2)
EMULATOR_ACCESS(4)
EMULATOR_ACCESS(8)
EMULATOR_ACCESS(16)
void __tsan_read_range(void*, size_t) {
    at_access();
}
void __tsan_write_range(void*, size_t) {
    at_access();
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}

void emulator_seed(uint64_t seed) {
    emulator::generator.seed(seed);
    emulator::until_yield = 0;
    emulator::between_yields =
        2u << 3 * (emulator::generator() % 4);  // few or many, so that all kinds come
}

// Takes the barrier or exchange at a line out of the kernels; "" puts all back.
void emulator_take_out(const char* file, int line) {
    emulator::skipped_file = file;
    emulator::skipped_line = line;
}
}
