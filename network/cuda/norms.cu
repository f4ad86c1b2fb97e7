// What a BatchNorm makes of sums over a batch: forward mean, variance, scale and shift; backward the gradients of gamma
// and beta and a, b, c of the gradient a g + b z + c.
//
// Blocks add their sums to integers, which have no rounding: so the order does not matter, atomic operations will do,
// and no block or launch has to wait for all others. Who reads a map next makes its lines, in each block for itself.
// Pasted in front of the kernels that leave sums or read them.

constexpr double EPS = 1e-5, SHARE = 0.1; // of the batch in the running statistics; as in arch.rs

// A sum: seven words, each of which counts 2^40 times what the one before it counts, and the number of those that were
// no finite numbers. 2^22 sums may be added before a word overflows (of two neighbouring places, since what is high in one
// counts in the next).
typedef unsigned long long Word;
constexpr int WORDS = 8, BITS = 40, LOWEST = 104; // the first word counts 2^-104: what is less is cut off
constexpr Word LOW = (Word(1) << BITS) - 1;

__device__ __forceinline__ void add_exactly(Word *sum, float x) {
    const unsigned bits = __float_as_uint(x), exponent = bits >> 23 & 255;
    if (exponent == 255) {
        atomicAdd(sum + WORDS - 1, Word(1));
        return;
    }
    // x is `digits` times 2^(place - LOWEST).
    long long digits = (bits & 0x7fffff) | (exponent ? 0x800000 : 0);
    int place = int(exponent ? exponent : 1) - 150 + LOWEST;
    if (place < 0) digits >>= min(-place, 24), place = 0;
    if (bits >> 31) digits = -digits;
    const long long shifted = digits * (1ll << place % BITS); // below 2^63
    const Word low = shifted & LOW, high = shifted >> BITS;
    if (low) atomicAdd(sum + place / BITS, low);
    if (high) atomicAdd(sum + place / BITS + 1, high);
}

// The sum, rounded once or twice.
__device__ __forceinline__ double total(const Word *sum) {
    const double worth[WORDS - 1] = {0x1p-104, 0x1p-64, 0x1p-24, 0x1p16, 0x1p56, 0x1p96, 0x1p136};
    Word words[WORDS];
#pragma unroll
    for (int i = 0; i < WORDS; i += 2) {
        const ulonglong2 two = *reinterpret_cast<const ulonglong2 *>(sum + i);
        words[i] = two.x, words[i + 1] = two.y;
    }
    // With digits from -2^39 on the largest that is not zero has the sum's sign and size.
    double all = words[WORDS - 1] ? nan("") : 0.;
    long long carry = 0;
#pragma unroll
    for (int i = 0; i < WORDS - 1; i++) {
        const long long word = static_cast<long long>(words[i]) + carry;
        carry = i < WORDS - 2 ? (word + (1ll << (BITS - 1))) >> BITS : 0;
        all += (word - carry * (1ll << BITS)) * worth[i];
    }
    return all;
}

// A BatchNorm's memory, of one instance. `first` are sums of z or g for each channel, `second` of z z or g z. Any of
// `bias`, `running`, `d_gamma` and `d_beta` may be missing.
struct Norm {
    const float *gamma, *beta, *bias;
    const Word *first, *second;
    double *moments;                 // means, then inverse deviations
    float *line, *running;           // scale and shift; means, then variances
    float *d_gamma, *d_beta, *back;  // the last: a, b, c
};
#define NORM_PARAMETERS(n)                                                                                             \
    const float *gamma##n, const float *beta##n, const float *bias##n, unsigned values##n, const Word *first##n,       \
        const Word *second##n, unsigned words##n, double *moments##n, float *line##n, float *running##n,               \
        float *d_gamma##n, float *d_beta##n, unsigned gradients##n, float *back##n
#define OWN_NORM(n, channels)                                                                                          \
    own_norm(gamma##n, beta##n, bias##n, values##n, first##n, second##n, words##n, moments##n, line##n, running##n,    \
             d_gamma##n, d_beta##n, gradients##n, back##n, channels)
__device__ __forceinline__ Norm own_norm(NORM_PARAMETERS(), int channels) {
    return {own(gamma, values),   own(beta, values),           own(bias, values),        own(first, words),
            own(second, words),   own(moments, 2 * channels),  own(line, 2 * channels),  own(running, 2 * channels),
            own(d_gamma, gradients), own(d_beta, gradients),   own(back, 3 * channels)};
}

__device__ __forceinline__ float towards(float old, double now) { return float((1. - SHARE) * old + SHARE * now); }

// What the sums of both kinds come to, `[2][channels]`. All threads of the block call it, and wait.
__device__ __forceinline__ void tell_totals(double *totals, const Norm &norm, int channels, int threads) {
    for (int i = threadIdx.x; i < 2 * channels; i += threads) {
        totals[i] = total(i < channels ? norm.first + i * WORDS : norm.second + (i - channels) * WORDS);
    }
    __syncthreads();
}

// Channel c's scale and shift for `line` by the totals over `count` values; one block `keeps` them and what else
// follows. The bias is what z lacks.
__device__ __forceinline__ void normalise(float *line, const double *totals, const Norm &norm, int c, int channels,
                                          int count, bool keeps) {
    const double gamma = norm.gamma[c], beta = norm.beta[c], share = 1. / count;
    const double mean = totals[c] * share, spread = totals[channels + c] * share - mean * mean;
    const double variance = spread < 0. ? 0. : spread; // in this form NaN survives
    const double inverse = rsqrt(variance + EPS), scale = gamma * inverse;
    line[c] = float(scale);
    line[channels + c] = float(beta - mean * scale);
    if (!keeps) return;
    norm.line[c] = line[c];
    norm.line[channels + c] = line[channels + c];
    norm.moments[c] = mean;
    norm.moments[channels + c] = inverse;
    if (!norm.running) return;
    const double unbiased = variance * (count / (count > 1 ? count - 1. : 1.));
    norm.running[c] = towards(norm.running[c], mean + (norm.bias ? norm.bias[c] : 0.));
    norm.running[channels + c] = towards(norm.running[channels + c], unbiased);
}

// Its a, b and c, and its gradients.
__device__ __forceinline__ void differentiate(float *back, const double *totals, const Norm &norm, int c, int channels,
                                              int count, bool keeps) {
    const double mean = norm.moments[c], inverse = norm.moments[channels + c], share = 1. / count;
    const double a = norm.gamma[c] * inverse, g = totals[c];
    const double slope = (totals[channels + c] - mean * g) * inverse, tilt = inverse * slope * share;
    back[c] = float(a);
    back[channels + c] = float(-a * tilt);
    back[2 * channels + c] = float(a * (mean * tilt - g * share));
    if (!keeps) return;
    for (int i = 0; i < 3; i++) norm.back[i * channels + c] = back[i * channels + c];
    if (norm.d_gamma) norm.d_gamma[c] = float(slope);
    if (norm.d_beta) norm.d_beta[c] = float(g);
}

// The line by the running statistics.
__device__ __forceinline__ void follow(const Norm &norm, int c, int channels) {
    const double mean = norm.running[c] - (norm.bias ? norm.bias[c] : 0.);
    const double scale = norm.gamma[c] / sqrt(norm.running[channels + c] + EPS);
    norm.line[c] = float(scale);
    norm.line[channels + c] = float(norm.beta[c] - mean * scale);
}
