// The tile that a block of a convolution reads: all pixels behind ROWS rows of IMAGES images of what it writes.
// Forward, or (with flipped filters) for the gradient of what was read. Behind a stride, DILATE = 2 says that this map
// is half as large as the one written: as if zeros lay between its pixels, which are neither loaded nor multiplied. Of
// three taps in a direction an even pixel then meets the middle one, an odd pixel the two others.
//
// Constants: FILTER, STRIDE, DILATE, KIND, HEIGHT, WIDTH (of what is written), ROWS, IMAGES.

constexpr int PAD = FILTER / 2, TAPS = FILTER * FILTER;
constexpr int STEP = FILTER == 1 ? 1 : STRIDE; // a 1x1 filter never sees the pixels between
constexpr int IN_H = HEIGHT * STRIDE / DILATE, IN_W = WIDTH * STRIDE / DILATE;
constexpr int TILE_H = DILATE == 2 ? ROWS / 2 + PAD : (ROWS - 1) * STEP + FILTER;
constexpr int TILE_W = DILATE == 2 ? WIDTH / 2 + PAD : (WIDTH - 1) * STEP + FILTER;
constexpr int TILES_Y = HEIGHT / ROWS;

// Does a pixel whose coordinate is even or `odd` meet this tap; and how far from it lies what it multiplies?
__device__ __forceinline__ constexpr bool meets(int odd, int tap) { return DILATE == 1 || (odd + tap + PAD) % 2 == 0; }
__device__ __forceinline__ constexpr int distance(int odd, int tap) {
    return DILATE == 1 ? tap : (odd + tap - PAD) / 2;
}

// What a block works on: maps and filters of its instance.
struct Block {
    Read from;
    Stored *kept; // what was read, and its signs, are kept where there is room
    unsigned char *bits;
    const Stored *filters;
    Write to;
    Word *sums;       // of what is written, `[sum][channel]`
    Norm norm, other; // of what is read, and of what is added to it, if their lines are still to be made
    int values;       // of each channel of these
    int count, image, top, k; // images that there are; the first one, its first row and output
};

// Makes the lines that are still to be made, in shared memory, where there are LINE_FLOATS for each channel: first the
// lines, then the totals that they are made from. All threads of the block call it.
constexpr int LINE_FLOATS = 8;
template <int threads> __device__ __forceinline__ void make_lines(Block &b, float *memory) {
    constexpr bool FORWARD = KIND == RECTIFIED || KIND == POOLED, BACK = KIND == GRADIENT || KIND == UNPOOLED;
    if (!b.norm.first || !(FORWARD || BACK)) return;
    const bool keeps = blockIdx.x == 0 && blockIdx.y == 0;
    const int channels = b.from.channels;
    double *totals = reinterpret_cast<double *>(memory + 4 * channels);
    tell_totals(totals, b.norm, channels, threads);
    for (int c = threadIdx.x; c < channels; c += threads) {
        if (BACK) differentiate(memory, totals, b.norm, c, channels, b.values, keeps);
        if (FORWARD) normalise(memory, totals, b.norm, c, channels, b.values, keeps);
    }
    b.from.third = memory;
    __syncthreads();
    if (FORWARD && b.other.first) {
        tell_totals(totals, b.other, channels, threads);
        for (int c = threadIdx.x; c < channels; c += threads) {
            normalise(memory + 2 * channels, totals, b.other, c, channels, b.values, keeps);
        }
        b.from.fourth = memory + 2 * channels;
        __syncthreads();
    }
}

// A pixel of the tile, of four channels: what was loaded of it, if it exists, and where it is kept, if here.
struct TilePixel {
    bool inside, kept;
    unsigned at;
    Fetched fetched;
};

// Channels c.. of pixel p of `[image][row][column]`. What does not exist is loaded from elsewhere and not used: so
// loads follow one another without branches.
__device__ __forceinline__ TilePixel fetch_pixel(const Block &b, const Lines &line, int p, int c) {
    int n = b.image + p / (TILE_H * TILE_W), y = p / TILE_W % TILE_H, x = p % TILE_W;
    if (DILATE == 2) {
        y += b.top / 2;
    } else {
        y += b.top * STEP - PAD, x -= PAD;
        if (FILTER == 1) y *= STRIDE, x *= STRIDE;
    }
    TilePixel t;
    t.inside = p < IMAGES * TILE_H * TILE_W && n < b.count && unsigned(y) < IN_H && unsigned(x) < IN_W;
    t.kept = KIND == RECTIFIED && t.inside && y >= b.top * STEP && y < (b.top + ROWS) * STEP;
    if (!t.inside) n = y = x = 0;
    t.at = place(n, y, x, IN_H, IN_W, b.from.channels) + c;
    t.fetched = fetch<KIND>(b.from, line, n, y, x, IN_H, IN_W, c);
    return t;
}

// What is made of it, which is kept unless another tile keeps it.
__device__ __forceinline__ float4 make_pixel(const Block &b, const Lines &line, const TilePixel &t) {
    const float4 v = if_inside(t.inside, make<KIND>(b.from, line, t.fetched));
    if (t.kept && b.kept) store(b.kept + t.at, v);
    if (t.kept && b.bits) b.bits[t.at / 4] = signs(v);
    return v;
}
