// What a block of a filter gradient has: 16 channels read, 16 written, and every `gridDim.x`-th tile of pixels, which
// are made while they are read. The blocks' sums are added by `total`.
//
// Constants: FILTER, STRIDE, KIND (of what was read), BACK (of the gradient), HEIGHT, WIDTH (of what was written),
// ROWS, IMAGES.

constexpr int PAD = FILTER / 2, TAPS = FILTER * FILTER, BLOCK = 16;
constexpr int STEP = FILTER == 1 ? 1 : STRIDE; // a 1x1 filter never sees the pixels between
constexpr int IN_H = HEIGHT * STRIDE, IN_W = WIDTH * STRIDE;
constexpr int TILE_H = (ROWS - 1) * STEP + FILTER, TILE_W = (WIDTH - 1) * STEP + FILTER;
constexpr int TILES_Y = HEIGHT / ROWS, READ_PIXELS = IMAGES * TILE_H * TILE_W, PIXELS = IMAGES * ROWS * WIDTH;

// Gives `put` what was read, as pixel of [image][row][column], channel of 16, and four numbers.
template <class Put>
__device__ __forceinline__ void load_read(Put put, const Read &m, int first, int count, int top, int c) {
    constexpr int ALL = TILE_H * TILE_W;
    for (int i = threadIdx.x; i < IMAGES * ALL * 4; i += blockDim.x) {
        const int q = i % 4 * 4, pixel = i / 4 % ALL, n = first + i / 4 / ALL;
        int y = top * STEP + pixel / TILE_W - PAD, x = pixel % TILE_W - PAD;
        if (FILTER == 1) y *= STRIDE, x *= STRIDE;
        const bool inside = n < count && c + q < m.channels && y >= 0 && y < IN_H && x >= 0 && x < IN_W;
        put(i / 4, q, inside ? read<KIND>(m, n, y, x, IN_H, IN_W, c + q) : fill(0.f));
    }
}

// The gradient of what was written, likewise.
template <class Put>
__device__ __forceinline__ void load_back(Put put, const Read &m, int first, int count, int top, int k) {
    for (int i = threadIdx.x; i < PIXELS * 4; i += blockDim.x) {
        const int q = i % 4 * 4, pixel = i / 4 % (ROWS * WIDTH), n = first + i / 4 / (ROWS * WIDTH);
        const int y = top + pixel / WIDTH, x = pixel % WIDTH;
        put(i / 4, q, n < count ? read<BACK>(m, n, y, x, HEIGHT, WIDTH, k + q) : fill(0.f));
    }
}
