// Copies from memory to shared memory that a thread does not wait for. Processors before compute capability 8.0 make
// them at once.

namespace products {

constexpr int UNIT = 16;  // bytes that move at once

template <class T, int COUNT> struct alignas(COUNT * sizeof(T)) Vector { T of[COUNT]; };

// Begin to copy COUNT numbers to shared memory, a part of the group that `end_group` ends.
template <int COUNT, class T> __device__ __forceinline__ void copy(char* to, const T* from) {
#if __CUDA_ARCH__ >= 800
    const unsigned place = (unsigned)__cvta_generic_to_shared(to);
    constexpr int BYTES = COUNT * sizeof(T);
    if constexpr (BYTES == UNIT)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(place), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(place), "l"(from), "n"(BYTES) : "memory");
#else
    *(Vector<T, COUNT>*)to = *(const Vector<T, COUNT>*)from;
#endif
}

// End a group of copies. It may be empty.
__device__ __forceinline__ void end_group() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until all of the thread's groups but the last COUNT have arrived. Other threads see them after a barrier.
template <int COUNT> __device__ __forceinline__ void arrive() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(COUNT) : "memory");
#endif
}

}  // namespace products
