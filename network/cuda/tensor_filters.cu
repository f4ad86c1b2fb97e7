// The filter gradient of `filters.cu` on tensor cores: for each tap the product of the gradient of what was written,
// outputs x pixels, and what was read, pixels x channels, shifted by the tap. Pasted behind `filter_tiles.cu` and
// `mma.cu`. Constants: those of `filter_tiles.cu` (CB and KB are 16 or 32); WARPS.
//
// A warp has 16 outputs, 16 channels and all taps; the warps of a pair of these take turns by 8 words of pixels. Tiles
// lie as [pixel][channel], so both matrices are read across: a thread names pixels (in bf16 one, else two) and a
// column, and gets its words of channels 0 to 7 and 8 to 15 of the first half of the pixels, and of the second half.

constexpr int THREADS = WARPS * WARP, ACROSS = CB / 16, GROUPS = ACROSS * (KB / 16), TURNS = WARPS / GROUPS;
constexpr int STEPS = PIXELS / (8 * EACH), NAMED = EACH == 2 ? 1 : 2, SUMS = TAPS * 8;
// Words from pixel to pixel: what is read together lies in 32 banks.
constexpr int PADDED = EACH == 2 ? 4 : 8, X_PITCH = CB / EACH + PADDED, G_PITCH = KB / EACH + PADDED;

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
        g[i] = g_tile + p * G_PITCH + column(lane);
        x[i] = x_tile + ((n * TILE_H + row * STEP) * TILE_W + p % WIDTH * STEP) * X_PITCH + column(lane);
    }
    unsigned left[4], words[4];
    load_across(left, g, 0);
#pragma unroll
    for (int tap = 0; tap < TAPS; tap++) {
        load_across(words, x, (tap / FILTER * TILE_W + tap % FILTER) * X_PITCH);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const unsigned right[2] = {words[j], words[2 + j]};
            add_product(sums[tap][j], left, right);
        }
    }
}

// 16 warps on a multiprocessor: a thread has half of its registers for sums.
extern "C" __global__ void __launch_bounds__(THREADS, 16 / WARPS)
    filters(const void *first, const void *second, const float *third, const float *fourth, const Stored *g,
            const Stored *z, const float *abc, const float *line, float *partial, unsigned partials, int count,
            int images, int channels, int outputs) {
    SHARED_MEMORY(unsigned, memory);
    unsigned *x_tile = memory, *g_tile = memory + READ_PIXELS * X_PITCH;
    const Read m = own_read<KIND>(first, second, third, fourth, channels, images, IN_H, IN_W);
    const Read back = own_read<BACK>(g, z, abc, line, outputs, images, HEIGHT, WIDTH);
    const int lane = threadIdx.x % WARP, group = threadIdx.x / WARP % GROUPS, turn = threadIdx.x / WARP / GROUPS;
    const int blocks = channels / CB, c = blockIdx.y % blocks * CB, k = blockIdx.y / blocks * KB;
    const int own_c = group % ACROSS * 16, own_k = group / ACROSS * 16;

    float sums[TAPS][2][4] = {};
    const int tiles = (count + IMAGES - 1) / IMAGES * TILES_Y;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int image = tile / TILES_Y * IMAGES, top = tile % TILES_Y * ROWS;
        const auto put_x = [&](int pixel, int q, float4 v) { store_words(x_tile + pixel * X_PITCH + q / EACH, v); };
        const auto put_g = [&](int pixel, int q, float4 v) { store_words(g_tile + pixel * G_PITCH + q / EACH, v); };
        load_read<THREADS>(put_x, m, image, count, top, c);
        load_back<THREADS>(put_g, back, image, count, top, k);
        __syncthreads();
#pragma unroll 1 // nine taps are independent enough, and registers are few
        for (int step = turn; step < STEPS; step += TURNS) {
            multiply(sums, x_tile + own_c / EACH, g_tile + own_k / EACH, step);
        }
        __syncthreads();
    }

    // The turns' sums: those of the later half are added to those of the first, until there is one.
    float *values = reinterpret_cast<float *>(memory);
    for (int half = TURNS / 2; half > 0; half /= 2) {
        float *held = values + (turn % half * GROUPS + group) * SUMS * WARP + lane;
        if (turn >= half && turn < 2 * half) {
#pragma unroll
            for (int i = 0; i < SUMS; i++) held[i * WARP] = sums[i / 8][i / 4 % 2][i % 4];
        }
        __syncthreads();
        if (turn < half) {
#pragma unroll
            for (int i = 0; i < SUMS; i++) sums[i / 8][i / 4 % 2][i % 4] += held[i * WARP];
        }
        __syncthreads();
    }

    // By way of shared memory, so that neighbours write what lies together: K C R S.
    constexpr int ROW = CB * TAPS, PITCH = ROW + 1;
    if (turn == 0) {
#pragma unroll
        for (int i = 0; i < SUMS; i++) {
            const int to_k = own_k + lane / 4 + i / 2 % 2 * 8, to_c = own_c + i / 4 % 2 * 8 + lane % 4 * 2 + i % 2;
            values[to_k * PITCH + to_c * TAPS + i / 8] = sums[i / 8][i / 4 % 2][i % 4];
        }
    }
    __syncthreads();
    partial = own(partial, partials) + (size_t(blockIdx.x) * outputs + k) * channels * TAPS + c * TAPS;
    for (int i = threadIdx.x; i < KB * ROW; i += THREADS) {
        partial[size_t(i / ROW) * channels * TAPS + i % ROW] = values[i / ROW * PITCH + i % ROW];
    }
}
