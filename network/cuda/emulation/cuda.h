// What the kernels use of CUDA C++, for the host's compiler: one block at a time, its threads as fibers that change
// at barriers only. Everything shared is dynamic (`extern __shared__`), so that it can be spoiled before each block.
// No warp operations: the kernels use none.

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <algorithm>
#include <utility>

using std::max;
using std::min;

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__
#define __restrict__ __restrict
#define __launch_bounds__(...)

struct alignas(16) float4 {
    float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct Three {
    unsigned x, y, z;
};
static Three threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr int THREADS = 1024, STACK = 64 * 1024, SHARED = 227 * 1024;
enum Result { DONE, DIVERGED, TOO_LARGE };

struct Fiber {
    jmp_buf place;
    bool begun, finished;
};

static Fiber fibers[THREADS];
static jmp_buf scheduler;
static int current;
static void (*body)(void *);
static void *argument;
alignas(16) static char shared[SHARED];

// Back to the scheduler, until it comes round again.
static __attribute__((noinline)) void yield() {
    if (_setjmp(fibers[current].place) == 0) _longjmp(scheduler, 1);
}

static void live() {
    for (;;) {
        body(argument);
        fibers[current].finished = true;
        yield();
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

// All threads from one barrier to the next, until all have finished together.
static Result block(int threads, bool backward) {
    memset(shared, 0xff, SHARED); // not a number
    for (int i = 0; i < threads; i++) fibers[i].finished = false;
    for (int finished = 0; finished == 0;) {
        for (int i = 0; i < threads; i++) {
            int thread = backward ? threads - 1 - i : i;
            enter(thread);
            finished += fibers[thread].finished;
        }
        if (finished != 0 && finished != threads) {
            for (int i = 0; i < threads; i++) fibers[i].begun = false; // never to go on
            return DIVERGED;
        }
    }
    return DONE;
}

static Result launch(const unsigned *grid, const unsigned *size, unsigned bytes, bool backward) {
    blockDim = {size[0], size[1], size[2]};
    gridDim = {grid[0], grid[1], grid[2]};
    unsigned threads = size[0] * size[1] * size[2], blocks = grid[0] * grid[1] * grid[2];
    if (threads > THREADS || bytes > SHARED) return TOO_LARGE;
    for (unsigned i = 0; i < blocks; i++) {
        unsigned b = backward ? blocks - 1 - i : i;
        blockIdx = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
        Result result = block(threads, backward);
        if (result != DONE) return result;
    }
    return DONE;
}

// A kernel with its arguments, given as cuLaunchKernel takes them.
template <class... A> struct Call {
    void (*kernel)(A...);
    void **arguments;

    template <size_t... I> void run(std::index_sequence<I...>) { kernel(*static_cast<A *>(arguments[I])...); }
    static void enter(void *self) { static_cast<Call *>(self)->run(std::index_sequence_for<A...>()); }
};

template <class... A>
Result start(void (*kernel)(A...), const unsigned *grid, const unsigned *size, unsigned bytes, void **arguments,
             bool backward) {
    Call<A...> call{kernel, arguments};
    body = &Call<A...>::enter;
    argument = &call;
    return launch(grid, size, bytes, backward);
}

} // namespace emulation

static __attribute__((noinline)) void __syncthreads() { emulation::yield(); }

// The kernels' name for shared memory.
#define SHARED_MEMORY(type, name) type *name = reinterpret_cast<type *>(emulation::shared)
