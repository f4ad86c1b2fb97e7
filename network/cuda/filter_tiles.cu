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

// Four numbers as they are stored.
__device__ __forceinline__ float4 stored(const float *p) { return load(p); }
__device__ __forceinline__ uint2 stored(const Bf16 *p) { return *reinterpret_cast<const uint2 *>(p); }
__device__ __forceinline__ float4 numbers(float4 v) { return v; }
__device__ __forceinline__ float4 numbers(uint2 words) { return both(words); }

// What belongs to channels c..: a, b and c of a gradient; or two lines, of what is rectified and of what is added.
struct Lines {
    float4 v[4];
};
template <int kind> __device__ __forceinline__ Lines own_lines(const Read &m, int c) {
    Lines lines = {fill(1.f), fill(0.f), fill(1.f), fill(0.f)};
    if constexpr (kind == GRADIENT) {
        for (int i = 0; i < 3; i++) lines.v[i] = load(m.third + i * m.channels + c);
    }
    if constexpr (kind == RECTIFIED) {
        for (int i = 0; i < 2 && m.third; i++) lines.v[i] = load(m.third + i * m.channels + c);
        for (int i = 0; i < 2 && m.fourth; i++) lines.v[2 + i] = load(m.fourth + i * m.channels + c);
    }
    return lines;
}

// `read` of several pixels; zeros for those that are not inside.
template <int kind, int h, int w, int n>
__device__ __forceinline__ void read_many(float4 (&values)[n], const Pixel (&at)[n], const Read &m, const Lines &lines,
                                          int c) {
    if constexpr (kind == RECTIFIED || kind == GRADIENT) {
        const Stored *first = static_cast<const Stored *>(m.first) + c;
        const Stored *second = static_cast<const Stored *>(m.second) + c;
        decltype(stored(first)) own[n], other[n];
        const bool two = kind == GRADIENT || m.second;
        int pixel[n]; // without a branch, all loads are on their way at once
#pragma unroll
        for (int i = 0; i < n; i++) {
            pixel[i] = at[i].inside ? (at[i].n * h + at[i].y) * w + at[i].x : 0;
            own[i] = stored(first + size_t(pixel[i]) * m.channels);
            if (kind == GRADIENT) other[i] = stored(second + size_t(pixel[i]) * m.channels);
        }
        if (kind == RECTIFIED && two) {
#pragma unroll
            for (int i = 0; i < n; i++) other[i] = stored(second + size_t(pixel[i]) * m.channels);
        }
#pragma unroll
        for (int i = 0; i < n; i++) {
            if constexpr (kind == GRADIENT) {
                values[i] = fma(numbers(own[i]), lines.v[0], fma(numbers(other[i]), lines.v[1], lines.v[2]));
            } else {
                values[i] = fma(numbers(own[i]), lines.v[0], lines.v[1]);
                if (two) values[i] = add(values[i], fma(numbers(other[i]), lines.v[2], lines.v[3]));
                values[i] = relu(values[i]);
            }
            if (!at[i].inside) values[i] = fill(0.f);
        }
    } else {
#pragma unroll
        for (int i = 0; i < n; i++) {
            values[i] = at[i].inside ? read<kind>(m, at[i].n, at[i].y, at[i].x, h, w, c) : fill(0.f);
        }
    }
}

// Gives `put` all `pixels` of a tile of `width` channels from c on, as pixel, channel of the tile, and four numbers;
// `where` says which pixel of the map it is.
template <int kind, int h, int w, int pixels, int width, int threads, class Where, class Put>
__device__ __forceinline__ void load_pixels(Where where, Put put, const Read &m, int c) {
    constexpr int QUADS = width / 4, LANES = threads / QUADS;
    constexpr int MOST = kind == RECTIFIED ? LOADS : kind == GRADIENT ? LOADS / 2 : 2;
    constexpr int ALL = (pixels + LANES - 1) / LANES;
    constexpr int TIMES = (ALL + MOST - 1) / MOST, AT_ONCE = (ALL + TIMES - 1) / TIMES;
    const int q = threadIdx.x % QUADS * 4;
    const Lines lines = own_lines<kind>(m, c + q);
    for (int first = threadIdx.x / QUADS; first < pixels; first += LANES * AT_ONCE) {
        Pixel at[AT_ONCE];
        float4 values[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            at[i] = where(first + i * LANES);
            at[i].inside &= first + i * LANES < pixels;
        }
        read_many<kind, h, w>(values, at, m, lines, c + q);
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            if (first + i * LANES < pixels) put(first + i * LANES, q, values[i]);
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
