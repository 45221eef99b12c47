// What matrix products are made of: slabs of matrices in shared memory, and a warp's sums. See products.cuh, copies.cuh.

namespace products {

constexpr int CHUNK = 192;
constexpr int WARPS = 8, LANES = 32, THREADS = WARPS * LANES;
constexpr int DOWN = 4, ACROSS = 8;  // lanes of a warp
constexpr int MOST_SHARED = 65536;   // bytes of shared memory of a block
constexpr int OCTET = 8;             // steps of k that are copied side by side
template <class T> constexpr int WIDTH = UNIT / sizeof(T);

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
// There a slab is (DEPTH, LINES), in units of 16 bytes, in which numbers are copied if IN_UNITS: all is aligned, and no
// unit crosses the last line. If INNER, the matrix is transposed on the way, number by number; a step's units have
// another order for each of eight steps (their numbers are XORed with `order`), so that threads that copy neighbouring
// steps write to different banks.
template <class T, bool INNER, bool IN_UNITS, int LINES, int DEPTH, int SHARERS> struct Slab {
    static constexpr int W = WIDTH<T>, STEP_UNITS = LINES / W, BYTES = LINES * DEPTH * sizeof(T);
    static constexpr int ONCE = INNER || !IN_UNITS ? 1 : W;     // numbers that a thread copies at once
    static constexpr int RUN = INNER ? OCTET : LINES / ONCE;    // threads that copy what is contiguous
    static constexpr int RUNS = SHARERS / RUN;                  // these are lines if INNER, else steps
    static constexpr int COPIES = LINES * DEPTH / ONCE, PIECES = parts(COPIES, SHARERS);
    static constexpr int LINE_PIECES = RUNS < LINES ? LINES / RUNS : 1;  // if INNER, pieces of one octet
    static constexpr int STEPS_ALIKE = STEP_UNITS < 8 ? 8 / STEP_UNITS : 1;
    static_assert((STEP_UNITS & (STEP_UNITS - 1)) == 0 && RUNS * RUN == SHARERS && DEPTH % OCTET == 0, "no copy is cut");
    static_assert(COPIES % SHARERS == 0 || COPIES < SHARERS, "a thread has all its pieces or none");
    static_assert(BYTES % 128 == 0, "order is of units in 128 bytes");

    static constexpr __device__ int order(int step) { return INNER ? step % OCTET / STEPS_ALIKE : 0; }
    static constexpr __device__ int line_of(int piece) { return INNER ? piece % LINE_PIECES * RUNS : 0; }
    static constexpr __device__ int step_of(int piece) {
        return INNER ? piece / LINE_PIECES * parts(RUNS, LINES) * OCTET : piece * RUNS;
    }

    // The byte that is `k` steps and `units` units after byte `start`, if the two have no bit in common: then XOR adds.
    static constexpr __device__ __forceinline__ int after(int start, int k, int units) {
        const int unit = k * STEP_UNITS + units;
        if (!INNER) return start + unit * UNIT;
        return (start ^ ((unit & 7) ^ order(k)) * UNIT) + (unit & ~7) * UNIT;
    }

    static constexpr int SOURCES = INNER ? LINE_PIECES : 1;

    const T* next[SOURCES];  // what this thread copies first of the next slab, of each line that it has
    long long stride;
    int step;   // of the slab
    int place;  // in bytes, from where the slab begins
    T filler;

    // The slabs of a matrix from step `first` and line `first_line` on.
    __device__ __forceinline__ Slab(const T* source, long long stride, int first_line, int lines, int first, T filler,
                                    unsigned thread)
        : stride(stride), filler(filler) {
        const int along = thread % RUN, run = thread / RUN;
        const int own_line = INNER ? run % LINES : along * ONCE;
        step = INNER ? run / LINES * OCTET + along : run;
        place = (step * STEP_UNITS + (own_line / W ^ order(step))) * UNIT + own_line % W * (int)sizeof(T);
#pragma unroll
        for (int i = 0; i < SOURCES; i++) {
            // Of lines that do not exist, any numbers do: those of the last one.
            const long long line = smaller(first_line + own_line + line_of(i), lines - ONCE), number = first + step;
            next[i] = source + (INNER ? line * stride + number : number * stride + line);
        }
    }

    // Begin to copy the next slab to `to`, which is a multiple of 128 bytes after the beginning of shared memory. `left`
    // steps are left, which are enough if WHOLE; those after the last get the filler.
    template <bool WHOLE> __device__ __forceinline__ void bring(char* to, int left) {
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++) {
            if (COPIES < SHARERS && threadIdx.x % SHARERS >= COPIES) continue;
            const T* const from = next[piece % SOURCES] + (INNER ? step_of(piece) : step_of(piece) * stride);
            char* const own = to + after(place, step_of(piece), line_of(piece) / W);
            if (WHOLE || step + step_of(piece) < left) copy<ONCE>(own, from);
            else
#pragma unroll
                for (int i = 0; i < ONCE; i++) ((T*)own)[i] = filler;
        }
#pragma unroll
        for (int i = 0; i < SOURCES; i++) next[i] += INNER ? DEPTH : DEPTH * stride;
    }
};

// One step's numbers of COUNT lines, for a lane. The SIDE lanes that are side by side take vectors in turn.
template <class T, int COUNT, int SIDE> struct Fragment {
    static constexpr int V = COUNT < WIDTH<T> ? COUNT : WIDTH<T>;

    static constexpr __device__ int line_of(int i) { return i / V * SIDE * V + i % V; }  // from the lane's first line

    T of[COUNT];

    // Read the numbers of step `k` of a slab; the lane's are `own` bytes after the beginning.
    template <class S> __device__ __forceinline__ void read(const char* slab, int own, int k) {
#pragma unroll
        for (int i = 0; i < COUNT / V; i++) {
            const Vector<T, V> vector = *(const Vector<T, V>*)(slab + S::after(own, k, line_of(i * V) / WIDTH<T>));
#pragma unroll
            for (int j = 0; j < V; j++) of[i * V + j] = vector.of[j];
        }
    }
};

// A warp's sums of a chunk: M x N of each lane, 4M x 8N in all. Where N is odd, a lane has one of the last 8 columns,
// which are in a slab of their own, SC. The slabs of a stage follow each other: SA, SB, SC.
template <class T, int M, int N, class SA, class SB, class SC, int DEPTH> struct Sums {
    static constexpr int ROWS = DOWN * M, COLUMNS = ACROSS * N, REST = N % 2, WIDE = N - REST;
    using A = Fragment<T, M, DOWN>;
    using B = Fragment<T, WIDE, ACROSS>;
    using C = Fragment<T, 1, ACROSS>;
    // Sums pass through shared memory in bands of rows.
    static constexpr int BAND = DOWN * A::V, BANDS = ROWS / BAND, BAND_SIZE = BAND * COLUMNS;
    static constexpr int EACH = BAND_SIZE / LANES;
    // Steps whose numbers are in registers: reading them takes about 30 cycles, or more when all warps read.
    static constexpr int STEP_BYTES = (M + N) * sizeof(T), KEPT = STEP_BYTES <= 16 ? 8 : STEP_BYTES <= 48 ? 4 : 2;
    static_assert(DEPTH % KEPT == 0, "each step of a slab has its own registers");

    int down, across;  // the lane; neighbours share one of these, so that a warp reads 16 bytes a lane in two turns
    int a, b, c;       // where the lane's numbers are in a stage, in bytes
    A as[KEPT];
    B bs[KEPT];
    C cs[KEPT];
    T of[M][N];

    // Sums of the lines from `top` and `left` on of slabs that begin `start` bytes after a stage.
    __device__ __forceinline__ Sums(int start, int top, int left) {
        const unsigned lane = threadIdx.x % LANES;
        down = lane % 2 + lane / 16 * 2;
        across = lane / 2 % ACROSS;
        a = start + (top + down * A::V) * (int)sizeof(T);
        b = start + SA::BYTES + (left + across * B::V) * (int)sizeof(T);
        c = start + SA::BYTES + SB::BYTES + across * (int)sizeof(T);
        clear();
    }

    __device__ __forceinline__ int row_of(int i) const { return down * A::V + A::line_of(i); }
    __device__ __forceinline__ int column_of(int j) const {
        return j < WIDE ? across * B::V + B::line_of(j) : ACROSS * WIDE + across;
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int j = 0; j < N; j++) of[i][j] = 0;
    }

    __device__ __forceinline__ void read(const char* stage, int k, int kept) {
        as[kept].template read<SA>(stage, a, k);
        bs[kept].template read<SB>(stage, b, k);
        if (REST) cs[kept].template read<SC>(stage, c, k);
    }

    // Read the first steps of the first stage.
    __device__ __forceinline__ void begin(const char* stage) {
#pragma unroll
        for (int k = 0; k < KEPT - 1; k++) read(stage, k, k);
    }

    // Add the products of all steps of a stage. When it has been read, `following` gives the next one: after the last,
    // any, of which nothing is used. That costs less than a condition.
    template <class Following> __device__ __forceinline__ void add(const char* stage, const Following& following) {
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            const int ahead = k + KEPT - 1, one = k % KEPT;
            if (ahead == DEPTH) stage = following();
            read(stage, ahead % DEPTH, ahead % KEPT);
#pragma unroll
            for (int i = 0; i < M; i++)
#pragma unroll
                for (int j = 0; j < N; j++)
                    of[i][j] = fused(as[one].of[i], j < WIDE ? bs[one].of[j % WIDE] : cs[one].of[0], of[i][j]);
        }
    }

    // Write a band of `sums` to (BAND, COLUMNS) of shared memory.
    __device__ __forceinline__ void store(const T (&sums)[M][N], int band, T* shared) const {
#pragma unroll
        for (int i = 0; i < A::V; i++) {
            T* const line = shared + (down * A::V + i) * COLUMNS;
            const T(&own)[N] = sums[band * A::V + i];
#pragma unroll
            for (int j = 0; j < WIDE; j += B::V) {
                Vector<T, B::V> vector;
#pragma unroll
                for (int part = 0; part < B::V; part++) vector.of[part] = own[j + part];
                *(Vector<T, B::V>*)(line + column_of(j)) = vector;
            }
            if (REST) line[column_of(WIDE)] = own[N - 1];
        }
    }
};

}  // namespace products
