// The end of the network: the mean over all pixels, the output layer, softmax cross-entropy, and the way back to the
// last map. Logits and losses are f64. Constants: HEIGHT, WIDTH of the last map.

constexpr int THREADS = 128, PIXELS = 8, QUADS = THREADS / PIXELS, AREA = HEIGHT * WIDTH;

// As Rust has it.
struct Tally {
    unsigned long long examples;
    double loss;
    unsigned long long correct;
};

// One image in each block; also keeps the last map's signs.
__device__ __forceinline__ void mean(float *memory, float *pooled, const Read &m, int n, unsigned char *bits) {
    const int quad = threadIdx.x % QUADS, lane = threadIdx.x / QUADS;
    for (int c = 0; c < m.channels; c += QUADS * 4) {
        const int own_c = c + quad * 4;
        float4 sum = fill(0.f);
        for (int p = lane; p < AREA && own_c < m.channels; p += PIXELS) {
            const float4 v = read<RECTIFIED>(m, n, p / WIDTH, p % WIDTH, HEIGHT, WIDTH, own_c);
            if (bits) bits[(place(n, p / WIDTH, p % WIDTH, HEIGHT, WIDTH, m.channels) + own_c) / 4] = signs(v);
            sum = add(sum, v);
        }
        store(memory + threadIdx.x * 4, sum);
        __syncthreads();
        const int i = threadIdx.x;
        if (i < QUADS * 4 && c + i < m.channels) {
            float all = 0.f;
            for (int p = 0; p < PIXELS; p++) all += memory[p * QUADS * 4 + i];
            pooled[c + i] = all / AREA;
        }
        __syncthreads();
    }
}

// For image n: `pooled`, `logits`, its loss and whether it is correct; the mean loss's gradient for the logits and
// for each channel's pixels.
extern "C" __global__ void __launch_bounds__(THREADS)
    head(const Stored *z, const Stored *side, const float *line, const float *side_line, unsigned char *bits,
         const float *weights, const float *bias, unsigned values, const Example *examples,
         const unsigned short *labels, float *pooled, double *logits, double *d_logits, float *d_pooled,
         double *losses, int *correct, int count, int images, int channels, int classes) {
    SHARED_MEMORY(double, memory);
    double *own_logits = memory, *powers = memory + classes;
    float *sums = reinterpret_cast<float *>(memory + (classes * 2 + 1) / 2 * 2);
    const int n = blockIdx.x, thread = threadIdx.x;
    const size_t image = size_t(blockIdx.z) * images + n;
    const Read m = own_read<RECTIFIED>(z, side, line, side_line, channels, images, HEIGHT, WIDTH);
    weights = own(weights, values);
    bias = own(bias, values);
    pooled += image * channels;
    mean(sums, pooled, m, n, own(bits, size_t(images) * AREA * channels / 4));

    for (int k = thread; k < classes; k += THREADS) {
        double sum = bias[k];
        for (int c = 0; c < channels; c++) sum += double(weights[size_t(k) * channels + c]) * pooled[c];
        own_logits[k] = logits[image * classes + k] = sum;
    }
    __syncthreads();
    double best = own_logits[0];
    for (int k = 1; k < classes; k++) best = own_logits[k] > best ? own_logits[k] : best;
    for (int k = thread; k < classes; k += THREADS) powers[k] = exp(own_logits[k] - best);
    __syncthreads();
    double all = 0.;
    for (int k = 0; k < classes; k++) all += powers[k];
    const int label = labels[examples[image].index];
    if (thread == 0) {
        int found = 0;
        while (found < classes && own_logits[found] != best) found++;
        losses[image] = log(all) - (own_logits[label] - best);
        correct[image] = found == label;
    }
    __syncthreads();
    for (int k = thread; k < classes; k += THREADS) {
        powers[k] = (powers[k] / all - (k == label)) / count;
        d_logits[image * classes + k] = powers[k];
    }
    __syncthreads();
    for (int c = thread; c < channels; c += THREADS) {
        double sum = 0.;
        for (int k = 0; k < classes; k++) sum += weights[size_t(k) * channels + c] * powers[k];
        d_pooled[image * channels + c] = float(sum / AREA);
    }
}

// The last map's gradient and its sums: one image and 16 channels in each block.
extern "C" __global__ void __launch_bounds__(THREADS)
    spread(const float *d_pooled, Stored *out, const Stored *z, const Stored *side, const float *line,
           const unsigned char *pass, float *partial, unsigned partials, int images, int channels) {
    SHARED_MEMORY(float, floats);
    const Write to = own_write<RECTIFIER>(out, z, side, line, pass, 0, channels, images, HEIGHT, WIDTH);
    const int n = blockIdx.x, quad = threadIdx.x / 32, lane = threadIdx.x % 32, k = blockIdx.y * 16 + quad * 4;
    const float4 v = load(d_pooled + (size_t(blockIdx.z) * images + n) * channels + k);
    float4 sums[1][3] = {};
    for (int p = lane; p < AREA; p += 32) {
        write<RECTIFIER>(to, n, p / WIDTH, p % WIDTH, HEIGHT, WIDTH, k, v, sums[0]);
    }
    reduce<1>(floats, sums, quad, lane, 32, own(partial, partials), n, channels, blockIdx.y * 16, 16);
}

// The gradients of the output layer: weights `K C`, then biases.
extern "C" __global__ void __launch_bounds__(THREADS)
    output(const double *d_logits, const float *pooled, float *d_weights, float *d_bias, unsigned gradients,
           int count, int images, int channels, int classes) {
    const int i = blockIdx.x * THREADS + threadIdx.x, weights = classes * channels;
    if (i >= weights + classes) return;
    d_logits = own(d_logits, size_t(images) * classes);
    pooled = own(pooled, size_t(images) * channels);
    const int k = i < weights ? i / channels : i - weights;
    double sum = 0.;
    for (int n = 0; n < count; n++) {
        sum += d_logits[n * classes + k] * (i < weights ? pooled[size_t(n) * channels + i % channels] : 1.f);
    }
    if (i < weights) own(d_weights, gradients)[i] = float(sum);
    else own(d_bias, gradients)[k] = float(sum);
}

// Adds a batch to the sums over examples, in order of the images.
extern "C" __global__ void count(const double *losses, const int *correct, int count, int images, Tally *tally) {
    losses = own(losses, images);
    correct = own(correct, images);
    Tally sum = tally[blockIdx.z];
    for (int n = 0; n < count; n++) {
        sum.loss += losses[n];
        sum.correct += correct[n];
    }
    sum.examples += count;
    tally[blockIdx.z] = sum;
}
