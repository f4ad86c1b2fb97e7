// BatchNorm where no convolution's last block sees to it (`norms.cu`, behind which this is pasted). A block has 16
// channels.

constexpr int CHANNELS = 16, THREADS = 256;

// The line by the running statistics.
extern "C" __global__ void fix(int channels, NORM_PARAMETERS()) {
    follow(OWN_NORM(, channels), blockIdx.x * CHANNELS + threadIdx.x, channels);
}

// The gradient behind the last map, from sums of g and g z.
extern "C" __global__ void __launch_bounds__(THREADS)
    back(const float *partial, unsigned partials, int tiles, int channels, int count, int which, NORM_PARAMETERS()) {
    SHARED_MEMORY(double, memory);
    const int first = blockIdx.x * CHANNELS, c = threadIdx.x;
    const Norm norm = OWN_NORM(, channels);
    const Held held = hold(norm, first + c % CHANNELS, channels, false);
    const double *sums = add_up<CHANNELS, THREADS, 3>(memory, own(partial, partials), tiles, channels, first);
    if (c >= CHANNELS) return;
    differentiate(norm, held, first + c, channels, count, sums[c], sums[which * CHANNELS + c]);
}
