// What a block of a filter gradient has: CB channels read, KB written, and every `gridDim.x`-th tile of pixels, which
// are made while they are read. The blocks' sums are added by `total`.
//
// A thread loads the same four channels of all its pixels, so that it reads what belongs to a channel once for a tile;
// and it asks for several pixels before it waits for the first.
//
// Constants: FILTER, STRIDE, KIND (of what was read), BACK (of the gradient), HEIGHT, WIDTH (of what was written),
// ROWS, IMAGES, CB, KB.

constexpr int PAD = FILTER / 2, TAPS = FILTER * FILTER;
constexpr int STEP = FILTER == 1 ? 1 : STRIDE; // a 1x1 filter never sees the pixels between
constexpr int IN_H = HEIGHT * STRIDE, IN_W = WIDTH * STRIDE;
constexpr int TILE_H = (ROWS - 1) * STEP + FILTER, TILE_W = (WIDTH - 1) * STEP + FILTER;
constexpr int TILES_Y = HEIGHT / ROWS, READ_PIXELS = IMAGES * TILE_H * TILE_W, PIXELS = IMAGES * ROWS * WIDTH;
constexpr int LOADS = PRECISION == BF16 ? 8 : 4; // of a thread at once: 64 bytes

struct Pixel {
    int n, y, x;
    bool inside;
};

// Gives `put` all `pixels` of a tile of `width` channels from c on, as pixel, channel of the tile, and four numbers;
// `where` says which pixel of the map it is.
template <int kind, int h, int w, int pixels, int width, int threads, class Where, class Put>
__device__ __forceinline__ void load_pixels(Where where, Put put, const Read &m, int c) {
    constexpr int QUADS = width / 4, LANES = threads / QUADS;
    constexpr int MOST = kind == RECTIFIED ? LOADS : kind == GRADIENT ? LOADS / 2 : 2;
    constexpr int ALL = (pixels + LANES - 1) / LANES;
    constexpr int TIMES = (ALL + MOST - 1) / MOST, AT_ONCE = (ALL + TIMES - 1) / TIMES;
    const int q = threadIdx.x % QUADS * 4;
    const Lines line = lines<kind>(m, c + q);
    for (int first = threadIdx.x / QUADS; first < pixels; first += LANES * AT_ONCE) {
        bool inside[AT_ONCE];
        Fetched fetched[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) { // what is not inside is loaded from elsewhere: without a branch
            Pixel at = where(first + i * LANES);
            inside[i] = at.inside && first + i * LANES < pixels;
            if (!inside[i]) at.n = at.y = at.x = 0;
            fetched[i] = fetch<kind>(m, line, at.n, at.y, at.x, h, w, c + q);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const float4 value = if_inside(inside[i], make<kind>(m, line, fetched[i]));
            if (first + i * LANES < pixels) put(first + i * LANES, q, value);
        }
    }
}

// What was read, as pixel of [image][row][column], from image `first` and row `top` of what was written on.
template <int threads, class Put>
__device__ __forceinline__ void load_read(Put put, const Read &m, int first, int count, int top, int c) {
    const auto where = [&](int p) {
        const int n = first + p / (TILE_H * TILE_W);
        int y = top * STEP + p / TILE_W % TILE_H - PAD, x = p % TILE_W - PAD;
        if (FILTER == 1) y *= STRIDE, x *= STRIDE;
        return Pixel{n, y, x, n < count && y >= 0 && y < IN_H && x >= 0 && x < IN_W};
    };
    load_pixels<KIND, IN_H, IN_W, READ_PIXELS, CB, threads>(where, put, m, c);
}

// The gradient of what was written, likewise.
template <int threads, class Put>
__device__ __forceinline__ void load_back(Put put, const Read &m, int first, int count, int top, int k) {
    const auto where = [&](int p) {
        const int n = first + p / (ROWS * WIDTH);
        return Pixel{n, top + p / WIDTH % ROWS, p % WIDTH, n < count};
    };
    load_pixels<BACK, HEIGHT, WIDTH, PIXELS, KB, threads>(where, put, m, k);
}
