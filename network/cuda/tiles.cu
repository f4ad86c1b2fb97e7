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
    float *partial;
    int count, image, top, k; // images that there are; the first one, its first row and output
};

// Channels c.. of the tile's pixel (ty, tx) of image n; keeps it unless another tile does.
__device__ __forceinline__ float4 tile_pixel(const Block &b, int n, int ty, int tx, int c) {
    int y = ty, x = tx;
    if (DILATE == 2) {
        y += b.top / 2;
    } else {
        y += b.top * STEP - PAD, x -= PAD;
        if (FILTER == 1) y *= STRIDE, x *= STRIDE;
    }
    n += b.image;
    if (n >= b.count || c >= b.from.channels || y < 0 || y >= IN_H || x < 0 || x >= IN_W) return fill(0.f);
    const float4 v = read<KIND>(b.from, n, y, x, IN_H, IN_W, c);
    if (KIND == RECTIFIED && y >= b.top * STEP && y < (b.top + ROWS) * STEP) {
        const size_t at = place(n, y, x, IN_H, IN_W, b.from.channels) + c;
        if (b.kept) store(b.kept + at, v);
        if (b.bits) b.bits[at / 4] = signs(v);
    }
    return v;
}
