// The gradient of a convolution's filters: sums over all pixels of what was read times the gradient of what was
// written, both made while they are read. A block has 16 x 16 channels and every `gridDim.x`-th tile of pixels; the
// blocks' sums are added by `total`.
//
// A thread has one channel read, four written, and all taps; four threads share a pair of channels and take turns by
// rows. Constants: FILTER, STRIDE, KIND (of what was read), BACK (of the gradient), HEIGHT, WIDTH (of what was
// written), ROWS, IMAGES.

constexpr int PAD = FILTER / 2, TAPS = FILTER * FILTER, BLOCK = 16, TURNS = 4, THREADS = 64 * TURNS;
constexpr int STEP = FILTER == 1 ? 1 : STRIDE; // a 1x1 filter never sees the pixels between
constexpr int IN_H = HEIGHT * STRIDE, IN_W = WIDTH * STRIDE;
constexpr int TILE_H = (ROWS - 1) * STEP + FILTER, TILE_W = (WIDTH - 1) * STEP + FILTER;
constexpr int TILES_Y = HEIGHT / ROWS, HELD = TAPS * 4 + 1;

// What was read, as [image][row][column][16].
__device__ __forceinline__ void load_read(float *to, const Read &m, int first, int count, int top, int c) {
    constexpr int PIXELS = TILE_H * TILE_W;
    for (int i = threadIdx.x; i < IMAGES * PIXELS * 4; i += THREADS) {
        const int q = i % 4 * 4, pixel = i / 4 % PIXELS, n = first + i / 4 / PIXELS;
        int y = top * STEP + pixel / TILE_W - PAD, x = pixel % TILE_W - PAD;
        if (FILTER == 1) y *= STRIDE, x *= STRIDE;
        const bool inside =
            n < count && c + q < m.channels && y >= 0 && y < IN_H && x >= 0 && x < IN_W;
        store(to + i * 4, inside ? read<KIND>(m, n, y, x, IN_H, IN_W, c + q) : fill(0.f));
    }
}

// The gradient of what was written, likewise.
__device__ __forceinline__ void load_back(float *to, const Read &m, int first, int count, int top, int k) {
    constexpr int PIXELS = ROWS * WIDTH;
    for (int i = threadIdx.x; i < IMAGES * PIXELS * 4; i += THREADS) {
        const int q = i % 4 * 4, pixel = i / 4 % PIXELS, n = first + i / 4 / PIXELS;
        const int y = top + pixel / WIDTH, x = pixel % WIDTH;
        store(to + i * 4, n < count ? read<BACK>(m, n, y, x, HEIGHT, WIDTH, k + q) : fill(0.f));
    }
}

// One row of what was written.
__device__ __forceinline__ void multiply(float (*sums)[4], const float *x, const float *g) {
    float v[FILTER][FILTER];
    for (int column = 0; column < WIDTH; column++) {
#pragma unroll
        for (int r = 0; r < FILTER; r++) {
#pragma unroll
            for (int s = 0; s < FILTER; s++) {
                const bool held = STEP == 1 && column > 0 && s + 1 < FILTER; // from the pixel before
                v[r][s] = held ? v[r][(s + 1) % FILTER] : x[(r * TILE_W + column * STEP + s) * BLOCK];
            }
        }
        const float4 d = load(g + column * BLOCK);
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
    float *x_tile = memory, *g_tile = memory + IMAGES * TILE_H * TILE_W * BLOCK;
    const Read m = own_read<KIND>(first, second, third, fourth, channels, images, IN_H, IN_W);
    const Read back = own_read<BACK>(g, z, abc, line, outputs, images, HEIGHT, WIDTH);
    const int blocks = (channels + BLOCK - 1) / BLOCK;
    const int c = blockIdx.y % blocks * BLOCK, k = blockIdx.y / blocks * BLOCK;
    const int own_c = threadIdx.x % BLOCK, own_k = threadIdx.x / BLOCK % 4 * 4, turn = threadIdx.x / 64;

    float sums[TAPS][4] = {};
    const int tiles = (count + IMAGES - 1) / IMAGES * TILES_Y;
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int image = tile / TILES_Y * IMAGES, top = tile % TILES_Y * ROWS;
        load_read(x_tile, m, image, count, top, c);
        load_back(g_tile, back, image, count, top, k);
        __syncthreads();
        for (int row = turn; row < IMAGES * ROWS; row += TURNS) {
            const int n = row / ROWS, y = row % ROWS;
            multiply(sums, x_tile + (n * TILE_H + y * STEP) * TILE_W * BLOCK + own_c,
                     g_tile + row * WIDTH * BLOCK + own_k);
        }
        __syncthreads();
    }

    // The turns' sums, in their order.
    float *held = memory + (threadIdx.x % 64) * HELD;
    for (int other = 1; other < TURNS; other++) {
        if (turn == other) {
            for (int i = 0; i < TAPS * 4; i++) held[i] = sums[i / 4][i % 4];
        }
        __syncthreads();
        if (turn == 0) {
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
