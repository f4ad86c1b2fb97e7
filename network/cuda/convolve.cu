// The kernel around `convolve` of `conv.cu` or `tensor.cu`, behind which it is pasted: what the block works on, and what
// the last block makes of all blocks' sums.

// Sixteen warps on a multiprocessor hide each other's waiting.
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
    conv(const void *first, const void *second, const float *third, const float *fourth, Stored *kept,
         unsigned char *bits, const Stored *filters, unsigned packed, Stored *out, const Stored *z, const Stored *side,
         const float *line, const unsigned char *pass, int add, float *partial, unsigned partials, unsigned *counters,
         int values, NORM_PARAMETERS(1), NORM_PARAMETERS(2), int count, int images, int channels, int outputs) {
    const size_t size = size_t(images) * IN_H * IN_W * channels;
    const bool keeps = blockIdx.y == 0; // one block for each pixel
    Block b;
    b.from = own_read<KIND>(first, second, third, fourth, channels, images, IN_H, IN_W);
    b.kept = keeps ? own(kept, size) : nullptr;
    b.bits = keeps ? own(bits, size / 4) : nullptr;
    b.filters = own(filters, packed);
    b.to = own_write<TARGET>(out, z, side, line, pass, add, outputs, images, HEIGHT, WIDTH);
    b.partial = own(partial, partials);
    b.count = count;
    b.image = blockIdx.x / TILES_Y * IMAGES;
    b.top = blockIdx.x % TILES_Y * ROWS;
    b.k = blockIdx.y * KB;
    convolve(b);

    if (TARGET == PLAIN || !partial || !last_block(own(counters, COUNTERS) + blockIdx.y, gridDim.x)) return;
    static_assert(KB <= THREADS, "a thread for each channel");
    SHARED_MEMORY(double, doubles);
    const int own_c = threadIdx.x % KB, c = b.k + own_c;
    const Norm norm = OWN_NORM(1, outputs), other = OWN_NORM(2, outputs);
    const Held held = hold(norm, c, outputs, TARGET == KEEP);
    const bool three = TARGET != KEEP && other.back;
    Held other_held;
    if (three) other_held = hold(other, c, outputs, false);
    const double *sums = three ? add_up<KB, THREADS, 3>(doubles, b.partial, gridDim.x, outputs, b.k)
                               : add_up<KB, THREADS, 2>(doubles, b.partial, gridDim.x, outputs, b.k);
    if (threadIdx.x >= KB) return;
    if (TARGET == KEEP) normalise(norm, held, c, outputs, values, sums[own_c], sums[KB + own_c]);
    else differentiate(norm, held, c, outputs, values, sums[own_c], sums[KB + own_c]);
    if (three) differentiate(other, other_held, c, outputs, values, sums[own_c], sums[2 * KB + own_c]);
}
