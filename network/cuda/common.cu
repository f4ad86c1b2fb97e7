// Pasted in front of all kernels.

// The block's memory, read and written in fours; an emulation has another word for it.
#ifndef SHARED_MEMORY
#define SHARED_MEMORY(type, name) extern __shared__ __align__(16) type name[]
#endif

// The same memory of this block's instance, if there is any; instances are `each` elements apart.
template <class T> __device__ __forceinline__ T *own(T *p, size_t each) { return p ? p + blockIdx.z * each : p; }

