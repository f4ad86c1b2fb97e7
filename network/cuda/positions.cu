// The gradient of a few weights of each filter: for each the sum over all pixels of what was read, shifted to the
// weight's tap, times the gradient of what was written. Lanes are filters, so that the gradient is read in whole
// lines; a block has 16 filters, up to 4 of their weights, and every `gridDim.x`-th group of pixels. The blocks' sums
// are added by `total`. Constants: FILTER, STRIDE, KIND (of what was read), BACK (of the gradient), HEIGHT, WIDTH
// (of what was written).

constexpr int PAD = FILTER / 2, TAPS = FILTER * FILTER, LANES = 16, PIXELS = 16, THREADS = LANES * PIXELS, MOST = 4;
constexpr int IN_H = HEIGHT * STRIDE, IN_W = WIDTH * STRIDE;

// `at[filter][each]` are flat indices into K C R S; `partial[split]` gets sums in the same order.
extern "C" __global__ void __launch_bounds__(THREADS)
    positions(const void *first, const void *second, const float *third, const float *fourth, const Stored *g,
              const Stored *z, const float *abc, const float *line, const unsigned *at, int each, float *partial,
              unsigned partials, int count, int images, int channels, int outputs) {
    SHARED_MEMORY(float, memory);
    const Read m = own_read<KIND>(first, second, third, fourth, channels, images, IN_H, IN_W);
    const Read back = own_read<BACK>(g, z, abc, line, outputs, images, HEIGHT, WIDTH);
    const int rounds = (each + MOST - 1) / MOST, begin = blockIdx.y % rounds * MOST;
    const int lane = threadIdx.x % LANES, own_pixel = threadIdx.x / LANES;
    const int k = blockIdx.y / rounds * LANES + lane, live = min(MOST, each - begin);
    at = own(at, size_t(outputs) * each) + size_t(k) * each + begin;

    int c[MOST], r[MOST], s[MOST];
    float sums[MOST] = {};
    for (int i = 0; i < MOST; i++) {
        const unsigned inside = i < live ? at[i] % (channels * TAPS) : 0;
        c[i] = inside / TAPS, r[i] = inside % TAPS / FILTER - PAD, s[i] = inside % FILTER - PAD;
    }
    const int pixels = count * HEIGHT * WIDTH;
    for (int p = blockIdx.x * PIXELS + own_pixel; p < pixels; p += gridDim.x * PIXELS) {
        const int n = p / (HEIGHT * WIDTH), py = p / WIDTH % HEIGHT, px = p % WIDTH;
        const float d = part(read<BACK>(back, n, py, px, HEIGHT, WIDTH, k / 4 * 4), k % 4);
        for (int i = 0; i < live; i++) {
            const int y = py * STRIDE + r[i], x = px * STRIDE + s[i];
            if (y < 0 || y >= IN_H || x < 0 || x >= IN_W) continue;
            sums[i] = fmaf(part(read<KIND>(m, n, y, x, IN_H, IN_W, c[i] / 4 * 4), c[i] % 4), d, sums[i]);
        }
    }
    for (int i = 0; i < MOST; i++) memory[i * THREADS + threadIdx.x] = sums[i];
    __syncthreads();
    if (own_pixel > 0) return;
    partial = own(partial, partials) + size_t(blockIdx.x) * outputs * each + size_t(k) * each + begin;
    for (int i = 0; i < live; i++) {
        float sum = 0.f;
        for (int p = 0; p < PIXELS; p++) sum += memory[i * THREADS + p * LANES + lane];
        partial[i] = sum;
    }
}
