// What tensor cores do, as functions of a warp's 32 threads, all of which call them together. The layouts are those
// that PTX defines for `ldmatrix` and for `mma` of m16n8k8 (tf32) and m16n8k16 (bf16), and one in words of 32 bits,
// which are one number in tf32 and two in bf16. With g = lane / 4 and t = lane % 4 thread `lane` has
//
//     of the left matrix, 16 rows of 8 words   a[0], a[1] = (g, t), (g + 8, t); a[2], a[3] = (g, t + 4), (g + 8, t + 4)
//     of the right one, 8 words of 8 columns   b[0], b[1] = (t, g), (t + 4, g)
//     of the sums, 16 rows of 8 columns        sums[0], sums[1] = (g, 2 t), (g, 2 t + 1); sums[2], sums[3] in row g + 8
//
// In f32 a word is a float, which is the sum of two numbers of tf32 but for 2^-22 of it; of a product of two such sums
// three parts of four are computed, the smallest being below what is lost anyhow (as CUTLASS's 3xTF32 has it).
//
// An emulation has its own words for them. Pasted behind `stored.cu`.

constexpr int WARP = 32, EACH = PRECISION == BF16 ? 2 : 1; // numbers in a word

#ifndef EMULATED
// As tf32, of which 10 bits are behind the point, rounded to the nearest, of two as near to the even one; the hardware
// would cut them off. It rounds so itself from compute capability 9.0 on.
__device__ __forceinline__ unsigned tf32(float value) {
#if __CUDA_ARCH__ >= 900
    unsigned word;
    asm("cvt.rn.tf32.f32 %0, %1;" : "=r"(word) : "f"(value));
    return word;
#else
    const unsigned bits = __float_as_uint(value);
    return fabsf(value) < __uint_as_float(0x7f800000) ? (bits + 0xfff + (bits >> 13 & 1)) & 0xffffe000 : bits;
#endif
}

// Four matrices of eight rows of four words from shared memory: thread 8 i + j names row j of matrix i, and each gets
// word t of row g of each matrix.
__device__ __forceinline__ void load_matrices(unsigned (&words)[4], const unsigned *row) {
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(at)
                 : "memory");
}

// The same, turned: each gets of each matrix, read as rows of eight bf16, numbers g of rows 2 t and 2 t + 1.
__device__ __forceinline__ void load_matrices_across(unsigned (&words)[4], const unsigned *row) {
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(at)
                 : "memory");
}

// Begins to copy four words into shared memory, past the registers; until `await_copies` nothing is said of them.
__device__ __forceinline__ void copy_four(unsigned *to, const void *from) {
    const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
}
__device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

__device__ __forceinline__ void multiply_add_tf32(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Of floats in two parts: the smallest product is left out, and of the others the largest is added last.
__device__ __forceinline__ void multiply_add_f32(float (&sums)[4], const unsigned (&high_a)[4], const unsigned (&low_a)[4],
                                                 const unsigned (&high_b)[2], const unsigned (&low_b)[2]) {
    multiply_add_tf32(sums, low_a, high_b);
    multiply_add_tf32(sums, high_a, low_b);
    multiply_add_tf32(sums, high_a, high_b);
}

__device__ __forceinline__ void multiply_add_bf16(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// What the thread has whose number differs in the bits `other`.
__device__ __forceinline__ float4 from_lane(float4 v, int other) {
    const unsigned all = 0xffffffff;
    return make_float4(__shfl_xor_sync(all, v.x, other), __shfl_xor_sync(all, v.y, other),
                       __shfl_xor_sync(all, v.z, other), __shfl_xor_sync(all, v.w, other));
}
#endif

// A word of a matrix as it is multiplied.
__device__ __forceinline__ unsigned rounded(unsigned word) {
    return PRECISION == TF32 ? tf32(__uint_as_float(word)) : word;
}

// Floats as what tf32 holds of them, and of the rest.
template <int n>
__device__ __forceinline__ void halve(unsigned (&high)[n], unsigned (&low)[n], const unsigned (&all)[n]) {
#pragma unroll
    for (int i = 0; i < n; i++) {
        high[i] = tf32(__uint_as_float(all[i]));
        low[i] = tf32(__uint_as_float(all[i]) - __uint_as_float(high[i]));
    }
}

// sums += left * right.
__device__ __forceinline__ void multiply_add(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    if constexpr (PRECISION == BF16) {
        multiply_add_bf16(sums, a, b);
    } else if constexpr (PRECISION == TF32) {
        multiply_add_tf32(sums, a, b);
    } else {
        unsigned high_a[4], low_a[4], high_b[2], low_b[2];
        halve(high_a, low_a, a);
        halve(high_b, low_b, b);
        multiply_add_f32(sums, high_a, low_a, high_b, low_b);
    }
}

// The same where many follow one another: tensor cores cut off what they add up, always towards zero, so in f32 each
// product is added by itself.
__device__ __forceinline__ void add_product(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    if constexpr (PRECISION == F32) {
        float product[4] = {};
        multiply_add(product, a, b);
        for (int i = 0; i < 4; i++) sums[i] += product[i];
    } else {
        multiply_add(sums, a, b);
    }
}

// Four numbers as words of a matrix in shared memory, the first of which is `to`.
__device__ __forceinline__ void store_words(unsigned *to, float4 v) {
    if constexpr (PRECISION == BF16) {
        *reinterpret_cast<uint2 *>(to) = make_uint2(pair(v.x, v.y), pair(v.z, v.w));
    } else if constexpr (PRECISION == TF32) {
        *reinterpret_cast<uint4 *>(to) = make_uint4(tf32(v.x), tf32(v.y), tf32(v.z), tf32(v.w));
    } else {
        store(reinterpret_cast<float *>(to), v);
    }
}
