// The kernel around `convolve` of `conv.cu` or `tensor.cu`, behind which it is pasted: what the block works on.

// Sixteen warps on a multiprocessor hide each other's waiting.
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
    conv(const void *first, const void *second, const float *third, const float *fourth, Stored *kept,
         unsigned char *bits, const Stored *filters, unsigned packed, Stored *out, const Stored *z, const Stored *side,
         const float *line, const unsigned char *pass, int add, Word *sums, unsigned words, int values,
         NORM_PARAMETERS(1), NORM_PARAMETERS(2), int count, int images, int channels, int outputs) {
    const size_t size = size_t(images) * IN_H * IN_W * channels;
    const bool keeps = blockIdx.y == 0; // one block for each pixel
    Block b;
    b.from = own_read<KIND>(first, second, third, fourth, channels, images, IN_H, IN_W);
    b.kept = keeps ? own(kept, size) : nullptr;
    b.bits = keeps ? own(bits, size / 4) : nullptr;
    b.filters = own(filters, packed);
    b.to = own_write<TARGET>(out, z, side, line, pass, add, outputs, images, HEIGHT, WIDTH);
    b.sums = own(sums, words);
    b.norm = OWN_NORM(1, channels);
    b.other = OWN_NORM(2, channels);
    b.values = values;
    b.count = count;
    b.image = blockIdx.x / TILES_Y * IMAGES;
    b.top = blockIdx.x % TILES_Y * ROWS;
    b.k = blockIdx.y * KB;
    convolve(b);
}
