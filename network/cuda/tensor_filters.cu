// The filter gradient of `filters.cu` on tensor cores: for each tap the product of the gradient of what was written,
// outputs x pixels, and what was read, pixels x channels, shifted by the tap. Pasted behind `filter_tiles.cu` and
// `mma.cu`.
//
// A block's warps take turns by 8 words of pixels, and have all taps. Tiles lie as [pixel][channel], so both matrices
// are read across: a thread names pixels (in bf16 one, in tf32 two) and a column, and gets its words of channels 0 to 7
// and 8 to 15 of the first half of the pixels, and of the second half.

constexpr int WARPS = 4, THREADS = WARPS * WARP, STEPS = PIXELS / (8 * EACH), NAMED = EACH == 2 ? 1 : 2;
constexpr int PITCH = EACH == 2 ? 8 + 4 : 16 + 8; // words from pixel to pixel: what is read together lies in 32 banks

__device__ __forceinline__ int named(int lane, int i) {
    return EACH == 2 ? lane / 16 * 8 + lane % 8 : lane % 4 + 4 * i;
}
__device__ __forceinline__ int column(int lane) { return EACH == 2 ? lane / 8 % 2 * 4 : lane / 4; }
__device__ __forceinline__ void load_across(unsigned (&words)[4], const unsigned *const *rows, int offset) {
    if constexpr (EACH == 2) {
        load_matrices_across(words, rows[0] + offset);
    } else {
        for (int i = 0; i < 4; i++) words[i] = rows[i / 2][offset + i % 2 * 8];
    }
}

__device__ __forceinline__ void multiply(float (*sums)[2][4], const unsigned *x_tile, const unsigned *g_tile,
                                         int step) {
    const int lane = threadIdx.x % WARP;
    const unsigned *x[NAMED], *g[NAMED];
#pragma unroll
    for (int i = 0; i < NAMED; i++) {
        const int p = step * 8 * EACH + named(lane, i), n = p / (ROWS * WIDTH), row = p / WIDTH % ROWS;
        g[i] = g_tile + p * PITCH + column(lane);
        x[i] = x_tile + ((n * TILE_H + row * STEP) * TILE_W + p % WIDTH * STEP) * PITCH + column(lane);
    }
    unsigned left[4], words[4];
    load_across(left, g, 0);
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) {
        load_across(words, x, (tap / FILTER * TILE_W + tap % FILTER) * PITCH);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const unsigned right[2] = {words[j], words[2 + j]};
            multiply_add(sums[tap][j], left, right);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    filters(const void *first, const void *second, const float *third, const float *fourth, const Stored *g,
            const Stored *z, const float *abc, const float *line, float *partial, unsigned partials, int count,
            int images, int channels, int outputs) {
    SHARED_MEMORY(unsigned, memory);
    unsigned *x_tile = memory, *g_tile = memory + READ_PIXELS * PITCH;
    const Read m = own_read<KIND>(first, second, third, fourth, channels, images, IN_H, IN_W);
    const Read back = own_read<BACK>(g, z, abc, line, outputs, images, HEIGHT, WIDTH);
    const int blocks = channels / BLOCK, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int c = blockIdx.y % blocks * BLOCK, k = blockIdx.y / blocks * BLOCK;

    float sums[TAPS][2][4] = {};
    const int tiles = (count + IMAGES - 1) / IMAGES * TILES_Y;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int image = tile / TILES_Y * IMAGES, top = tile % TILES_Y * ROWS;
        const auto put_x = [&](int pixel, int q, float4 v) { store_words(x_tile + pixel * PITCH + q / EACH, v); };
        const auto put_g = [&](int pixel, int q, float4 v) { store_words(g_tile + pixel * PITCH + q / EACH, v); };
        load_read(put_x, m, image, count, top, c);
        load_back(put_g, back, image, count, top, k);
        __syncthreads();
        for (int step = warp; step < STEPS; step += WARPS) multiply(sums, x_tile, g_tile, step);
        __syncthreads();
    }

    // The warps' sums, in their order.
    constexpr int SUMS = BLOCK * BLOCK * TAPS;
    float *held = reinterpret_cast<float *>(memory);
#pragma unroll
    for (int i = 0; i < TAPS * 8; i++) {
        const int own_k = lane / 4 + i / 2 % 2 * 8, own_c = i / 4 % 2 * 8 + lane % 4 * 2 + i % 2;
        held[warp * SUMS + (own_k * BLOCK + own_c) * TAPS + i / 8] = sums[i / 8][i / 4 % 2][i % 4];
    }
    __syncthreads();
    partial = own(partial, partials) + size_t(blockIdx.x) * outputs * channels * TAPS;
    for (int i = threadIdx.x; i < SUMS; i += THREADS) {
        float sum = 0.f;
        for (int w = 0; w < WARPS; w++) sum += held[w * SUMS + i];
        const int own_k = k + i / TAPS / BLOCK, own_c = c + i / TAPS % BLOCK;
        partial[(size_t(own_k) * channels + own_c) * TAPS + i % TAPS] = sum;
    }
}
