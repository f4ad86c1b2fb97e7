// The gradient of a few weights of each filter: for each the sum over all pixels of what was read, shifted to the
// weight's tap, times the gradient of what was written. Pasted behind `filter_tiles.cu`.
//
// Both tiles lie in shared memory, where a thread gathers what its HELD weights meet; SLOTS threads have different
// weights, and those of a slot take turns by rows. Of many channels CB come at a time, and each weight meets its own.
// Constants: those of `filter_tiles.cu`; HELD.

constexpr int THREADS = 256, SLOTS = 2 * KB, TURNS = THREADS / SLOTS;

// `at[filter][each]` are flat indices into K C R S; `partial[split]` gets sums in the same order.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
    positions(const void *first, const void *second, const float *third, const float *fourth, const Stored *g,
              const Stored *z, const float *abc, const float *line, const unsigned *at, int each, float *partial,
              unsigned partials, int count, int images, int channels, int outputs) {
    SHARED_MEMORY(float, memory);
    float *x_tile = memory, *g_tile = memory + READ_PIXELS * CB;
    const Read m = own_read<KIND>(first, second, third, fourth, channels, images, IN_H, IN_W);
    const Read back = own_read<BACK>(g, z, abc, line, outputs, images, HEIGHT, WIDTH);
    const int rounds = (KB * each + SLOTS * HELD - 1) / (SLOTS * HELD), k = blockIdx.y / rounds * KB;
    const int slot = threadIdx.x % SLOTS, turn = threadIdx.x / SLOTS;
    const int begin = blockIdx.y % rounds * SLOTS * HELD + slot; // of this block's weights
    at = own(at, size_t(outputs) * each) + size_t(k) * each;

    int c[HELD], to_x[HELD], to_g[HELD]; // its channel, and where its first pixels lie
    float sums[HELD] = {};
#pragma unroll
    for (int i = 0; i < HELD; i++) {
        const int weight = begin + i * SLOTS;
        const bool live = weight < KB * each;
        const unsigned inside = live ? at[weight] % (channels * TAPS) : 0;
        c[i] = live ? inside / TAPS : -1; // met by no tile
        to_x[i] = (inside % TAPS / FILTER * TILE_W + inside % FILTER) * CB + c[i] % CB;
        to_g[i] = weight / each;
    }
    const int tiles = (count + IMAGES - 1) / IMAGES * TILES_Y;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int image = tile / TILES_Y * IMAGES, top = tile % TILES_Y * ROWS;
        const auto put_x = [&](int pixel, int q, float4 v) { store(x_tile + pixel * CB + q, v); };
        const auto put_g = [&](int pixel, int q, float4 v) { store(g_tile + pixel * KB + q, v); };
        load_back<THREADS>(put_g, back, image, count, top, k);
        for (int chunk = 0; chunk * CB < channels; chunk++) {
            load_read<THREADS>(put_x, m, image, count, top, chunk * CB);
            __syncthreads();
#pragma unroll
            for (int i = 0; i < HELD; i++) {
                if (c[i] < chunk * CB || c[i] >= (chunk + 1) * CB) continue;
                for (int row = turn; row < IMAGES * ROWS; row += TURNS) {
                    const float *x = x_tile + (row / ROWS * TILE_H + row % ROWS * STEP) * TILE_W * CB + to_x[i];
                    const float *d = g_tile + row * WIDTH * KB + to_g[i];
#pragma unroll
                    for (int p = 0; p < WIDTH; p++) sums[i] = fmaf(x[p * STEP * CB], d[p * KB], sums[i]);
                }
            }
            __syncthreads();
        }
    }

    // The turns' sums, in their order.
#pragma unroll
    for (int i = 0; i < HELD; i++) memory[i * THREADS + threadIdx.x] = sums[i];
    __syncthreads();
    if (turn > 0) return;
    partial = own(partial, partials) + (size_t(blockIdx.x) * outputs + k) * each;
    for (int i = 0; i < HELD && begin + i * SLOTS < KB * each; i++) {
        float sum = 0.f;
        for (int other = 0; other < TURNS; other++) sum += memory[i * THREADS + other * SLOTS + slot];
        partial[begin + i * SLOTS] = sum;
    }
}
