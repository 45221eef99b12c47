// What matrix products are made of: slabs of matrices in shared memory, and a warp's sums. See products.cuh.

namespace products {

constexpr int CHUNK = 192;
constexpr int WARPS = 8, LANES = 32, THREADS = WARPS * LANES;
constexpr int DOWN = 4, ACROSS = 8;  // lanes of a warp
constexpr int UNIT = 16;             // bytes that move at once
template <class T> constexpr int WIDTH = UNIT / sizeof(T);

template <class T, int COUNT> struct alignas(COUNT * sizeof(T)) Vector { T of[COUNT]; };

__device__ __forceinline__ float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
__device__ __forceinline__ float plus(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double plus(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ float times(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double times(double a, double b) { return __dmul_rn(a, b); }
__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }
constexpr __device__ __forceinline__ int parts(unsigned whole, unsigned part) { return (whole + part - 1) / part; }

// The same number, which the compiler does not know: else it would compute addresses early and keep them in registers.
__device__ __forceinline__ int same(int number) { return __shfl_sync(~0u, number, threadIdx.x % LANES); }

// LINES lines (rows of a, columns of b) by DEPTH steps of k, which SHARERS threads bring to shared memory.
//
// There a slab is (DEPTH, LINES), in units of 16 bytes. If INNER, eight units in a row have another order for each
// WIDTH steps (their numbers are XORed with `order`), so that threads that turn the matrix write to different banks.
template <class T, bool INNER, int LINES, int DEPTH, int SHARERS> struct Slab {
    static constexpr int W = WIDTH<T>, STEP_UNITS = LINES / W, BYTES = LINES * DEPTH * sizeof(T);
    static constexpr int RUN = (INNER ? DEPTH : LINES) / W;  // vectors in a contiguous run of memory
    static constexpr int VECTORS = BYTES / UNIT, PIECES = (VECTORS + SHARERS - 1) / SHARERS, RUNS = SHARERS / RUN;
    static constexpr int TURN = DEPTH / W < 8 ? 8 / (DEPTH / W) : 1;

    static constexpr __device__ int order(int step) { return INNER ? step / W * TURN & 7 : 0; }

    // The byte that is `k` steps and `units` units after byte `start`, if the two have no bit in common: then XOR adds.
    static __device__ __forceinline__ int after(int start, int k, int units) {
        const int unit = k * STEP_UNITS + units;
        if (!INNER) return start + unit * UNIT;
        return (start ^ ((unit & 7) ^ order(k)) * UNIT) + (unit & ~7) * UNIT;
    }

    const T* next;  // where this thread's first vector of the next slab is
    long long stride;
    int line, step;  // of that vector
    int lines;
    int place;  // in bytes, from where the slab begins
    T filler;
    bool in_vectors;  // all is aligned, and no vector crosses an end
    Vector<T, W> held[PIECES];

    // The slabs of steps `first` to `end` of a matrix, from `first_line` on.
    __device__ __forceinline__ Slab(const T* source, long long stride, int first_line, int lines, int first, int end,
                                    T filler, unsigned thread)
        : stride(stride), lines(lines), filler(filler) {
        const unsigned unaligned = (unsigned long long)source % UNIT | (unsigned)stride % W;
        const int along = thread % RUN * W, run = thread / RUN;
        line = first_line + (INNER ? run : along);
        step = first + (INNER ? along : run);
        next = source + (INNER ? line * stride + step : step * stride + line);
        place = after(0, INNER ? along : run, 0) ^ (INNER ? run : along) / W * UNIT;
        in_vectors = (unaligned | (unsigned)(INNER ? end : lines) % W) == 0;
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++)
#pragma unroll
            for (int i = 0; i < W; i++) held[piece].of[i] = filler;
    }

    // Whether the line of number `i` of a vector exists, and the number itself, if steps stop before `end`.
    __device__ __forceinline__ bool has_line(int piece, int i, unsigned thread) const {
        if (VECTORS % SHARERS != 0 && thread + piece * SHARERS >= VECTORS) return false;
        return line + (INNER ? piece * RUNS : i) < lines;
    }
    __device__ __forceinline__ bool has(int piece, int i, int end, unsigned thread) const {
        return has_line(piece, i, thread) && step + (INNER ? i : piece * RUNS) < end;
    }

    // Load the next slab, which begins at step `first`, into registers. Lines that do not exist may keep any numbers,
    // steps after the end may not.
    __device__ __forceinline__ void load(int first, int end, unsigned thread) {
        const T* source = next;
        const long long gap = RUNS * stride;
        if (in_vectors && first + DEPTH <= end) {
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++, source += gap)
                if (has_line(piece, 0, thread)) held[piece] = *(const Vector<T, W>*)source;
        } else if (in_vectors) {
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++, source += gap) {
#pragma unroll
                for (int i = 0; i < W; i++) held[piece].of[i] = filler;
                if (has(piece, 0, end, thread)) held[piece] = *(const Vector<T, W>*)source;
            }
        } else {
#pragma unroll
            for (int piece = 0; piece < PIECES; piece++, source += gap)
#pragma unroll
                for (int i = 0; i < W; i++) {
                    held[piece].of[i] = filler;
                    if (has(piece, i, end, thread)) held[piece].of[i] = source[i];
                }
        }
        step += DEPTH;
        next += INNER ? DEPTH : DEPTH * stride;
    }

    // Write what was loaded to shared memory, from byte `start` on, which is a multiple of 128.
    __device__ __forceinline__ void store(char* shared, int start, unsigned thread) const {
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++) {
            if (VECTORS % SHARERS != 0 && thread + piece * SHARERS >= VECTORS) continue;
            if (INNER) {
                const int part = (thread / RUN % W + piece * RUNS % W) * sizeof(T);
#pragma unroll
                for (int i = 0; i < W; i++)
                    *(T*)(shared + part + after(start + place, i, piece * RUNS / W)) = held[piece].of[i];
            } else *(Vector<T, W>*)(shared + after(start + place, piece * RUNS, 0)) = held[piece];
        }
    }
};

// One step's numbers of COUNT lines, for a lane. The SIDE lanes that are side by side take vectors in turn.
template <class T, int COUNT, int SIDE> struct Fragment {
    static constexpr int V = COUNT < WIDTH<T> ? COUNT : WIDTH<T>;

    static constexpr __device__ int line_of(int i) { return i / V * SIDE * V + i % V; }  // from the lane's first line

    T of[COUNT];

    // Read the numbers of step k < 8 after the one that is at `start`, in bytes from the beginning of shared memory.
    template <class S> __device__ __forceinline__ void read(const char* shared, int start, int k) {
#pragma unroll
        for (int i = 0; i < COUNT / V; i++) {
            const int at = S::after(start, k, line_of(i * V) / WIDTH<T>);
            const Vector<T, V> vector = *(const Vector<T, V>*)(shared + at);
#pragma unroll
            for (int j = 0; j < V; j++) of[i * V + j] = vector.of[j];
        }
    }
};

// A warp's sums of a chunk: M x N of each lane, 4M x 8N in all. Where N is odd, a lane has one of the last 8 columns,
// which are in a slab of their own.
template <class T, int M, int N> struct Sums {
    static constexpr int ROWS = DOWN * M, COLUMNS = ACROSS * N, REST = N % 2, WIDE = N - REST;
    using A = Fragment<T, M, DOWN>;
    using B = Fragment<T, WIDE, ACROSS>;
    using C = Fragment<T, 1, ACROSS>;
    // Sums pass through shared memory in bands of rows.
    static constexpr int BAND = DOWN * A::V, BANDS = ROWS / BAND, BAND_SIZE = BAND * COLUMNS;
    static constexpr int EACH = BAND_SIZE / LANES;
    // Steps whose numbers are in registers: reading them takes about 30 cycles, or more when all warps read.
    static constexpr int STEP_BYTES = (M + N) * sizeof(T), KEPT = STEP_BYTES <= 16 ? 8 : STEP_BYTES <= 48 ? 4 : 2;

    int down, across;  // the lane; neighbours share one of these, so that a warp reads 16 bytes a lane in two turns
    T of[M][N];

    __device__ __forceinline__ Sums() {
        const unsigned lane = threadIdx.x % LANES;
        down = lane % 2 + lane / 16 * 2;
        across = lane / 2 % ACROSS;
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int j = 0; j < N; j++) of[i][j] = 0;
    }

    // Add the products of the first `steps`, rounded up to 8, of DEPTH. Slabs begin `a`, `b` and `c` bytes after
    // `shared`; `top` and `left` are where the warp's elements begin in them.
    template <class SA, class SB, class SC, int DEPTH>
    __device__ __forceinline__ void add(const char* shared, int a, int b, int c, int top, int left, int steps) {
        const int a_lane = a + (top + down * A::V) * (int)sizeof(T);
        const int b_lane = b + (left + across * B::V) * (int)sizeof(T);
        const int c_lane = c + across / WIDTH<T> * UNIT, c_part = across % WIDTH<T> * (int)sizeof(T);
        A as[KEPT];
        B bs[KEPT];
        C cs[KEPT];
#pragma unroll
        for (int k = 0; k < KEPT - 1; k++) {
            as[k].template read<SA>(shared, a_lane, k);
            bs[k].template read<SB>(shared, b_lane, k);
            if (REST) cs[k].template read<SC>(shared + c_part, c_lane, k);
        }
#pragma unroll 1
        for (int step = 0; step < steps; step += 8) {
            // What is read after the last step is not used. In a deep slab it costs less than a condition.
            const int next = DEPTH <= 16 || step + 8 < DEPTH ? step + 8 : 0;
            const bool is_last = DEPTH <= 16 && next >= steps;
#pragma unroll
            for (int k = 0; k < 8; k++) {
                const int ahead = k + KEPT - 1, from = ahead < 8 ? step : next, one = k % KEPT, other = ahead % KEPT;
                if (ahead < 8 || !is_last) {
                    as[other].template read<SA>(shared, SA::after(a_lane, from, 0), ahead % 8);
                    bs[other].template read<SB>(shared, SB::after(b_lane, from, 0), ahead % 8);
                    if (REST) cs[other].template read<SC>(shared + c_part, SC::after(c_lane, from, 0), ahead % 8);
                }
#pragma unroll
                for (int i = 0; i < M; i++)
#pragma unroll
                    for (int j = 0; j < N; j++)
                        of[i][j] = fused(as[one].of[i], j < WIDE ? bs[one].of[j % WIDE] : cs[one].of[0], of[i][j]);
            }
        }
    }

    // Write a band of rows to (BAND, COLUMNS) of shared memory.
    __device__ __forceinline__ void store(int band, T* shared) const {
#pragma unroll
        for (int i = 0; i < A::V; i++) {
            T* const line = shared + (down * A::V + i) * COLUMNS;
            const T(&own)[N] = of[band * A::V + i];
#pragma unroll
            for (int j = 0; j < WIDE; j += B::V) {
                Vector<T, B::V> vector;
#pragma unroll
                for (int part = 0; part < B::V; part++) vector.of[part] = own[j + part];
                *(Vector<T, B::V>*)(line + across * B::V + B::line_of(j)) = vector;
            }
            if (REST) line[ACROSS * WIDE + across] = own[N - 1];
        }
    }
};

}  // namespace products
