// The gradient of a convolution's filters: sums over all pixels of what was read times the gradient of what was
// written. Pasted behind `filter_tiles.cu`, which says what a block has; KB is 16, CB too or, of the image, 4.
//
// A thread has one channel read, four written, and all taps; those that have the same take turns by strips of a row.

constexpr int THREADS = WARPS * 32, ALIKE = CB * 4, TURNS = THREADS / ALIKE, HELD = TAPS * 4 + 1;
constexpr int STRIP = WIDTH < 16 ? WIDTH : 16;

// One strip of what was written.
__device__ __forceinline__ void multiply(float (*sums)[4], const float *x, const float *g) {
    float v[FILTER][FILTER];
    for (int column = 0; column < STRIP; column++) {
#pragma unroll
        for (int r = 0; r < FILTER; r++) {
#pragma unroll
            for (int s = 0; s < FILTER; s++) {
                const bool held = STEP == 1 && column > 0 && s + 1 < FILTER; // from the pixel before
                v[r][s] = held ? v[r][(s + 1) % FILTER] : x[(r * TILE_W + column * STEP + s) * CB];
            }
        }
        const float4 d = load(g + column * KB);
#pragma unroll
        for (int t = 0; t < TAPS; t++) {
            const float value = v[t / FILTER][t % FILTER];
            sums[t][0] = fmaf(value, d.x, sums[t][0]);
            sums[t][1] = fmaf(value, d.y, sums[t][1]);
            sums[t][2] = fmaf(value, d.z, sums[t][2]);
            sums[t][3] = fmaf(value, d.w, sums[t][3]);
        }
    }
}

// `partial[split]` gets sums in PyTorch's order, K C R S.
extern "C" __global__ void __launch_bounds__(THREADS)
    filters(const void *first, const void *second, const float *third, const float *fourth, const Stored *g,
            const Stored *z, const float *abc, const float *line, float *partial, unsigned partials, int count,
            int images, int channels, int outputs) {
    SHARED_MEMORY(float, memory);
    float *x_tile = memory, *g_tile = memory + READ_PIXELS * CB;
    const Read m = own_read<KIND>(first, second, third, fourth, channels, images, IN_H, IN_W);
    const Read back = own_read<BACK>(g, z, abc, line, outputs, images, HEIGHT, WIDTH);
    const int blocks = (channels + CB - 1) / CB;
    const int c = blockIdx.y % blocks * CB, k = blockIdx.y / blocks * KB;
    const int own_c = threadIdx.x % CB, own_k = threadIdx.x / CB % 4 * 4, turn = threadIdx.x / ALIKE;

    float sums[TAPS][4] = {};
    const int tiles = (count + IMAGES - 1) / IMAGES * TILES_Y;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int image = tile / TILES_Y * IMAGES, top = tile % TILES_Y * ROWS;
        const auto put_x = [&](int pixel, int q, float4 v) { store(x_tile + pixel * CB + q, v); };
        const auto put_g = [&](int pixel, int q, float4 v) { store(g_tile + pixel * KB + q, v); };
        load_read<THREADS>(put_x, m, image, count, top, c);
        load_back<THREADS>(put_g, back, image, count, top, k);
        __syncthreads();
        for (int p = turn * STRIP; p < PIXELS; p += TURNS * STRIP) {
            const int n = p / (ROWS * WIDTH), y = p / WIDTH % ROWS, x = p % WIDTH;
            const float *from = x_tile + ((n * TILE_H + y * STEP) * TILE_W + x * STEP) * CB;
            multiply(sums, from + own_c, g_tile + p * KB + own_k);
        }
        __syncthreads();
    }

    // The turns' sums: those of the later half are added to those of the first, until there is one.
    for (int half = TURNS / 2; half > 0; half /= 2) {
        float *held = memory + threadIdx.x % (half * ALIKE) * HELD;
        if (turn >= half && turn < 2 * half) {
            for (int i = 0; i < TAPS * 4; i++) held[i] = sums[i / 4][i % 4];
        }
        __syncthreads();
        if (turn < half) {
            for (int i = 0; i < TAPS * 4; i++) sums[i / 4][i % 4] += held[i];
        }
        __syncthreads();
    }
    if (turn > 0 || c + own_c >= channels) return;
    partial = own(partial, partials) + size_t(blockIdx.x) * outputs * channels * TAPS;
    for (int i = 0; i < TAPS * 4; i++) {
        partial[(size_t(k + own_k + i % 4) * channels + c + own_c) * TAPS + i / 4] = sums[i / 4][i % 4];
    }
}
