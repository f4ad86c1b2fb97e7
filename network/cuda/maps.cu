// What kernels read and write: maps `[instance][image][row][column][channel]`, made while they are read (normalised,
// added, rectified, pooled; on the way back the gradient behind a BatchNorm) and summed while they are written.
// Four channels at a time. Pasted behind `stored.cu`, in front of the kernels that use it; knows no convolution.

// What a Read makes of its memory.
enum Kind {
    IMAGE,     // the cut and normalised image: `first` bytes, `second` table, `third` examples
    RECTIFIED, // relu(line(first) + second): line in `third`, that of a projection in `fourth`
    POOLED,    // the largest of each 2x2 of relu(line(first)), which is twice as large
    GRADIENT,  // a g + b z + c: g in `first`, z in `second`, a b c in `third`
    UNPOOLED,  // the same behind a maximum: g is half as large; line of z in `fourth`
};

// What a Write does with values.
enum Target {
    KEEP,      // z: sums of z and its squares
    RECTIFIER, // gradient of a rectified map, made that of what was rectified: sums of g, g z (and g z of a projection)
    MAXIMUM,   // the same for the largest of each 2x2: z is twice as large
    PLAIN,     // the values
};

constexpr int SIZE = 32, PADDING = 4; // rows and columns of images, and zeros around them

struct Example {
    unsigned index;
    unsigned char dy, dx, flip, unused;
};

struct Read {
    const void *first, *second;
    const float *third, *fourth;
    int channels;
};

struct Write {
    Stored *out;
    const Stored *z, *side;
    const float *line;
    const unsigned char *bits;
    int add, channels;
};

__device__ __forceinline__ float4 fill(float v) { return make_float4(v, v, v, v); }
__device__ __forceinline__ float4 fma(float4 a, float4 b, float4 c) {
    return make_float4(fmaf(a.x, b.x, c.x), fmaf(a.y, b.y, c.y), fmaf(a.z, b.z, c.z), fmaf(a.w, b.w, c.w));
}
__device__ __forceinline__ float4 add(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
// NaN survives.
__device__ __forceinline__ float relu(float v) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("max.NaN.f32 %0, %0, 0f00000000;" : "+f"(v));
    return v;
#else
    return v <= 0.f ? 0.f : v;
#endif
}
__device__ __forceinline__ float4 relu(float4 v) { return make_float4(relu(v.x), relu(v.y), relu(v.z), relu(v.w)); }
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }
__device__ __forceinline__ float4 larger(float4 a, float4 b) {
    return make_float4(larger(a.x, b.x), larger(a.y, b.y), larger(a.z, b.z), larger(a.w, b.w));
}
__device__ __forceinline__ unsigned char signs(float4 v) {
    return (v.x > 0.f) | (v.y > 0.f) << 1 | (v.z > 0.f) << 2 | (v.w > 0.f) << 3;
}
__device__ __forceinline__ float4 keep(float4 v, unsigned bits) {
    return make_float4(bits & 1 ? v.x : 0.f, bits & 2 ? v.y : 0.f, bits & 4 ? v.z : 0.f, bits & 8 ? v.w : 0.f);
}
__device__ __forceinline__ float part(float4 v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// Of a map's elements there are fewer than 2^32.
__device__ __forceinline__ unsigned place(int n, int y, int x, int h, int w, int channels) {
    return ((unsigned(n) * h + y) * w + x) * channels;
}

// Four pixels in reading order: of each channel, which is the first of the largest.
struct Square {
    float4 value[4];
    unsigned at[4];
};
__device__ __forceinline__ Square square(const Stored *z, const float *line, int channels, int n, int y, int x,
                                         int h, int w, int c) {
    Square s;
    const float4 scale = load(line + c), shift = load(line + channels + c);
    for (int i = 0; i < 4; i++) {
        s.at[i] = place(n, 2 * y + i / 2, 2 * x + i % 2, 2 * h, 2 * w, channels) + c;
        s.value[i] = fma(load(z + s.at[i]), scale, shift);
    }
    return s;
}
__device__ __forceinline__ int winner(float a, float b, float c, float d) {
    return larger(c, d) > larger(a, b) ? 2 + (d > c) : b > a;
}
__device__ __forceinline__ unsigned winners(const Square &s, int i) {
    const float4 *v = s.value;
    return (winner(v[0].x, v[1].x, v[2].x, v[3].x) == i) | (winner(v[0].y, v[1].y, v[2].y, v[3].y) == i) << 1 |
           (winner(v[0].z, v[1].z, v[2].z, v[3].z) == i) << 2 | (winner(v[0].w, v[1].w, v[2].w, v[3].w) == i) << 3;
}

// Channels c.. of pixel (y, x) of image n, as the definition of augmentation has it.
__device__ __forceinline__ float4 image(const Read &m, int n, int y, int x, int c) {
    if (c > 0) return fill(0.f);
    const Example e = reinterpret_cast<const Example *>(m.third)[n];
    const int row = y + e.dy - PADDING, cut = x + e.dx - PADDING;
    const bool inside = row >= 0 && row < SIZE && cut >= 0 && cut < SIZE;
    const int column = e.flip ? SIZE - 1 - cut : cut;
    const unsigned char *bytes = static_cast<const unsigned char *>(m.first) + size_t(e.index) * 3 * SIZE * SIZE;
    float v[3];
    for (int i = 0; i < 3; i++) {
        const unsigned byte = inside ? bytes[(i * SIZE + row) * SIZE + column] : 0;
        v[i] = static_cast<const float *>(m.second)[i * 256 + byte];
    }
    return make_float4(v[0], v[1], v[2], 0.f);
}

// Of four channels of a Read: what is the same for all pixels. RECTIFIED: scale, shift, and those of what is added;
// GRADIENT and UNPOOLED: a, b, c.
struct Lines {
    float4 first, second, third, fourth;
};
template <int kind> __device__ __forceinline__ Lines lines(const Read &m, int c) {
    Lines l;
    if constexpr (kind == RECTIFIED) { // x 1 + 0 is x
        l.first = m.third ? load(m.third + c) : fill(1.f);
        l.second = m.third ? load(m.third + m.channels + c) : fill(0.f);
        l.third = m.fourth ? load(m.fourth + c) : fill(1.f);
        l.fourth = m.fourth ? load(m.fourth + m.channels + c) : fill(0.f);
    }
    if constexpr (kind == GRADIENT || kind == UNPOOLED) {
        l.first = load(m.third + c), l.second = load(m.third + m.channels + c);
        l.third = load(m.third + 2 * m.channels + c);
    }
    return l;
}

// Of a pixel: what is loaded of it, or what was made already.
struct Fetched {
    Four first, second;
    float4 made;
};
// Channels c.. of pixel (y, x) of image n of a map of h rows and w columns, which exist.
template <int kind>
__device__ __forceinline__ Fetched fetch(const Read &m, const Lines &l, int n, int y, int x, int h, int w, int c) {
    Fetched f;
    const Stored *first = static_cast<const Stored *>(m.first), *second = static_cast<const Stored *>(m.second);
    const unsigned at = place(n, y, x, h, w, m.channels) + c;
    if constexpr (kind == IMAGE) f.made = image(m, n, y, x, c);
    if constexpr (kind == RECTIFIED || kind == GRADIENT) {
        f.first = load_four(first + at);
        if (kind == GRADIENT || second) f.second = load_four(second + at);
    }
    if constexpr (kind == POOLED) {
        const Square s = square(first, m.third, m.channels, n, y, x, h, w, c);
        f.made = relu(larger(larger(s.value[0], s.value[1]), larger(s.value[2], s.value[3])));
    }
    if constexpr (kind == UNPOOLED) {
        const float4 g = load(first + place(n, y / 2, x / 2, h / 2, w / 2, m.channels) + c);
        const Square s = square(second, m.fourth, m.channels, n, y / 2, x / 2, h / 2, w / 2, c);
        const float4 behind = fma(load(second + at), l.second, l.third);
        f.made = fma(keep(g, winners(s, y % 2 * 2 + x % 2)), l.first, behind);
    }
    return f;
}
template <int kind> __device__ __forceinline__ float4 make(const Read &m, const Lines &l, const Fetched &f) {
    if constexpr (kind == RECTIFIED) {
        float4 v = fma(values(f.first), l.first, l.second);
        if (m.second) v = add(v, fma(values(f.second), l.third, l.fourth));
        return relu(v);
    }
    if constexpr (kind == GRADIENT) return fma(values(f.first), l.first, fma(values(f.second), l.second, l.third));
    return f.made;
}
// Zeros outside, without a branch.
__device__ __forceinline__ float4 if_inside(bool inside, float4 v) {
    return make_float4(inside ? v.x : 0.f, inside ? v.y : 0.f, inside ? v.z : 0.f, inside ? v.w : 0.f);
}
// All at once.
template <int kind> __device__ __forceinline__ float4 read(const Read &m, int n, int y, int x, int h, int w, int c) {
    const Lines l = lines<kind>(m, c);
    return make<kind>(m, l, fetch<kind>(m, l, n, y, x, h, w, c));
}

// The map of this block's instance; `image` images have room in each.
template <int kind>
__device__ __forceinline__ Read own_read(const void *first, const void *second, const float *third,
                                         const float *fourth, int channels, int images, int h, int w) {
    Read m = {first, second, third, fourth, channels};
    if constexpr (kind == IMAGE) {
        m.third = own(third, size_t(images) * (sizeof(Example) / sizeof(float)));
        return m;
    }
    const size_t size = size_t(images) * h * w * channels;
    m.first = own(static_cast<const Stored *>(first), kind == POOLED ? 4 * size : kind == UNPOOLED ? size / 4 : size);
    m.second = own(static_cast<const Stored *>(second), size);
    m.third = own(third, (kind == GRADIENT || kind == UNPOOLED ? 3 : 2) * channels);
    m.fourth = own(fourth, 2 * channels);
    return m;
}

template <int target>
__device__ __forceinline__ Write own_write(Stored *out, const Stored *z, const Stored *side, const float *line,
                                           const unsigned char *bits, int add, int channels, int images, int h,
                                           int w) {
    const size_t size = size_t(images) * h * w * channels;
    return {own(out, size),          own(z, target == MAXIMUM ? 4 * size : size),
            own(side, size),         own(line, 2 * channels),
            own(bits, size / 4), add, channels};
}

// What a Write needs to know of four channels of a pixel before it writes them.
struct Known {
    unsigned at;
    Four out, z, side;
    unsigned bits;
};
template <int target>
__device__ __forceinline__ Known know(const Write &m, int n, int y, int x, int h, int w, int k) {
    Known old;
    old.at = place(n, y, x, h, w, m.channels) + k;
    if constexpr (target == RECTIFIER) {
        if (m.add) old.out = load_four(m.out + old.at);
        old.z = load_four(m.z + old.at);
        if (m.side) old.side = load_four(m.side + old.at);
        if (m.bits) old.bits = m.bits[old.at / 4];
    }
    return old;
}

// Gives pixel (y, x) of image n its channels k.., and three sums of each their share: of the values as they are stored.
template <int target>
__device__ __forceinline__ void write(const Write &m, const Known &old, int n, int y, int x, int h, int w, int k,
                                      float4 v, float4 *sums) {
    if constexpr (target == PLAIN) store(m.out + old.at, v);
    if constexpr (target == KEEP) {
        v = store(m.out + old.at, v);
        sums[0] = add(sums[0], v);
        sums[1] = fma(v, v, sums[1]);
    }
    if constexpr (target == RECTIFIER) {
        if (m.add) v = add(v, values(old.out));
        const float4 z = values(old.z);
        const unsigned bits = m.bits ? old.bits : signs(fma(z, load(m.line + k), load(m.line + m.channels + k)));
        v = store(m.out + old.at, keep(v, bits));
        sums[0] = add(sums[0], v);
        sums[1] = fma(v, z, sums[1]);
        if (m.side) sums[2] = fma(v, values(old.side), sums[2]);
    }
    if constexpr (target == MAXIMUM) {
        const Square s = square(m.z, m.line, m.channels, n, y, x, h, w, k);
        float4 z = fill(0.f);
        unsigned positive = 0;
        for (int i = 0; i < 4; i++) {
            const unsigned won = winners(s, i);
            z = add(z, keep(load(m.z + s.at[i]), won));
            positive |= won & signs(s.value[i]);
        }
        v = store(m.out + old.at, keep(v, positive));
        sums[0] = add(sums[0], v);
        sums[1] = fma(v, z, sums[1]);
    }
}
// All at once.
template <int target>
__device__ __forceinline__ void write(const Write &m, int n, int y, int x, int h, int w, int k, float4 v,
                                      float4 *sums) {
    write<target>(m, know<target>(m, n, y, x, h, w, k), n, y, x, h, w, k, v, sums);
}

// Adds up what the `lanes` threads of each group of `quads` x 4 channels of `width` hold, in the order of the lanes,
// and gives `put` which sum of `kinds`, two or three, it is, of which channel, and the sum. All threads of the block
// call it.
template <int quads, class Put>
__device__ __forceinline__ void reduce(float *memory, const float4 (*sums)[3], int kinds, int group, int lane,
                                       int lanes, int width, Put put) {
    const int pitch = lanes + 1;
    __syncthreads();
    for (int q = 0; q < quads; q++) {
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 4; j++) {
                memory[(i * width + (group * quads + q) * 4 + j) * pitch + lane] = part(sums[q][i], j);
            }
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kinds * width; i += blockDim.x) {
        float sum = 0.f;
        for (int l = 0; l < lanes; l++) sum += memory[i * pitch + l];
        put(i / width, i % width, sum);
    }
}
