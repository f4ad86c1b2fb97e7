// BatchNorm where no convolution that reads next sees to it (`norms.cu`, behind which this is pasted). A thread has a
// channel, of which a block has 16.

constexpr int CHANNELS = 16;

extern "C" __global__ void make_line(int channels, int count, NORM_PARAMETERS()) {
    await_launches();
    let_next_begin();
    const Norm norm = OWN_NORM(, channels);
    normalise(norm.line, norm, blockIdx.x * CHANNELS + threadIdx.x, channels, count, true);
}

extern "C" __global__ void make_back(int channels, int count, NORM_PARAMETERS()) {
    await_launches();
    let_next_begin();
    const Norm norm = OWN_NORM(, channels);
    differentiate(norm.back, norm, blockIdx.x * CHANNELS + threadIdx.x, channels, count, true);
}

// The line by the running statistics.
extern "C" __global__ void fix(int channels, NORM_PARAMETERS()) {
    await_launches();
    let_next_begin();
    follow(OWN_NORM(, channels), blockIdx.x * CHANNELS + threadIdx.x, channels);
}

// All sums of an instance, before a step.
extern "C" __global__ void clear(Word *sums, unsigned words) {
    await_launches();
    let_next_begin();
    const unsigned i = blockIdx.x * 256 + threadIdx.x;
    if (i < words) own(sums, words)[i] = 0;
}
