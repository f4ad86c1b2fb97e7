// BatchNorm where no convolution that reads next sees to it (`norms.cu`, behind which this is pasted): a block for all
// channels.

constexpr int THREADS = 256;

extern "C" __global__ void make_line(int channels, int count, NORM_PARAMETERS()) {
    await_launches();
    let_next_begin();
    SHARED_MEMORY(double, totals);
    const Norm norm = OWN_NORM(, channels);
    tell_totals(totals, norm, channels, THREADS);
    for (int c = threadIdx.x; c < channels; c += THREADS) normalise(norm.line, totals, norm, c, channels, count, true);
}

extern "C" __global__ void make_back(int channels, int count, NORM_PARAMETERS()) {
    await_launches();
    let_next_begin();
    SHARED_MEMORY(double, totals);
    const Norm norm = OWN_NORM(, channels);
    tell_totals(totals, norm, channels, THREADS);
    for (int c = threadIdx.x; c < channels; c += THREADS) {
        differentiate(norm.back, totals, norm, c, channels, count, true);
    }
}

// The line by the running statistics.
extern "C" __global__ void fix(int channels, NORM_PARAMETERS()) {
    await_launches();
    let_next_begin();
    const Norm norm = OWN_NORM(, channels);
    for (int c = threadIdx.x; c < channels; c += THREADS) follow(norm, c, channels);
}

// All sums of an instance, before a step.
extern "C" __global__ void clear(Word *sums, unsigned words) {
    await_launches();
    let_next_begin();
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i < words) own(sums, words)[i] = 0;
}
