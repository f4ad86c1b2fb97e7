// A convolution of maps that are made while they are read, from shared memory, with TX x TK outputs in each thread's
// registers. Pasted behind `tiles.cu`, which says what a tile is.
//
// A block has KB output channels; a strip is TX pixels of a row. Constants: those of `tiles.cu`; TX, TK, KB, CB.

// Pixels that a strip reads of a row, in fours where its first one lies well.
constexpr int NEED = DILATE == 2 ? TX / 2 + PAD : (TX - 1) * STEP + FILTER;
constexpr int VECTOR = DILATE == 2 ? NEED : (NEED + 3) / 4 * 4;
constexpr int LAST = DILATE == 2 ? TILE_W : (WIDTH - TX) * STEP + VECTOR;
constexpr int PITCH = ((LAST > TILE_W ? LAST : TILE_W) + 3) / 4 * 4;
constexpr int PLANE = (IMAGES * TILE_H * PITCH + 7) / 8 * 8 + 4; // off by a few banks from channel to channel
constexpr int STRIPS_X = WIDTH / TX, STRIPS = IMAGES * ROWS * STRIPS_X, THREADS = STRIPS * KB / TK;

// The tile's channels c .. c + CB, as [channel][image][row][column].
__device__ __forceinline__ void load_tile(float *tile, const Block &b, int c) {
    constexpr int QUADS = CB / 4;
    for (int i = threadIdx.x; i < IMAGES * TILE_H * TILE_W * QUADS; i += THREADS) {
        const int quad = i % QUADS, pixel = i / QUADS;
        const Lines line = lines<KIND>(b.from, c + quad * 4);
        const float4 v = make_pixel(b, line, fetch_pixel(b, line, pixel, c + quad * 4));
        float *to = tile + quad * 4 * PLANE + pixel / TILE_W * PITCH + pixel % TILE_W;
        to[0] = v.x;
        to[PLANE] = v.y;
        to[2 * PLANE] = v.z;
        to[3 * PLANE] = v.w;
    }
}

// Filters of channels c .. c + CB and outputs k .. k + KB, as [channel][tap][output].
__device__ __forceinline__ void load_filters(float *to, const Block &b, int c) {
    const int channels = b.from.channels, outputs = b.to.channels;
    for (int i = threadIdx.x; i < CB * TAPS * KB / 4; i += THREADS) {
        const int q = i % (KB / 4) * 4, tap = i / (KB / 4) % TAPS, own = i / (KB / 4) / TAPS;
        const float4 v = c + own < channels ? load(b.filters + (size_t(c + own) * TAPS + tap) * outputs + b.k + q)
                                            : fill(0.f);
        store(to + (own * TAPS + tap) * KB + q, v);
    }
}

// `odd` is the strip's row modulo 2.
__device__ __forceinline__ void multiply(float (*sums)[TK], const float *strip, const float *filters, int odd) {
#pragma unroll 2
    for (int c = 0; c < CB; c++) {
#pragma unroll
        for (int r = 0; r < FILTER; r++) {
            if (!meets(odd, r)) continue;
            const float *row = strip + c * PLANE + distance(odd, r) * PITCH;
            float v[VECTOR];
#pragma unroll
            for (int i = 0; i < VECTOR; i += DILATE == 2 ? 1 : 4) {
                if constexpr (DILATE == 2) {
                    v[i] = row[i];
                } else {
                    const float4 four = load(row + i);
                    v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
                }
            }
#pragma unroll
            for (int s = 0; s < FILTER; s++) {
                float w[TK];
#pragma unroll
                for (int k = 0; k < TK; k += 4) {
                    const float4 four = load(filters + (c * TAPS + r * FILTER + s) * KB + k);
                    w[k] = four.x, w[k + 1] = four.y, w[k + 2] = four.z, w[k + 3] = four.w;
                }
#pragma unroll
                for (int i = 0; i < TX; i++) {
                    if (!meets(i % 2, s)) continue;
                    const int at = DILATE == 2 ? i / 2 + distance(i % 2, s) : i * STEP + s;
#pragma unroll
                    for (int k = 0; k < TK; k++) sums[i][k] = fmaf(v[at], w[k], sums[i][k]);
                }
            }
        }
    }
}

__device__ __forceinline__ void convolve(Block &b) {
    SHARED_MEMORY(float, memory);
    float *tile = memory + LINE_FLOATS * b.from.channels, *own_filters = tile + CB * PLANE;
    const int lane = threadIdx.x % STRIPS, group = threadIdx.x / STRIPS;
    const int x = lane % STRIPS_X * TX, y = lane / STRIPS_X % ROWS, n = lane / STRIPS_X / ROWS;
    const float *strip = tile + (n * TILE_H + y * STEP / DILATE) * PITCH + x * STEP / DILATE;
    float sums[TX][TK] = {};
    await_launches();
    make_lines<THREADS>(b, memory);
    for (int c = 0; c < b.from.channels; c += CB) {
        load_tile(tile, b, c);
        load_filters(own_filters, b, c);
        __syncthreads();
        multiply(sums, strip, own_filters + group * TK, y % 2);
        __syncthreads();
    }
    let_next_begin();

    float4 totals[TK / 4][3] = {};
    if (b.image + n < b.count) {
#pragma unroll
        for (int i = 0; i < TX; i++) {
#pragma unroll
            for (int q = 0; q < TK / 4; q++) {
                const float *v = sums[i] + q * 4;
                write<TARGET>(b.to, b.image + n, b.top + y, x + i, HEIGHT, WIDTH, b.k + group * TK + q * 4,
                              make_float4(v[0], v[1], v[2], v[3]), totals[q]);
            }
        }
    }
    if (TARGET != PLAIN && b.sums) {
        const int kinds = TARGET == RECTIFIER && b.to.side ? 3 : 2;
        reduce<TK / 4>(memory, totals, kinds, group, lane, STRIPS, KB, [&](int sum, int channel, float all) {
            add_exactly(b.sums + (sum * b.to.channels + b.k + channel) * WORDS, all);
        });
    }
}
