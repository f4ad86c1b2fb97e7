// The convolution of `conv.cu` on tensor cores: its tile is a matrix whose rows are pixels and whose columns are
// channels, and each tap multiplies rows of it, shifted by the tap, with the tap's channels x outputs. Pasted behind
// `tiles.cu` and `mma.cu`, which say what a tile is and who has what of a matrix.
//
// A block has WARPS warps and KB output channels; WB words of channels are in shared memory at a time. A fragment is
// 16 pixels; a warp has FRAGMENTS of them, and KB outputs of each. Behind a stride a fragment's pixels are alike in
// parity, and a warp has all four kinds: then each tap meets one kind. Filters lie as threads want them,
// `[8 words of channels][tap][8 outputs][thread][2]`. Constants: those of `tiles.cu`; KB, WB, WARPS.

constexpr int THREADS = WARPS * WARP, PIXELS = IMAGES * ROWS * WIDTH, FRAGMENTS = PIXELS / 16 / WARPS, COLUMNS = KB / 8;
constexpr int PITCH = WB + 4;     // words from pixel to pixel: eight rows' four words lie in 32 banks
constexpr int OUT_PITCH = KB + 4; // floats from pixel to pixel

struct Pixel {
    int n, y, x;
};

// Row `row` of a fragment.
__device__ __forceinline__ Pixel pixel(int fragment, int row) {
    if (DILATE == 1) {
        const int p = fragment * 16 + row;
        return {p / (ROWS * WIDTH), p / WIDTH % ROWS, p % WIDTH};
    }
    const int p = fragment / 4 * 16 + row, h = ROWS / 2, w = WIDTH / 2;
    return {p / (h * w), p / w % h * 2 + fragment % 4 / 2, p % w * 2 + fragment % 2};
}

// The tile's channels c .. c + WB words, as [image][row][column][channel].
__device__ __forceinline__ void load_tile(unsigned *tile, const Block &b, int c) {
    constexpr int QUADS = WB * EACH / 4, ALL = TILE_H * TILE_W;
    for (int i = threadIdx.x; i < IMAGES * ALL * QUADS; i += THREADS) {
        const int quad = i % QUADS, at = i / QUADS, n = at / ALL, ty = at % ALL / TILE_W, tx = at % TILE_W;
        const float4 v = tile_pixel(b, n, ty, tx, c + quad * 4);
        store_words(tile + at * PITCH + quad * 4 / EACH, v);
    }
}

// Filters of channels c .. c + WB words and outputs k .. k + KB, in their order.
__device__ __forceinline__ void load_filters(unsigned *to, const Block &b, int c) {
    constexpr int QUADS = COLUMNS * 16; // of words, for 8 words of channels and a tap
    for (int i = threadIdx.x; i < WB / 8 * TAPS * QUADS; i += THREADS) {
        const int step = i / QUADS / TAPS, from = c / (8 * EACH) + step, tap = i / QUADS % TAPS;
        uint4 words = make_uint4(0, 0, 0, 0);
        if (from * 8 * EACH < b.from.channels) {
            const size_t row = (size_t(from) * TAPS + tap) * b.to.channels + b.k; // of 8 words
            words = *reinterpret_cast<const uint4 *>(b.filters + row * 8 * EACH + i % QUADS * 4 * EACH);
        }
        if constexpr (PRECISION == TF32) {
            words = make_uint4(tf32(__uint_as_float(words.x)), tf32(__uint_as_float(words.y)),
                               tf32(__uint_as_float(words.z)), tf32(__uint_as_float(words.w)));
        }
        *reinterpret_cast<uint4 *>(to + i * 4) = words;
    }
}

// `rows` are where this thread's rows of each fragment begin, `filters` its words of the first matrix.
__device__ __forceinline__ void multiply(float (*sums)[COLUMNS][4], const unsigned *const *rows,
                                         const unsigned *filters) {
#pragma unroll
    for (int step = 0; step < WB / 8; step++) {
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) {
            unsigned right[COLUMNS][2];
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const unsigned *at = filters + ((step * TAPS + tap) * COLUMNS + j) * WARP * 2;
                const uint2 words = *reinterpret_cast<const uint2 *>(at);
                right[j][0] = words.x, right[j][1] = words.y;
            }
#pragma unroll
            for (int i = 0; i < FRAGMENTS; i++) {
                const int r = tap / FILTER, s = tap % FILTER, odd_y = i % 4 / 2, odd_x = i % 2;
                if (!meets(odd_y, r) || !meets(odd_x, s)) continue;
                unsigned left[4];
                load_matrices(left, rows[i] + (distance(odd_y, r) * TILE_W + distance(odd_x, s)) * PITCH + step * 8);
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) multiply_add(sums[i][j], left, right[j]);
            }
        }
    }
}

__device__ __forceinline__ void convolve(const Block &b) {
    SHARED_MEMORY(unsigned, memory);
    unsigned *tile = memory, *own_filters = memory + IMAGES * TILE_H * TILE_W * PITCH;
    const int lane = threadIdx.x % WARP, begin = threadIdx.x / WARP * FRAGMENTS;
    const unsigned *rows[FRAGMENTS];
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        const Pixel p = pixel(begin + i, lane % 16);
        rows[i] = tile + ((p.n * TILE_H + p.y * STEP / DILATE) * TILE_W + p.x * STEP / DILATE) * PITCH + lane / 16 * 4;
    }
    float sums[FRAGMENTS][COLUMNS][4] = {};
    for (int c = 0; c < b.from.channels; c += WB * EACH) {
        load_tile(tile, b, c);
        load_filters(own_filters, b, c);
        __syncthreads();
        multiply(sums, rows, own_filters + lane * 2);
        __syncthreads();
    }

    // By way of shared memory, so that neighbours write what lies together.
    float *values = reinterpret_cast<float *>(memory);
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            float *at = values + ((begin + i) * 16 + lane / 4) * OUT_PITCH + j * 8 + lane % 4 * 2;
            at[0] = sums[i][j][0], at[1] = sums[i][j][1];
            at[8 * OUT_PITCH] = sums[i][j][2], at[8 * OUT_PITCH + 1] = sums[i][j][3];
        }
    }
    __syncthreads();
    constexpr int QUADS = KB / 4, LANES = THREADS / QUADS;
    const int quad = threadIdx.x % QUADS, first_pixel = threadIdx.x / QUADS;
    float4 totals[1][3] = {};
    for (int p = first_pixel; p < PIXELS; p += LANES) {
        const Pixel at = pixel(p / 16, p % 16);
        if (b.image + at.n >= b.count) continue;
        write<TARGET>(b.to, b.image + at.n, b.top + at.y, at.x, HEIGHT, WIDTH, b.k + quad * 4,
                      load(values + p * OUT_PITCH + quad * 4), totals[0]);
    }
    if (TARGET != PLAIN && b.partial) {
        reduce<1>(values, totals, quad, first_pixel, LANES, b.partial, blockIdx.x, b.to.channels, b.k, KB);
    }
}
