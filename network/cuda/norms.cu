// What a BatchNorm makes of sums over a batch: forward mean, variance, scale and shift; backward the gradients of gamma
// and beta and a, b, c of the gradient a g + b z + c. The last block of a convolution that wrote a part of the sums
// adds all parts, in f64 and in one order, so that no launch of its own is needed. Pasted in front of the kernels that
// leave sums.

constexpr double EPS = 1e-5, SHARE = 0.1; // of the batch in the running statistics; as in arch.rs

// A BatchNorm's memory, of one instance. Any of `bias`, `running`, `d_gamma` and `d_beta` may be missing.
struct Norm {
    const float *gamma, *beta, *bias;
    double *moments;                        // means, then inverse deviations
    float *line, *running;                  // scale and shift; means, then variances
    float *d_gamma, *d_beta, *back;         // the last: a, b, c
};
#define NORM_PARAMETERS(n)                                                                                             \
    const float *gamma##n, const float *beta##n, const float *bias##n, unsigned values##n, double *moments##n,         \
        float *line##n, float *running##n, float *d_gamma##n, float *d_beta##n, unsigned gradients##n, float *back##n
#define OWN_NORM(n, channels)                                                                                          \
    own_norm(gamma##n, beta##n, bias##n, values##n, moments##n, line##n, running##n, d_gamma##n, d_beta##n,            \
             gradients##n, back##n, channels)
__device__ __forceinline__ Norm own_norm(NORM_PARAMETERS(), int channels) {
    return {own(gamma, values),      own(beta, values),         own(bias, values),
            own(moments, 2 * channels), own(line, 2 * channels), own(running, 2 * channels),
            own(d_gamma, gradients), own(d_beta, gradients),    own(back, 3 * channels)};
}

__device__ __forceinline__ float towards(float old, double now) { return float((1. - SHARE) * old + SHARE * now); }

// Channel c's values, to be loaded before its sums are there.
struct Held {
    float gamma, beta, bias, mean, variance;
    double moments[2];
};
__device__ __forceinline__ Held hold(const Norm &norm, int c, int channels, bool forward) {
    Held held = {norm.gamma[c]};
    if (forward) {
        held.beta = norm.beta[c], held.bias = norm.bias ? norm.bias[c] : 0.f;
        if (norm.running) held.mean = norm.running[c], held.variance = norm.running[channels + c];
    } else {
        held.moments[0] = norm.moments[c], held.moments[1] = norm.moments[channels + c];
    }
    return held;
}

// Its line by the sums of z and its squares over `count` values. The bias is what z lacks.
__device__ __forceinline__ void normalise(const Norm &norm, const Held &held, int c, int channels, int count,
                                          double sum, double squares) {
    const double share = 1. / count, mean = sum * share, spread = squares * share - mean * mean;
    const double variance = spread < 0. ? 0. : spread; // in this form NaN survives
    const double inverse = 1. / sqrt(variance + EPS), scale = held.gamma * inverse;
    norm.moments[c] = mean;
    norm.moments[channels + c] = inverse;
    norm.line[c] = float(scale);
    norm.line[channels + c] = float(held.beta - mean * scale);
    if (!norm.running) return;
    const double unbiased = variance * (count / (count > 1 ? count - 1. : 1.));
    norm.running[c] = towards(held.mean, mean + held.bias);
    norm.running[channels + c] = towards(held.variance, unbiased);
}

// Its gradients by the sums of g and g z.
__device__ __forceinline__ void differentiate(const Norm &norm, const Held &held, int c, int channels, int count,
                                              double g, double gz) {
    const double mean = held.moments[0], inverse = held.moments[1], share = 1. / count;
    const double slope = (gz - mean * g) * inverse;
    if (norm.d_gamma) norm.d_gamma[c] = float(slope);
    if (norm.d_beta) norm.d_beta[c] = float(g);
    const double a = held.gamma * inverse, tilt = inverse * slope * share;
    norm.back[c] = float(a);
    norm.back[channels + c] = float(-a * tilt);
    norm.back[2 * channels + c] = float(a * (mean * tilt - g * share));
}

// The line by the running statistics.
__device__ __forceinline__ void follow(const Norm &norm, int c, int channels) {
    const double mean = norm.running[c] - (norm.bias ? norm.bias[c] : 0.);
    const double scale = norm.gamma[c] / sqrt(norm.running[channels + c] + EPS);
    norm.line[c] = float(scale);
    norm.line[channels + c] = float(norm.beta[c] - mean * scale);
}

// The first `kinds` sums of channels first .. first + width over all `partial[tile][sum][channel]`, of three sums, as
// `sums[sum][channel]`. `memory` has room for four doubles of each thread, and `sums` lie behind them. All threads of
// the block call it.
template <int width, int threads, int kinds>
__device__ __forceinline__ const double *add_up(double *memory, const float *partial, int tiles, int channels,
                                                int first) {
    constexpr int FOURS = kinds * width / 4, SLICES = threads / FOURS, AT_ONCE = 8;
    static_assert(SLICES > 0, "a thread for each four sums");
    const int four = threadIdx.x % FOURS, slice = threadIdx.x / FOURS;
    double *totals = memory + threads * 4;
    if (slice < SLICES) {
        double sum[4] = {};
        const float *from = partial + size_t(four / (width / 4)) * channels + first + four % (width / 4) * 4;
#pragma unroll 1
        for (int begin = slice; begin < tiles; begin += SLICES * AT_ONCE) {
            float4 parts[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) { // what is behind the end is loaded twice, and not used
                const int tile = min(begin + i * SLICES, tiles - 1);
                parts[i] = *reinterpret_cast<const float4 *>(from + size_t(tile) * 3 * channels);
            }
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                if (begin + i * SLICES >= tiles) continue;
                sum[0] += parts[i].x, sum[1] += parts[i].y, sum[2] += parts[i].z, sum[3] += parts[i].w;
            }
        }
        for (int i = 0; i < 4; i++) memory[(slice * FOURS + four) * 4 + i] = sum[i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kinds * width; i += threads) {
        double sum = 0.;
#pragma unroll 8
        for (int s = 0; s < SLICES; s++) sum += memory[s * FOURS * 4 + i];
        totals[i] = sum;
    }
    __syncthreads();
    return totals;
}
