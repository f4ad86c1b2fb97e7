// The end of the network: the mean over all pixels, the output layer, softmax cross-entropy, and the way back to the
// last map. Logits and losses are f64, and all sums have one order. Constants: CHANNELS, HEIGHT, WIDTH of the last map.

constexpr int THREADS = 256, WARPS = THREADS / 32, AREA = HEIGHT * WIDTH;
// Each thread has four channels; neighbours have neighbouring ones, and LANES threads have the same of other pixels.
constexpr int FOURS = CHANNELS / 4, POWER = FOURS & -FOURS, QUADS = POWER < THREADS ? POWER : THREADS;
constexpr int LANES = THREADS / QUADS, CHUNK = QUADS * 4;
constexpr int AT_ONCE = 4; // pixels whose reads do not wait for each other

// As Rust has it.
struct Tally {
    unsigned long long examples;
    double loss;
    unsigned long long correct;
};

// Adds up what the threads hold over their lanes; `put` is given each sum's number, its channel in the chunk and it.
template <int sums, class Put>
__device__ __forceinline__ void fold(float *memory, const float4 (&held)[sums], Put put) {
    for (int i = 0; i < sums; i++) store(memory + (i * THREADS + threadIdx.x) * 4, held[i]);
    __syncthreads();
    for (int i = threadIdx.x; i < sums * CHUNK; i += THREADS) {
        const float *first = memory + i / CHUNK * THREADS * 4 + i % CHUNK;
        float sum = 0.f;
        for (int lane = 0; lane < LANES; lane++) sum += first[lane * CHUNK];
        put(i / CHUNK, i % CHUNK, sum);
    }
    __syncthreads();
}

// The means of image n; also keeps the last map's signs.
__device__ __forceinline__ void means(float *memory, float *mean, float *pooled, const Read &m, int n,
                                      unsigned char *bits) {
    const int quad = threadIdx.x % QUADS, lane = threadIdx.x / QUADS;
    for (int c = 0; c < CHANNELS; c += CHUNK) {
        const int k = c + quad * 4;
        float4 sum[1] = {fill(0.f)};
        for (int first = lane; first < AREA; first += AT_ONCE * LANES) {
            float4 v[AT_ONCE];
            for (int i = 0; i < AT_ONCE; i++) {
                const int p = first + i * LANES;
                v[i] = p < AREA ? read<RECTIFIED>(m, n, p / WIDTH, p % WIDTH, HEIGHT, WIDTH, k) : fill(0.f);
            }
            for (int i = 0; i < AT_ONCE; i++) {
                const int p = first + i * LANES;
                if (bits && p < AREA) {
                    bits[(place(n, p / WIDTH, p % WIDTH, HEIGHT, WIDTH, CHANNELS) + k) / 4] = signs(v[i]);
                }
                sum[0] = add(sum[0], v[i]);
            }
        }
        fold(memory, sum, [&](int, int i, float all) { mean[c + i] = pooled[c + i] = all / AREA; });
    }
}

// One warp: the loss of an image and whether it is correct, and the mean loss's gradient for its logits.
__device__ __forceinline__ void softmax(const double *logits, double *powers, double *d_logits, double *loss,
                                        int *correct, int label, int count, int classes) {
    const int lane = threadIdx.x;
    const auto larger = [](double a, double b) { return a > b || a != a ? a : b; }; // in this form NaN survives
    double best = logits[0], all = 0.;
    for (int k = lane; k < classes; k += 32) best = larger(best, logits[k]);
    best = over_warp(best, larger);
    int found = classes; // the first of the largest
    for (int k = lane; k < classes; k += 32) {
        powers[k] = exp(logits[k] - best);
        all += powers[k];
        if (logits[k] == best) found = min(found, k);
    }
    all = over_warp(all, [](double a, double b) { return a + b; });
    found = over_warp(found, [](int a, int b) { return min(a, b); });
    if (lane == 0) {
        *loss = log(all) - (logits[label] - best);
        *correct = found == label;
    }
    for (int k = lane; k < classes; k += 32) {
        d_logits[k] = powers[k] = (powers[k] / all - (k == label)) / count;
    }
}

// Adds a batch to the sums over examples.
__device__ __forceinline__ void tell(double *memory, const double *losses, const int *correct, int count,
                                     Tally *tally) {
    double loss = 0., hits = 0.;
    for (int n = threadIdx.x; n < count; n += THREADS) {
        loss += losses[n];
        hits += correct[n];
    }
    const auto plus = [](double a, double b) { return a + b; };
    loss = over_warp(loss, plus);
    hits = over_warp(hits, plus);
    if (threadIdx.x % 32 == 0) {
        memory[threadIdx.x / 32 * 2] = loss;
        memory[threadIdx.x / 32 * 2 + 1] = hits;
    }
    __syncthreads();
    if (threadIdx.x > 0) return;
    Tally sum = *tally;
    loss = hits = 0.;
    for (int warp = 0; warp < WARPS; warp++) {
        loss += memory[warp * 2];
        hits += memory[warp * 2 + 1];
    }
    sum.loss += loss;
    sum.correct += static_cast<unsigned long long>(hits);
    sum.examples += count;
    *tally = sum;
}

// One image in each block: `pooled`, `logits`, its loss and whether it is correct, and the mean loss's gradient for the
// logits; where there is an `out`, also that of the last map, with its sums. The last block adds the batch to `tally`,
// if there is one.
extern "C" __global__ void __launch_bounds__(THREADS)
    head(const Stored *z, const Stored *side, const float *line, const float *side_line, unsigned char *bits,
         const float *weights, const float *bias, unsigned values, const Example *examples,
         const unsigned short *labels, float *pooled, double *logits, double *d_logits, double *losses, int *correct,
         int count, int images, int classes, Stored *out, const Stored *back_z, const Stored *back_side,
         const float *back_line, const unsigned char *pass, Word *exact, unsigned words, unsigned *counters,
         Tally *tally) {
    await_launches();
    let_next_begin();
    SHARED_MEMORY(double, memory);
    double *own_logits = memory, *powers = memory + classes;
    float *mean = reinterpret_cast<float *>(memory + 2 * classes), *sums = mean + CHANNELS;
    const int n = blockIdx.x, thread = threadIdx.x, warp = thread / 32;
    const size_t image = size_t(blockIdx.z) * images + n;
    const int label = labels[examples[image].index];
    const Read m = own_read<RECTIFIED>(z, side, line, side_line, CHANNELS, images, HEIGHT, WIDTH);
    weights = own(weights, values);
    bias = own(bias, values);
    means(sums, mean, pooled + image * CHANNELS, m, n, own(bits, size_t(images) * AREA * CHANNELS / 4));

    for (int k = warp; k < classes; k += WARPS) {
        double sum = 0.;
        for (int c = thread % 32; c < CHANNELS; c += 32) sum += double(weights[size_t(k) * CHANNELS + c]) * mean[c];
        sum = over_warp(sum, [](double a, double b) { return a + b; }) + bias[k];
        if (thread % 32 == 0) own_logits[k] = logits[image * classes + k] = sum;
    }
    __syncthreads();
    if (warp == 0) {
        softmax(own_logits, powers, d_logits + image * classes, losses + image, correct + image, label, count,
                classes);
    }
    __syncthreads();

    if (out) {
        for (int c = thread; c < CHANNELS; c += THREADS) {
            double sum = 0.;
            for (int k = 0; k < classes; k++) sum += weights[size_t(k) * CHANNELS + c] * powers[k];
            mean[c] = float(sum / AREA); // the gradient of each of its pixels
        }
        __syncthreads();
        const Write to =
            own_write<RECTIFIER>(out, back_z, back_side, back_line, pass, 0, CHANNELS, images, HEIGHT, WIDTH);
        exact = own(exact, words);
        for (int c = 0; c < CHANNELS; c += CHUNK) {
            const int k = c + thread % QUADS * 4;
            const float4 v = load(mean + k);
            float4 held[3] = {};
            for (int p = thread / QUADS; p < AREA; p += LANES) {
                write<RECTIFIER>(to, n, p / WIDTH, p % WIDTH, HEIGHT, WIDTH, k, v, held);
            }
            fold(sums, held, [&](int which, int i, float all) {
                add_exactly(exact + (which * CHANNELS + c + i) * WORDS, all);
            });
        }
    }
    if (!tally || !last_block(own(counters, COUNTERS), count)) return;
    const size_t first = size_t(blockIdx.z) * images;
    tell(memory, losses + first, correct + first, count, tally + blockIdx.z);
}

// The gradients of the output layer: weights `K C`, then biases. A block has 32 of them, and each of its warps a share
// of the images.
extern "C" __global__ void __launch_bounds__(THREADS)
    output(const double *d_logits, const float *pooled, float *d_weights, float *d_bias, unsigned gradients,
           int count, int images, int classes) {
    await_launches();
    let_next_begin();
    SHARED_MEMORY(double, memory);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, i = blockIdx.x * 32 + lane;
    const int weights = classes * CHANNELS, k = i < weights ? i / CHANNELS : i - weights;
    d_logits = own(d_logits, size_t(images) * classes);
    pooled = own(pooled, size_t(images) * CHANNELS);
    double sum = 0.;
    for (int n = warp; n < count && k < classes; n += WARPS) {
        sum += d_logits[n * classes + k] * (i < weights ? pooled[size_t(n) * CHANNELS + i % CHANNELS] : 1.f);
    }
    memory[threadIdx.x] = sum;
    __syncthreads();
    if (warp > 0 || k >= classes) return;
    for (int other = 1; other < WARPS; other++) sum += memory[other * 32 + lane];
    if (i < weights) own(d_weights, gradients)[i] = float(sum);
    else own(d_bias, gradients)[k] = float(sum);
}
