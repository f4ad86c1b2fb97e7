// What follows the gradients: sums of the filters' parts, SGD, and the trained weights' way into the packed filters.

constexpr int THREADS = 256;

struct Settings {
    float rate, momentum, decay, unused;
};

// gradient[i] = the sum of partial[split][i]. `lanes` threads, a power of two, have every `lanes`-th part of a value,
// and add theirs in order; then the later half is added to the first, until there is one.
extern "C" __global__ void __launch_bounds__(THREADS)
    total(const float *partial, unsigned partials, int splits, unsigned length, int lanes, float *gradient,
          unsigned gradients) {
    SHARED_MEMORY(double, memory);
    const int values = THREADS / lanes, lane = threadIdx.x / values;
    const unsigned i = blockIdx.x * values + threadIdx.x % values;
    double sum = 0.;
    if (i < length) {
        partial = own(partial, partials) + i;
#pragma unroll 8
        for (int split = lane; split < splits; split += lanes) sum += partial[size_t(split) * length];
    }
    for (int half = lanes / 2; half > 0; half /= 2) {
        if (lane >= half) memory[threadIdx.x] = sum;
        __syncthreads();
        if (lane < half) sum += memory[threadIdx.x + half * values];
        __syncthreads();
    }
    if (lane == 0 && i < length) own(gradient, gradients)[i] = float(sum);
}

// Both packed copies of trained weight i.
__device__ __forceinline__ void put_both(float value, const unsigned *places, unsigned filters, Stored *packed,
                                         unsigned length, unsigned i) {
    places = own(places, 2 * size_t(filters));
    packed = own(packed, length);
    put(packed + places[2 * size_t(i)], value);
    put(packed + places[2 * size_t(i) + 1], value);
}

// One step on the first `trained` values; the first `filters` of them are weights of filters.
extern "C" __global__ void __launch_bounds__(THREADS)
    sgd(float *values, unsigned length, float *velocity, const float *gradient, unsigned trained,
        const Settings *settings, const unsigned *places, unsigned filters, Stored *packed, unsigned packed_length) {
    await_launches();
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= trained) return;
    const Settings s = settings[blockIdx.z];
    values = own(values, length);
    velocity = own(velocity, trained);
    const float w = values[i];
    const float v = s.momentum * velocity[i] + (own(gradient, trained)[i] + s.decay * w);
    const float value = w - s.rate * v;
    velocity[i] = v;
    values[i] = value;
    if (i < filters) put_both(value, places, filters, packed, packed_length, i);
}

// The trained weights as they are, after they came from elsewhere.
extern "C" __global__ void __launch_bounds__(THREADS)
    pack(const float *values, unsigned length, const unsigned *places, unsigned filters, Stored *packed,
         unsigned packed_length) {
    const unsigned i = blockIdx.x * THREADS + threadIdx.x;
    if (i < filters) put_both(own(values, length)[i], places, filters, packed, packed_length, i);
}
