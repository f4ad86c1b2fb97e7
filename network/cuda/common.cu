// Pasted in front of all kernels.

// The block's memory, read and written in fours; an emulation has another word for it.
#ifndef SHARED_MEMORY
#define SHARED_MEMORY(type, name) extern __shared__ __align__(16) type name[]
#endif

// The same memory of this block's instance, if there is any; instances are `each` elements apart.
template <class T> __device__ __forceinline__ T *own(T *p, size_t each) { return p ? p + blockIdx.z * each : p; }

// A launch that is `early` (device.rs) may begin before the one before it has ended. Its kernel calls `await_launches`
// in every thread and on every path, before it reads or writes anything that an earlier kernel writes or reads: that
// waits until the one before has ended, and so, since that one waited too, all others. Frozen filters may be read
// before, and what the end of the last step wrote only because a step is one graph, and graphs do not overlap.
// `let_next_begin` says that the next launch, if it is early, may begin once all blocks have said so or ended; it waits
// then for all the same.
__device__ __forceinline__ void await_launches() {
#if !defined(EMULATED) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void let_next_begin() {
#if !defined(EMULATED) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// What the threads of a warp have, brought together two by two, for all of them; `pick` must not care about order.
template <class T, class Pick> __device__ __forceinline__ T over_warp(T value, Pick pick) {
    for (int apart = 16; apart > 0; apart /= 2) value = pick(value, __shfl_xor_sync(0xffffffff, value, apart));
    return value;
}

constexpr int COUNTERS = 64; // of an instance; as in memory.rs

// Is this block the last of `blocks` to come here? Then it sees all that the others wrote before. All threads call it,
// and get the answer. `counter` is zero before and after; blocks of other instances have another.
__device__ __forceinline__ bool last_block(unsigned *counter, unsigned blocks) {
    bool last = false;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence(); // the block's writes, which the barrier gathered, come before its number
        last = atomicInc(counter, blocks - 1) == blocks - 1;
        __threadfence(); // and what is read from here on comes after
    }
    return __syncthreads_or(last);
}
