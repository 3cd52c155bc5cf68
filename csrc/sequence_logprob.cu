#include "launch.h"
#include "sequence_logprob.cuh"
#include "sequence_logprob_rows.cuh"

namespace rosepo {
namespace {

constexpr int kPacksAThread =
    8;  // of a row: enough for wide loads in flight, and few idle threads in short rows

template <typename S>
int row_threads(int64_t elements) {
    const int64_t packs = elements / kWide<S>;
    int threads = kWarp;
    while (threads < kRowThreads<S> && int64_t(threads) * kPacksAThread < packs) threads *= 2;
    return threads;
}

// As many threads as `packs` have use for, in whole warps.
int threads_for(int64_t packs) {
    return int(std::min<int64_t>((packs + kWarp - 1) / kWarp * kWarp, kThreads));
}

template <typename S, int kCount>
void launch_row_gradients(const RowGradients<S>& op, int64_t rows, void* stream) {
    const auto kernel = row_gradients_kernel<S, kCount>;
    ROSEPO_LAUNCH(kernel, blocks_for(rows, 1), threads_for(op.width / kCount), stream, op, rows);
}

template <typename S, int kCount>
void launch_add_to_weight(const AddToWeight<S>& op, int64_t triples, void* stream) {
    const auto kernel = add_to_weight_kernel<S, kCount>;
    const int threads = threads_for(op.width / kCount);
    const dim3 blocks(blocks_for(triples, 1), blocks_for(op.width / kCount, threads));
    ROSEPO_LAUNCH(kernel, blocks, threads, stream, op, triples);
}

}  // namespace

template <typename A>
const char* prepare_triples_cuda(const PrepareTriples<A>& op, int64_t triples, DeviceFlag* flag,
                                 void* stream) {
    if (triples == 0) return nullptr;
    const auto kernel = triples_kernel<A>;
    ROSEPO_LAUNCH(kernel, blocks_for(triples, kThreads), kThreads, stream, op, triples, flag);
    return launch_error();
}

const char* segment_starts_cuda(const int64_t* sorted, int64_t triples, int64_t segments, int64_t* begin,
                                void* stream) {
    const auto kernel = starts_kernel;
    ROSEPO_LAUNCH(kernel, blocks_for(segments + 1, kThreads), kThreads, stream, sorted, triples, segments,
                  begin);
    return launch_error();
}

template <typename S>
const char* target_logits_cuda(const TargetLogits<S>& op, int64_t triples, void* stream) {
    if (triples == 0) return nullptr;
    const bool wide_rows = wide<S>(op.width, op.hidden, op.weight);
    const auto kernel = wide_rows ? target_logits_kernel<S, kWide<S>> : target_logits_kernel<S, 1>;
    ROSEPO_LAUNCH(kernel, blocks_for(triples, kThreads / kWarp), kThreads, stream, op, triples);
    return launch_error();
}

template <typename S>
const char* rows_cuda(const Rows<S>& op, int64_t count, DeviceFlag* flag, void* stream) {
    if (count == 0) return nullptr;
    if (count > INT32_MAX) return "a chunk has more than 2^31 - 1 rows";
    const auto kernel = op.cap == 0 ? rows_kernel<S, false> : rows_kernel<S, true>;
    ROSEPO_LAUNCH(kernel, unsigned(count), row_threads<S>(op.vocabulary), stream, op, flag);
    return launch_error();
}

template <typename S>
const char* columns_cuda(const Columns<S>& op, int64_t rows, void* stream) {
    if (rows == 0) return nullptr;
    const auto kernel = op.cap == 0 ? columns_kernel<S, false> : columns_kernel<S, true>;
    ROSEPO_LAUNCH(kernel, blocks_for(rows, 1), row_threads<S>(op.columns), stream, op, rows);
    return launch_error();
}

template <typename A>
const char* sequence_sums_cuda(const int64_t* begin, const int64_t* order, const A* logp, int64_t sequences,
                               A* out, void* stream) {
    if (sequences == 0) return nullptr;
    const auto kernel = sums_kernel<A>;
    ROSEPO_LAUNCH(kernel, blocks_for(sequences, kThreads / kWarp), kThreads, stream, begin, order, logp,
                  sequences, out);
    return launch_error();
}

template <typename S>
const char* row_gradients_cuda(const RowGradients<S>& op, int64_t rows, void* stream) {
    if (rows == 0) return nullptr;
    if (wide<S>(op.width, op.hidden, op.weight, op.u, op.grad_hidden, op.scaled_hidden)) {
        launch_row_gradients<S, kWide<S>>(op, rows, stream);
    } else {
        launch_row_gradients<S, 1>(op, rows, stream);
    }
    return launch_error();
}

template <typename S>
const char* add_to_weight_cuda(const AddToWeight<S>& op, int64_t triples, void* stream) {
    if (triples == 0) return nullptr;
    if (wide<S>(op.width, op.hidden, op.grad_weight)) {
        launch_add_to_weight<S, kWide<S>>(op, triples, stream);
    } else {
        launch_add_to_weight<S, 1>(op, triples, stream);
    }
    return launch_error();
}

#define ROSEPO_FOR_SUM(A)                                                                             \
    template const char* prepare_triples_cuda(const PrepareTriples<A>&, int64_t, DeviceFlag*, void*); \
    template const char* sequence_sums_cuda(const int64_t*, const int64_t*, const A*, int64_t, A*, void*);
ROSEPO_FOR_SUM(float)
ROSEPO_FOR_SUM(double)

#define ROSEPO_FOR_NUMBER(S)                                                         \
    template const char* rows_cuda(const Rows<S>&, int64_t, DeviceFlag*, void*);     \
    template const char* columns_cuda(const Columns<S>&, int64_t, void*);            \
    template const char* row_gradients_cuda(const RowGradients<S>&, int64_t, void*); \
    template const char* add_to_weight_cuda(const AddToWeight<S>&, int64_t, void*);
ROSEPO_FOR_NUMBER(float)
ROSEPO_FOR_NUMBER(double)
ROSEPO_FOR_NUMBER(BFloat16)
ROSEPO_FOR_NUMBER(Half)

#define ROSEPO_FOR_HALF(S) template const char* target_logits_cuda(const TargetLogits<S>&, int64_t, void*);
ROSEPO_FOR_HALF(BFloat16)
ROSEPO_FOR_HALF(Half)

}  // namespace rosepo
