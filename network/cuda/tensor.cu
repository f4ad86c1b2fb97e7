// The convolution of `conv.cu` on tensor cores: its tile is a matrix whose rows are pixels and whose columns are
// channels, and each tap multiplies rows of it, shifted by the tap, with the tap's channels x outputs. Pasted behind
// `tiles.cu` and `mma.cu`, which say what a tile is and who has what of a matrix.
//
// A block has KB output channels, and WB words of channels in shared memory at a time: all, where there is room. A
// fragment is 16 pixels; a warp has FRAGMENTS of them, and 8 COLUMNS outputs of each. Behind a stride a fragment's
// pixels are alike in parity, and a warp has all four kinds: then each tap meets one kind.
//
// Filters lie as threads want them, `[8 words of channels][tap][16 outputs][thread][4]`: two matrices of 8 columns,
// whose columns are so numbered that the two sums that a thread has of each are four neighbours (`place` of
// parameters.rs). So threads write what they have, and no way by shared memory is needed.
// Constants: those of `tiles.cu`; KB, WB, CHUNKS of channels, FRAGMENTS, COLUMNS.

constexpr int PIXELS = IMAGES * ROWS * WIDTH, ALL = IMAGES * TILE_H * TILE_W;
constexpr int WARPS_X = PIXELS / 16 / FRAGMENTS, WARPS_K = KB / 8 / COLUMNS, THREADS = WARPS_X * WARPS_K * WARP;
constexpr int STEPS = WB / 8, GROUPS = COLUMNS / 2;
constexpr int PITCH = WB + 4; // words from pixel to pixel: eight rows' four words lie in 32 banks

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

// The tile's channels c .. c + WB words, as [image][row][column][channel]. A thread has four channels of every
// LANES-th pixel, and loads several pixels before it waits for the first, and before lines are made.
__device__ __forceinline__ void load_tile(unsigned *tile, Block &b, int c, float *line_memory) {
    constexpr int QUADS = WB * EACH / 4, LANES = THREADS / QUADS, ROUNDS = (ALL + LANES - 1) / LANES;
    constexpr int MOST = PRECISION == BF16 ? 7 : 4, TIMES = (ROUNDS + MOST - 1) / MOST;
    constexpr int AT_ONCE = (ROUNDS + TIMES - 1) / TIMES;
    constexpr bool LATER = KIND == RECTIFIED || KIND == GRADIENT; // who need lines only for what was loaded
    static_assert(THREADS % QUADS == 0, "threads keep their channels");
    const int quad = threadIdx.x % QUADS, own_c = c + quad * 4;
    Lines line;
#pragma unroll 1
    for (int time = 0; time < TIMES; time++) {
        const int first = threadIdx.x / QUADS + time * LANES * AT_ONCE;
        TilePixel pixels[AT_ONCE];
        if (time == 0 && !LATER) {
            if (c == 0) make_lines<THREADS>(b, line_memory);
            line = lines<KIND>(b.from, own_c);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) pixels[i] = fetch_pixel(b, line, first + i * LANES, own_c);
        if (time == 0 && LATER) {
            if (c == 0) make_lines<THREADS>(b, line_memory);
            line = lines<KIND>(b.from, own_c);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int at = first + i * LANES;
            if (at < ALL) store_words(tile + at * PITCH + quad * 4 / EACH, make_pixel(b, line, pixels[i]));
        }
    }
}

// Begins to copy the filters of channels c .. c + WB words and outputs k .. k + KB.
__device__ __forceinline__ void load_filters(unsigned *to, const Block &b, int c) {
    constexpr int FOURS = KB * 2; // of words, for 8 words of channels and a tap
    for (int i = threadIdx.x; i < STEPS * TAPS * FOURS; i += THREADS) {
        const size_t row = (size_t(c / (8 * EACH) * TAPS + i / FOURS) * b.to.channels + b.k) * 8; // in words
        copy_four(to + i * 4, b.filters + (row + i % FOURS * 4) * EACH);
    }
}

// `rows` are where this thread's rows of each fragment begin, `filters` its words of the first matrices.
__device__ __forceinline__ void multiply(float (*sums)[COLUMNS][4], const unsigned *const *rows,
                                         const unsigned *filters) {
#pragma unroll(STEPS > 2 ? 1 : STEPS)
    for (int step = 0; step < STEPS; step++) {
        // Tensor cores cut off what they add up, always towards zero. In f32 few sums in a row are theirs.
        float few[FRAGMENTS][COLUMNS][4] = {};
        float(*to)[COLUMNS][4] = PRECISION == F32 ? few : sums;
#pragma unroll
        for (int tap = 0; tap < TAPS; tap++) {
            unsigned right[COLUMNS][2];
#pragma unroll
            for (int j = 0; j < GROUPS; j++) {
                const unsigned *at = filters + ((step * TAPS + tap) * (KB / 16) + j) * WARP * 4;
                const uint4 words = *reinterpret_cast<const uint4 *>(at);
                right[2 * j][0] = rounded(words.x), right[2 * j][1] = rounded(words.y);
                right[2 * j + 1][0] = rounded(words.z), right[2 * j + 1][1] = rounded(words.w);
            }
#pragma unroll
            for (int i = 0; i < FRAGMENTS; i++) {
                const int r = tap / FILTER, s = tap % FILTER, odd_y = i % 4 / 2, odd_x = i % 2;
                if (!meets(odd_y, r) || !meets(odd_x, s)) continue;
                unsigned left[4];
                load_matrices(left, rows[i] + (distance(odd_y, r) * TILE_W + distance(odd_x, s)) * PITCH + step * 8);
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) multiply_add(to[i][j], left, right[j]);
            }
        }
        if (PRECISION != F32) continue;
#pragma unroll
        for (int i = 0; i < FRAGMENTS; i++) {
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
#pragma unroll
                for (int k = 0; k < 4; k++) sums[i][j][k] += few[i][j][k];
            }
        }
    }
}

// What a thread has of a fragment: four outputs of each 16, of two pixels.
struct Share {
    Known known[2][GROUPS];
};

__device__ __forceinline__ void know_share(Share &share, const Block &b, int fragment, int k) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const Pixel at = pixel(fragment, threadIdx.x % WARP / 4 + h * 8);
        if (b.image + at.n >= b.count) continue;
#pragma unroll
        for (int q = 0; q < GROUPS; q++) {
            share.known[h][q] = know<TARGET>(b.to, b.image + at.n, b.top + at.y, at.x, HEIGHT, WIDTH, k + q * 16);
        }
    }
}

__device__ __forceinline__ void write_share(const Share &share, const Block &b, int fragment, int k,
                                            const float (*sums)[4], float4 (*totals)[3]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const Pixel at = pixel(fragment, threadIdx.x % WARP / 4 + h * 8);
        if (b.image + at.n >= b.count) continue;
#pragma unroll
        for (int q = 0; q < GROUPS; q++) {
            const float *low = sums[2 * q] + 2 * h, *high = sums[2 * q + 1] + 2 * h;
            write<TARGET>(b.to, share.known[h][q], b.image + at.n, b.top + at.y, at.x, HEIGHT, WIDTH, k + q * 16,
                          make_float4(low[0], low[1], high[0], high[1]), totals[q]);
        }
    }
}

// Adds up what the block's threads hold of each channel, lanes before warps, in one order.
__device__ __forceinline__ void leave_sums(float *memory, const Block &b, const float4 (*totals)[3]) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const bool three = TARGET == RECTIFIER && b.to.side;
    __syncthreads(); // tiles have been read
#pragma unroll
    for (int q = 0; q < GROUPS; q++) {
#pragma unroll
        for (int s = 0; s < 3; s++) {
            float4 sum = totals[q][s];
            if (s < 2 || three) {
#pragma unroll
                for (int from = 4; from < WARP; from *= 2) sum = add(sum, from_lane(sum, from));
            }
            const int channel = (warp % WARPS_K * GROUPS + q) * 16 + lane * 4;
            if (lane < 4) store(memory + (warp / WARPS_K * 3 + s) * KB + channel, sum);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < (three ? 3 : 2) * KB; i += THREADS) {
        float sum = 0.f;
#pragma unroll
        for (int w = 0; w < WARPS_X; w++) sum += memory[w * 3 * KB + i];
        add_exactly(b.sums + (i / KB * b.to.channels + b.k + i % KB) * WORDS, sum);
    }
}

__device__ __forceinline__ void convolve(Block &b) {
    SHARED_MEMORY(unsigned, memory);
    unsigned *tile = memory + LINE_FLOATS * b.from.channels, *own_filters = tile + ALL * PITCH; // behind the lines
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int begin = warp / WARPS_K * FRAGMENTS, k = b.k + warp % WARPS_K * COLUMNS * 8 + lane % 4 * 4;
    load_filters(own_filters, b, 0); // no launch of this step writes them before this one has ended
    await_launches();

    const unsigned *rows[FRAGMENTS];
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        const Pixel p = pixel(begin + i, lane % 16);
        rows[i] = tile + ((p.n * TILE_H + p.y * STEP / DILATE) * TILE_W + p.x * STEP / DILATE) * PITCH + lane / 16 * 4;
    }
    float sums[FRAGMENTS][COLUMNS][4] = {};
#pragma unroll 1
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        const int c = chunk * WB * EACH;
        if (chunk > 0) {
            __syncthreads();
            load_filters(own_filters, b, c);
        }
        load_tile(tile, b, c, reinterpret_cast<float *>(memory));
        await_copies();
        __syncthreads();
        multiply(sums, rows, own_filters + (warp % WARPS_K * GROUPS * WARP + lane) * 4);
    }
    let_next_begin();

    constexpr int TOGETHER = FRAGMENTS < 2 ? 1 : 2;
    float4 totals[GROUPS][3] = {};
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i += TOGETHER) {
        Share shares[TOGETHER];
#pragma unroll
        for (int j = 0; j < TOGETHER; j++) know_share(shares[j], b, begin + i + j, k);
#pragma unroll
        for (int j = 0; j < TOGETHER; j++) write_share(shares[j], b, begin + i + j, k, sums[i + j], totals);
    }
    if (TARGET != PLAIN && b.sums) leave_sums(reinterpret_cast<float *>(memory), b, totals);
}
