// Pasted in front of all kernels.

// The block's memory, read and written in fours; an emulation has another word for it.
#ifndef SHARED_MEMORY
#define SHARED_MEMORY(type, name) extern __shared__ __align__(16) type name[]
#endif

// The same memory of this block's instance, if there is any; instances are `each` elements apart.
template <class T> __device__ __forceinline__ T *own(T *p, size_t each) { return p ? p + blockIdx.z * each : p; }


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
