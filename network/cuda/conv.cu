// A convolution of maps that are made while they are read, from shared memory, with TX x TK outputs in each thread's
// registers. Forward, or (with flipped filters) the gradient of what was read: behind a stride, DILATE = 2 puts zeros
// between the pixels.
//
// A block has ROWS rows of IMAGES images and KB output channels; a strip is TX pixels of a row.
// Constants: FILTER, STRIDE, DILATE, KIND, TARGET, HEIGHT, WIDTH (of what is written), ROWS, IMAGES, TX, TK, KB, CB.

constexpr int PAD = FILTER / 2, TAPS = FILTER * FILTER;
constexpr int STEP = FILTER == 1 ? 1 : STRIDE;          // a 1x1 filter never sees the pixels between
constexpr int IN_H = HEIGHT * STRIDE / DILATE, IN_W = WIDTH * STRIDE / DILATE;
constexpr int TILE_H = (ROWS - 1) * STEP + FILTER, TILE_W = (WIDTH - 1) * STEP + FILTER;
constexpr int NEED = (TX - 1) * STEP + FILTER;          // pixels that a strip reads of a row
constexpr int VECTOR = (NEED + 3) / 4 * 4;
constexpr int PITCH = ((WIDTH - TX) * STEP + VECTOR + 3) / 4 * 4 > TILE_W
                          ? ((WIDTH - TX) * STEP + VECTOR + 3) / 4 * 4
                          : (TILE_W + 3) / 4 * 4;
constexpr int PLANE = (IMAGES * TILE_H * PITCH + 7) / 8 * 8 + 4; // off by a few banks from channel to channel
constexpr int STRIPS_X = WIDTH / TX, STRIPS = IMAGES * ROWS * STRIPS_X;
constexpr int THREADS = STRIPS * KB / TK, TILES_Y = HEIGHT / ROWS;

// Channels c.. of tile pixel (ty, tx); keeps what it is asked to of pixels that no other tile has.
__device__ __forceinline__ float4 tile_pixel(const Read &m, int n, int count, int top, int ty, int tx, int c,
                                             float *kept, unsigned char *bits) {
    int y = top * STEP - PAD + ty, x = tx - PAD;
    if (n >= count || c >= m.channels) return fill(0.f);
    if (DILATE == 2) {
        if ((y & 1) | (x & 1)) return fill(0.f);
        y >>= 1;
        x >>= 1;
    } else if (FILTER == 1) {
        y *= STRIDE;
        x *= STRIDE;
    }
    if (y < 0 || y >= IN_H || x < 0 || x >= IN_W) return fill(0.f);
    const float4 v = read<KIND>(m, n, y, x, IN_H, IN_W, c);
    if (KIND == RECTIFIED && y >= top * STEP && y < (top + ROWS) * STEP) {
        const size_t at = place(n, y, x, IN_H, IN_W, m.channels) + c;
        if (kept) store(kept + at, v);
        if (bits) bits[at / 4] = signs(v);
    }
    return v;
}

// The tile's channels c .. c + CB, as [channel][image][row][column].
__device__ __forceinline__ void load_tile(float *tile, const Read &m, int first, int count, int top, int c,
                                          float *kept, unsigned char *bits) {
    constexpr int QUADS = CB / 4, PIXELS = TILE_H * TILE_W;
    for (int i = threadIdx.x; i < IMAGES * PIXELS * QUADS; i += THREADS) {
        const int quad = i % QUADS, pixel = i / QUADS % PIXELS, image = i / QUADS / PIXELS;
        const int ty = pixel / TILE_W, tx = pixel % TILE_W;
        const float4 v = tile_pixel(m, first + image, count, top, ty, tx, c + quad * 4, kept, bits);
        float *to = tile + quad * 4 * PLANE + (image * TILE_H + ty) * PITCH + tx;
        to[0] = v.x;
        to[PLANE] = v.y;
        to[2 * PLANE] = v.z;
        to[3 * PLANE] = v.w;
    }
}

// Filters of channels c .. c + CB and outputs k .. k + KB, as [channel][tap][output].
__device__ __forceinline__ void load_filters(float *to, const float *filters, int channels, int c, int outputs,
                                             int k) {
    for (int i = threadIdx.x; i < CB * TAPS * KB / 4; i += THREADS) {
        const int q = i % (KB / 4) * 4, tap = i / (KB / 4) % TAPS, own = i / (KB / 4) / TAPS;
        const float4 v = c + own < channels ? load(filters + (size_t(c + own) * TAPS + tap) * outputs + k + q)
                                            : fill(0.f);
        store(to + (own * TAPS + tap) * KB + q, v);
    }
}

__device__ __forceinline__ void multiply(float (*sums)[TK], const float *strip, const float *filters) {
#pragma unroll 2
    for (int c = 0; c < CB; c++) {
#pragma unroll
        for (int r = 0; r < FILTER; r++) {
            float v[VECTOR];
#pragma unroll
            for (int i = 0; i < VECTOR; i += 4) {
                const float4 four = load(strip + c * PLANE + r * PITCH + i);
                v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
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
#pragma unroll
                    for (int k = 0; k < TK; k++) sums[i][k] = fmaf(v[i * STEP + s], w[k], sums[i][k]);
                }
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv(const void *first, const float *second, const float *third, const float *fourth, float *kept,
         unsigned char *bits, const float *filters, unsigned packed, float *out, const float *z, const float *side,
         const float *line, const unsigned char *pass, int add, float *partial, unsigned partials, int count,
         int images, int channels, int outputs) {
    SHARED_MEMORY(float, memory);
    float *tile = memory, *own_filters = memory + CB * PLANE;
    const Read m = own_read<KIND>(first, second, third, fourth, channels, images, IN_H, IN_W);
    const Write to = own_write<TARGET>(out, z, side, line, pass, add, outputs, images, HEIGHT, WIDTH);
    const size_t size = size_t(images) * IN_H * IN_W * channels;
    const bool keeps = blockIdx.y == 0; // one block for each pixel
    kept = keeps ? own(kept, size) : nullptr;
    bits = keeps ? own(bits, size / 4) : nullptr;
    filters = own(filters, packed);

    const int image = blockIdx.x / TILES_Y * IMAGES, top = blockIdx.x % TILES_Y * ROWS, k = blockIdx.y * KB;
    const int lane = threadIdx.x % STRIPS, group = threadIdx.x / STRIPS;
    const int x = lane % STRIPS_X * TX, y = lane / STRIPS_X % ROWS, n = lane / STRIPS_X / ROWS;
    const float *strip = tile + (n * TILE_H + y * STEP) * PITCH + x * STEP;
    float sums[TX][TK] = {};
    for (int c = 0; c < channels; c += CB) {
        load_tile(tile, m, image, count, top, c, kept, bits);
        load_filters(own_filters, filters, channels, c, outputs, k);
        __syncthreads();
        multiply(sums, strip, own_filters + group * TK);
        __syncthreads();
    }

    float4 totals[TK / 4][3] = {};
    if (image + n < count) {
#pragma unroll
        for (int i = 0; i < TX; i++) {
#pragma unroll
            for (int q = 0; q < TK / 4; q++) {
                const float *v = sums[i] + q * 4;
                write<TARGET>(to, image + n, top + y, x + i, HEIGHT, WIDTH, k + group * TK + q * 4,
                              make_float4(v[0], v[1], v[2], v[3]), totals[q]);
            }
        }
    }
    if (TARGET != PLAIN && partial) {
        reduce<TK / 4>(memory, totals, group, lane, STRIPS, own(partial, partials), blockIdx.x, outputs, k, KB);
    }
}
