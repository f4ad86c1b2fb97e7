// From the sums that a batch's blocks left to the lines that sweeps apply: forward mean, variance, scale and shift;
// backward the gradients of gamma and beta and a, b, c of the gradient a g + b z + c. Sums are added in f64, in one
// order. A block has 16 channels.

constexpr int CHANNELS = 16, SLICES = 16;
constexpr double EPS = 1e-5, SHARE = 0.1; // of the batch in the running statistics; as in arch.rs

__device__ __forceinline__ double total(double *memory, const float *partial, int tiles, int channels, int which) {
    const int lane = threadIdx.x % CHANNELS, slice = threadIdx.x / CHANNELS;
    double sum = 0.;
    for (int tile = slice; tile < tiles; tile += SLICES) {
        sum += partial[(size_t(tile) * 3 + which) * channels + blockIdx.x * CHANNELS + lane];
    }
    __syncthreads();
    memory[threadIdx.x] = sum;
    __syncthreads();
    sum = 0.;
    for (int i = 0; i < SLICES; i++) sum += memory[i * CHANNELS + lane];
    return sum;
}

__device__ __forceinline__ float towards(float old, double now) { return float((1. - SHARE) * old + SHARE * now); }

// The line of the BatchNorm by its batch's sums. `bias` is what z lacks; `running` holds means, then variances.
extern "C" __global__ void normalise(const float *partial, unsigned partials, int tiles, int channels, int count,
                                     const float *gamma, const float *beta, const float *bias, unsigned values,
                                     double *moments, float *line, float *running) {
    SHARED_MEMORY(double, memory);
    partial = own(partial, partials);
    const double sum = total(memory, partial, tiles, channels, 0);
    const double squares = total(memory, partial, tiles, channels, 1);
    if (threadIdx.x >= CHANNELS) return;
    const int c = blockIdx.x * CHANNELS + threadIdx.x;
    const double mean = sum / count, spread = squares / count - mean * mean;
    const double variance = spread < 0. ? 0. : spread; // in this form NaN survives
    const double inverse = 1. / sqrt(variance + EPS), scale = own(gamma, values)[c] * inverse;
    moments = own(moments, 2 * channels);
    moments[c] = mean;
    moments[channels + c] = inverse;
    line = own(line, 2 * channels);
    line[c] = float(scale);
    line[channels + c] = float(own(beta, values)[c] - mean * scale);
    if (running) {
        running = own(running, 2 * channels);
        const double offset = bias ? own(bias, values)[c] : 0.;
        running[c] = towards(running[c], mean + offset);
        running[channels + c] = towards(running[channels + c], variance * (count / (count > 1 ? count - 1. : 1.)));
    }
}

// The line of the BatchNorm by its running statistics.
extern "C" __global__ void fix(int channels, const float *gamma, const float *beta, const float *bias,
                               unsigned values, float *line, const float *running) {
    const int c = blockIdx.x * CHANNELS + threadIdx.x;
    running = own(running, 2 * channels);
    const double mean = running[c] - (bias ? double(own(bias, values)[c]) : 0.);
    const double scale = own(gamma, values)[c] / sqrt(running[channels + c] + EPS);
    line = own(line, 2 * channels);
    line[c] = float(scale);
    line[channels + c] = float(own(beta, values)[c] - mean * scale);
}

// From the sums of g (the first) and g z (the `which`-th).
extern "C" __global__ void differentiate(const float *partial, unsigned partials, int tiles, int which, int channels,
                                         int count, const float *gamma, unsigned values, const double *moments,
                                         float *d_gamma, float *d_beta, unsigned gradients, float *back) {
    SHARED_MEMORY(double, memory);
    partial = own(partial, partials);
    const double g = total(memory, partial, tiles, channels, 0);
    const double gz = total(memory, partial, tiles, channels, which);
    if (threadIdx.x >= CHANNELS) return;
    const int c = blockIdx.x * CHANNELS + threadIdx.x;
    moments = own(moments, 2 * channels);
    const double mean = moments[c], inverse = moments[channels + c];
    const double slope = (gz - mean * g) * inverse;
    if (d_gamma) own(d_gamma, gradients)[c] = float(slope);
    if (d_beta) own(d_beta, gradients)[c] = float(g);
    const double a = own(gamma, values)[c] * inverse, tilt = inverse * slope / count;
    back = own(back, 3 * channels);
    back[c] = float(a);
    back[channels + c] = float(-a * tilt);
    back[2 * channels + c] = float(a * (mean * tilt - g / count));
}
