// What the kernels use of CUDA C++, for the host's compiler: one block at a time, its threads as fibers that change
// at barriers only. Everything shared is dynamic (`extern __shared__`), so that it can be spoiled before each block.
// Of a warp's operations there are those of tensor cores: its threads leave their parts, meet, and read all of them.
// Few headers: hundreds of small libraries are compiled with this one in front.

#define EMULATED
#ifdef __APPLE__
#define _XOPEN_SOURCE 700 // for ucontext.h
#define _DARWIN_C_SOURCE
#endif
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS // the C library's own, without C++'s overloads
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__
#define __restrict__ __restrict
#define __launch_bounds__(...)

static inline double rsqrt(double x) { return 1. / sqrt(x); }
static inline int max(int a, int b) { return a < b ? b : a; }
static inline int min(int a, int b) { return b < a ? b : a; }

struct alignas(16) float4 {
    float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct alignas(8) uint2 {
    unsigned x, y;
};
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

struct Three {
    unsigned x, y, z;
};
static Three threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

// The stacks of a warp begin in different lines of a cache.
constexpr int THREADS = 1024, WARP = 32, STACK = 65 * 1024 + 256, SHARED = 227 * 1024, BEHIND = 16 * 1024;
enum Result { DONE, DIVERGED, TOO_LARGE, OUTSIDE, MISCOUNTED };
enum Wait { FINISHED, FOR_BLOCK, FOR_WARP };

struct Fiber {
    jmp_buf place;
    bool begun;
    Wait wait;
};

static Fiber fibers[THREADS];
static unsigned voters; // of this launch
static bool votes[2];   // by turns: who is a barrier ahead votes in the other
static jmp_buf scheduler;
static int current;
static void (*body)(void *);
static void *argument;
alignas(16) static char shared[SHARED + BEHIND]; // where nobody wrote it is no number

// Back to the scheduler, until all that it waits for have come as far.
static __attribute__((noinline)) void yield(Wait wait) {
    fibers[current].wait = wait;
    if (_setjmp(fibers[current].place) == 0) _longjmp(scheduler, 1);
}

static void live() {
    for (;;) {
        body(argument);
        yield(FINISHED);
    }
}

static __attribute__((noinline)) void enter(int thread) {
    Fiber &fiber = fibers[thread];
    current = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
    if (_setjmp(scheduler) != 0) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = malloc(STACK); // kept for all blocks to come
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, live, 0);
    setcontext(&context);
}

// The threads of a warp from where they are to where all of them wait for the block, or have finished.
static bool warp(int first, int threads, bool backward) {
    do {
        for (int i = 0; i < threads; i++) enter(first + (backward ? threads - 1 - i : i));
        for (int i = 1; i < threads; i++) {
            if (fibers[first + i].wait != fibers[first].wait) return false;
        }
    } while (fibers[first].wait == FOR_WARP);
    return true;
}

// All warps from one barrier to the next, until all have finished together.
static Result block(int threads, unsigned bytes, bool backward) {
    memset(shared, 0xff, bytes);
    do {
        bool together = true;
        const int warps = (threads + WARP - 1) / WARP;
        for (int i = 0; i < warps && together; i++) {
            const int first = (backward ? warps - 1 - i : i) * WARP;
            together = warp(first, min(WARP, threads - first), backward);
        }
        for (int i = 0; i < threads && together; i += WARP) together = fibers[i].wait == fibers[0].wait;
        if (!together) {
            for (int i = 0; i < threads; i++) fibers[i].begun = false; // never to go on
            return DIVERGED;
        }
    } while (fibers[0].wait != FINISHED);
    for (int i = 0; i < BEHIND; i++) {
        if (shared[bytes + i] != char(0xff)) return OUTSIDE;
    }
    return DONE;
}

static Result launch(const unsigned *grid, const unsigned *size, unsigned bytes, bool backward) {
    blockDim = {size[0], size[1], size[2]};
    gridDim = {grid[0], grid[1], grid[2]};
    unsigned threads = size[0] * size[1] * size[2], blocks = grid[0] * grid[1] * grid[2];
    if (!threads || !blocks || grid[1] > 65535 || grid[2] > 65535 || size[2] > 64) return TOO_LARGE;
    if (threads > THREADS || bytes > SHARED) return TOO_LARGE;
    memset(shared, 0xff, sizeof shared);
    voters = 0;
    for (unsigned i = 0; i < blocks; i++) {
        unsigned b = backward ? blocks - 1 - i : i;
        blockIdx = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
        Result result = block(threads, bytes, backward);
        if (result != DONE) return result;
    }
    return DONE;
}

// A kernel with its arguments, given as cuLaunchKernel takes them.
template <size_t... I> struct Indices {};
template <size_t N, size_t... I> struct Below : Below<N - 1, N - 1, I...> {};
template <size_t... I> struct Below<0, I...> {
    typedef Indices<I...> All;
};

template <class... A> struct Call {
    void (*kernel)(A...);
    void **arguments;

    template <size_t... I> void run(Indices<I...>) { kernel(*static_cast<A *>(arguments[I])...); }
    static void enter(void *self) { static_cast<Call *>(self)->run(typename Below<sizeof...(A)>::All()); }
};

template <class... A>
Result start(void (*kernel)(A...), const unsigned *grid, const unsigned *size, unsigned bytes, void **arguments,
             unsigned given, bool backward) {
    if (given != sizeof...(A)) return MISCOUNTED;
    Call<A...> call{kernel, arguments};
    body = &Call<A...>::enter;
    argument = &call;
    return launch(grid, size, bytes, backward);
}

// A function that starts a kernel from an array of arguments.
#define EMULATED_START(kernel)                                                                                  \
    extern "C" int start_##kernel(const unsigned *grid, const unsigned *size, unsigned bytes, void **arguments, \
                                  unsigned given, bool backward) {                                              \
        return emulation::start(kernel, grid, size, bytes, arguments, given, backward);                         \
    }

// What each thread of a warp leaves for the others, in two places by turns: who is a meeting ahead writes the other.
struct Parts {
    unsigned words[4];
    const unsigned *row;
};
static Parts left[THREADS][2];
static unsigned char turns[THREADS];

// Leaves `own`, and gives the parts of all of the warp, from its first thread on.
struct Warp {
    int first, turn;
    const Parts &operator[](int lane) const { return left[first + lane][turn]; }
};
static Warp meet(const Parts &own) {
    const int thread = current, turn = turns[thread] ^= 1;
    left[thread][turn] = own;
    yield(FOR_WARP);
    return {thread / WARP * WARP, turn};
}

} // namespace emulation

static __attribute__((noinline)) void __syncthreads() { emulation::yield(emulation::FOR_BLOCK); }

// Does any thread of the block say so? All threads call it.
static __attribute__((noinline)) int __syncthreads_or(int vote) {
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z, voter = emulation::voters++;
    bool &any = emulation::votes[voter / threads % 2];
    any = voter % threads == 0 ? vote != 0 : any || vote;
    emulation::yield(emulation::FOR_BLOCK);
    return any;
}

// What the thread of this warp has whose number differs in the bits of `mask`. All threads of the warp call it.
template <class T> static T __shfl_xor_sync(unsigned, T value, int mask) {
    emulation::Parts own = {};
    memcpy(own.words, &value, sizeof value);
    const emulation::Warp warp = emulation::meet(own);
    memcpy(&value, warp[emulation::current % emulation::WARP ^ mask].words, sizeof value);
    return value;
}

// Blocks run one after another, so all is in order.
static inline void __threadfence() {}
static inline void atomicAdd(unsigned long long *word, unsigned long long more) { *word += more; }
static inline unsigned atomicInc(unsigned *counter, unsigned most) {
    const unsigned old = *counter;
    *counter = old >= most ? 0 : old + 1;
    return old;
}

// The kernels' name for shared memory.
#define SHARED_MEMORY(type, name) type *name = reinterpret_cast<type *>(emulation::shared)

// Two numbers as bf16 in a word: to the nearest, of two as near the even one.
static inline unsigned to_bf16(float value) {
    const unsigned bits = __float_as_uint(value);
    return value != value ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static inline unsigned pair(float low, float high) { return to_bf16(low) | to_bf16(high) << 16; }

// Ten bits behind the point: to the nearest, of two as near the even one. The rest of the word is zero.
static inline unsigned tf32(float value) {
    const unsigned bits = __float_as_uint(value);
    return value != value ? 0x7fffffff : (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0xfff + (bits >> 13 & 1)) & 0xffffe000;
}

static inline void copy_four(unsigned *to, const void *from) { memcpy(to, from, 16); }
static inline void await_copies() {}

// Four 8 x 4 matrices of words: thread 8 i + j names row j of matrix i; each gets word lane % 4 of row lane / 4.
static inline void load_matrices(unsigned (&words)[4], const unsigned *row) {
    const emulation::Warp warp = emulation::meet({{}, row});
    const int lane = emulation::current % emulation::WARP;
    for (int i = 0; i < 4; i++) words[i] = warp[8 * i + lane / 4].row[lane % 4];
}

// The same, turned, of bf16.
static inline void load_matrices_across(unsigned (&words)[4], const unsigned *row) {
    const emulation::Warp warp = emulation::meet({{}, row});
    const int g = emulation::current % emulation::WARP / 4, t = emulation::current % 4;
    const auto number = [&](int row) { return warp[row].row[g / 2] >> g % 2 * 16 & 0xffff; };
    for (int i = 0; i < 4; i++) words[i] = number(8 * i + 2 * t) | number(8 * i + 2 * t + 1) << 16;
}

static inline float4 from_lane(float4 v, int other) { return __shfl_xor_sync(~0u, v, other); }

// What a warp's threads give and take, in matrices; by turns as `left`. Who is the first to go on multiplies for all.
typedef float Row __attribute__((vector_size(32))); // of 8
struct Product {
    Row sums[16], right[24];
    float left[16][24];
    bool done;

    // Leaves what `number` makes of this thread's words; `mma.cu` says who has which. Those of word w of a row of the
    // left matrix, and of a column of the right one, are number from + w * step.
    template <class Number>
    void leave(int from, int step, const unsigned (&a)[4], const unsigned (&b)[2], Number number) {
        const int lane = emulation::current % emulation::WARP, row = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) left[row + i % 2 * 8][from + (t + i / 2 * 4) * step] = number(a[i]);
        for (int i = 0; i < 2; i++) right[from + (t + i * 4) * step][row] = number(b[i]);
    }
};
static Product products[emulation::THREADS / emulation::WARP][2];

static inline Product &next_product() {
    const int thread = emulation::current;
    return products[thread / emulation::WARP][emulation::turns[thread] ^ 1];
}

// Adds what all of the warp left, `depth` products, to 16 x 8 sums.
template <int depth> static void multiply_add(Product &product, float (&sums)[4]) {
    const int lane = emulation::current % emulation::WARP, row = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) product.sums[row + i / 2 * 8][t * 2 + i % 2] = sums[i];
    product.done = false;
    emulation::turns[emulation::current] ^= 1;
    emulation::yield(emulation::FOR_WARP);
    if (!product.done) {
        for (int i = 0; i < 16; i++) {
            Row own = product.sums[i];
            for (int k = 0; k < depth; k++) own += product.left[i][k] * product.right[k];
            product.sums[i] = own;
        }
        product.done = true;
    }
    for (int i = 0; i < 4; i++) sums[i] = product.sums[row + i / 2 * 8][t * 2 + i % 2];
}

// Of floats 11 bits are multiplied.
static inline float cut(unsigned word) { return __uint_as_float(word & 0xffffe000); }
static inline void multiply_add_tf32(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    Product &product = next_product();
    product.leave(0, 1, a, b, cut);
    multiply_add<8>(product, sums);
}
static inline void multiply_add_f32(float (&sums)[4], const unsigned (&high_a)[4], const unsigned (&low_a)[4],
                                    const unsigned (&high_b)[2], const unsigned (&low_b)[2]) {
    Product &product = next_product();
    product.leave(0, 1, low_a, high_b, cut);
    product.leave(8, 1, high_a, low_b, cut);
    product.leave(16, 1, high_a, high_b, cut);
    multiply_add<24>(product, sums);
}
static inline void multiply_add_bf16(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    Product &product = next_product();
    product.leave(0, 2, a, b, [](unsigned word) { return __uint_as_float(word << 16); });
    product.leave(1, 2, a, b, [](unsigned word) { return __uint_as_float(word & 0xffff0000); });
    multiply_add<16>(product, sums);
}
