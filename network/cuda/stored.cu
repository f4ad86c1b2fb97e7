// How maps and filters lie in memory, by PRECISION: as floats, or as bf16, half as large. Arithmetic sees floats.
// Pasted in front of the kernels that read or write them.

enum Precision { F32, TF32, BF16 };

struct Bf16 {
    unsigned short bits;
};
template <bool half> struct Choose {
    typedef float Type;
    typedef float4 Four;
};
template <> struct Choose<true> {
    typedef Bf16 Type;
    typedef uint2 Four;
};
typedef Choose<PRECISION == BF16>::Type Stored;
typedef Choose<PRECISION == BF16>::Four Four; // of them, as they lie

#ifndef EMULATED
// Two numbers as bf16 in a word, `low` in its lower half.
__device__ __forceinline__ unsigned pair(float low, float high) {
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
#endif

__device__ __forceinline__ float4 load(const float *p) { return *reinterpret_cast<const float4 *>(p); }
__device__ __forceinline__ float4 both(uint2 words) {
    const unsigned high = 0xffff0000;
    return make_float4(__uint_as_float(words.x << 16), __uint_as_float(words.x & high),
                       __uint_as_float(words.y << 16), __uint_as_float(words.y & high));
}
__device__ __forceinline__ float4 load(const Bf16 *p) { return both(*reinterpret_cast<const uint2 *>(p)); }

// In two parts, so that many loads can be under way before the first is waited for.
__device__ __forceinline__ Four load_four(const Stored *p) { return *reinterpret_cast<const Four *>(p); }
__device__ __forceinline__ float4 values(float4 four) { return four; }
__device__ __forceinline__ float4 values(uint2 four) { return both(four); }

// Writes, and gives what can be read again.
__device__ __forceinline__ float4 store(float *p, float4 v) {
    *reinterpret_cast<float4 *>(p) = v;
    return v;
}
__device__ __forceinline__ float4 store(Bf16 *p, float4 v) {
    const uint2 words = make_uint2(pair(v.x, v.y), pair(v.z, v.w));
    *reinterpret_cast<uint2 *>(p) = words;
    return both(words);
}
__device__ __forceinline__ void put(float *p, float v) { *p = v; }
__device__ __forceinline__ void put(Bf16 *p, float v) { p->bits = static_cast<unsigned short>(pair(v, 0.f)); }
