// Matrix products: out = a @ b, or out += scale * (a @ b), in one order of additions everywhere.
//
// For each element the inner dimension is cut in chunks of CHUNK. A chunk's sum begins at zero and takes fused
// multiply-adds in the order of k; the chunks' sums are added in their order, and nothing is added to the first:
//     out = s0; out = out + s1; ...    or, with ADDS,    out = out + scale * s0; out = out + scale * s1; ...
// where scale * s is rounded before it is added. These are the bits of mlpd.core.codegen.products; no tile, thread or
// block changes one. Steps past the end of the inner dimension are 0 * -0, which changes no sum, not even -0.
//
// A block has 256 threads and makes one tile of `out`; tiles are numbered row by row. Both matrices stream through
// shared memory in slabs, a few steps of k deep and always with k as the outer dimension, while a warp of 4 x 8 lanes
// keeps sums of 4M x 8N elements in registers. When a chunk ends, its sums go through shared memory to the threads that
// keep the totals: there neighbouring lanes have neighbouring columns, so that `out` moves in whole lines.
//
// `shared` is the kernel's own dynamic shared memory, from its beginning on; the compiler must see that it is, so all
// functions are inlined. When a call returns, some threads may still be reading it.

namespace products {

// Strides are elements from a line to the next. `a` is row-major if A_INNER, else its transpose is; `b` is the
// transpose of a row-major matrix if B_INNER, else row-major itself: "inner" says what is contiguous.
template <class T> struct ProductOf {
    const T* a; long long a_stride;
    const T* b; long long b_stride;
    T* out; long long out_stride;
    int rows, columns, inner;
    T scale;
};

// A tile of 4M x 8N for which each warp takes a chunk of its own: for few elements and a long inner dimension. A slab
// is SPAN bytes of k deep; while a warp multiplies one, the next has to come.
template <int M, int N, int SPAN> struct Apart {
    static constexpr int ROWS = DOWN * M, COLUMNS = ACROSS * N;
    static constexpr int BYTES = SPAN * (ROWS + COLUMNS);                           // of a warp's shared memory
    static constexpr int AT_ONCE = 49152 / BYTES < WARPS ? 49152 / BYTES : WARPS;  // warps that work
};

// A tile whose warps go through the inner dimension together: HIGH x WIDE of them have 4M x 8N elements each, any
// others only help to copy. A slab is SPAN bytes of k deep.
template <int M, int N, int HIGH, int WIDE, int SPAN> struct Together {
    static constexpr int ROWS = DOWN * M * HIGH, COLUMNS = ACROSS * N * WIDE;
};

template <bool ADDS, class T> __device__ __forceinline__ T total_of(T total, T chunk, T scale, bool is_first) {
    if (ADDS) return plus(total, times(scale, chunk));
    return is_first ? chunk : plus(total, chunk);
}

// Make tile `block` and give each element that exists to `sink(row, column, value)`.
template <bool A_INNER, bool B_INNER, bool ADDS, class T, int M, int N, int SPAN, class Sink>
__device__ __forceinline__ void make(Apart<M, N, SPAN>, const ProductOf<T>& p, int block, char* shared,
                                     const Sink& sink) {
    using Tile = Apart<M, N, SPAN>;
    using Own = Sums<T, M, N>;
    constexpr int ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS, SIZE = ROWS * COLUMNS, DEPTH = SPAN / sizeof(T);
    using SA = Slab<T, A_INNER, ROWS, DEPTH, LANES>;
    using SB = Slab<T, B_INNER, ACROSS * Own::WIDE, DEPTH, LANES>;
    using SC = Slab<T, B_INNER, ACROSS, DEPTH, LANES>;
    constexpr int EACH = parts(SIZE, THREADS);
    static_assert(CHUNK % DEPTH == 0, "a slab is of one chunk");
    static_assert(SIZE * sizeof(T) <= Tile::BYTES, "sums take the place of slabs");
    const unsigned thread = threadIdx.x, lane = thread % LANES;
    const int warp = thread / LANES;
    const unsigned wide = parts(p.columns, COLUMNS);
    const int top = block / wide * ROWS, left = block % wide * COLUMNS;
    const int a = warp * Tile::BYTES, b = a + SA::BYTES, c = b + SB::BYTES;

    T totals[EACH];
    const auto each = [&](const auto& action) {
        const unsigned first = same(thread);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const unsigned element = first + i * THREADS;
            const int row = top + element / COLUMNS, column = left + element % COLUMNS;
            action(row, column, totals[i], element < SIZE && row < p.rows && column < p.columns);
        }
    };
    each([&](int row, int column, T& total, bool exists) {
        total = ADDS && exists ? p.out[row * p.out_stride + column] : 0;
    });
    const int chunks = parts(p.inner, CHUNK);
#pragma unroll 1
    for (int first = 0; first < chunks; first += Tile::AT_ONCE) {
        const int count = smaller(Tile::AT_ONCE, chunks - first);
        if (first > 0) __syncthreads();  // the sums before have been read
        if (warp < count) {
            const int start = (first + warp) * CHUNK, end = smaller(start + CHUNK, p.inner);
            SA for_a(p.a, p.a_stride, top, p.rows, start, end, T(0), lane);
            SB for_b(p.b, p.b_stride, left, p.columns, start, end, -T(0), lane);
            SC for_c(p.b, p.b_stride, left + ACROSS * Own::WIDE, p.columns, start, end, -T(0), lane);
            Own sums;
            sums.clear();
            // While a slab is multiplied, the next one is on its way to registers.
#pragma unroll 1
            for (int k = start; true; k += DEPTH) {
                if (k < end) {
                    for_a.load(k, end, lane);
                    for_b.load(k, end, lane);
                    if (Own::REST) for_c.load(k, end, lane);
                }
                if (k > start) {
                    const int steps = smaller(DEPTH, end - k + DEPTH);
                    sums.template add<SA, SB, SC, DEPTH>(shared, a, b, c, 0, 0, steps);
                    __syncwarp();
                }
                if (k >= end) break;
                for_a.store(shared, a, lane);
                for_b.store(shared, b, lane);
                if (Own::REST) for_c.store(shared, c, lane);
                __syncwarp();
            }
#pragma unroll
            for (int band = 0; band < Own::BANDS; band++) sums.store(band, (T*)(shared + a) + band * Own::BAND_SIZE);
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < Tile::AT_ONCE; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                const int element = thread + j * THREADS;
                if (i < count && (SIZE % THREADS == 0 || element < SIZE)) {
                    const T chunk = ((const T*)(shared + i * Tile::BYTES))[element];
                    totals[j] = total_of<ADDS>(totals[j], chunk, p.scale, first + i == 0);
                }
            }
    }
    each([&](int row, int column, T total, bool exists) {
        if (exists) sink(row, column, total);
    });
}

template <bool A_INNER, bool B_INNER, bool ADDS, class T, int M, int N, int HIGH, int WIDE, int SPAN, class Sink>
__device__ __forceinline__ void make(Together<M, N, HIGH, WIDE, SPAN>, const ProductOf<T>& p, int block, char* shared,
                                     const Sink& sink) {
    using Tile = Together<M, N, HIGH, WIDE, SPAN>;
    using Own = Sums<T, M, N>;
    constexpr int DEPTH = SPAN / sizeof(T);
    using SA = Slab<T, A_INNER, Tile::ROWS, DEPTH, THREADS>;
    using SB = Slab<T, B_INNER, Tile::COLUMNS, DEPTH, THREADS>;
    constexpr int BYTES = SA::BYTES + SB::BYTES;
    static_assert(CHUNK % DEPTH == 0, "a slab is of one chunk");
    static_assert(HIGH * WIDE * Own::BAND_SIZE * sizeof(T) <= 2 * BYTES, "sums take the place of slabs");
    static_assert(Own::REST == 0, "there is no third slab");
    const unsigned thread = threadIdx.x, lane = thread % LANES;
    const int warp = thread / LANES;
    const unsigned wide = parts(p.columns, Tile::COLUMNS);
    const int top = block / wide * Tile::ROWS, left = block % wide * Tile::COLUMNS;
    const bool works = HIGH * WIDE == WARPS || warp < HIGH * WIDE;
    const int own_top = warp % HIGH * Own::ROWS, own_left = warp / HIGH * Own::COLUMNS;
    T* const exchange = (T*)shared + warp * Own::BAND_SIZE;
    SA for_a(p.a, p.a_stride, top, p.rows, 0, p.inner, T(0), thread);
    SB for_b(p.b, p.b_stride, left, p.columns, 0, p.inner, -T(0), thread);

    // The lane's elements in a band: number i is i * 32 after the first, row by row.
    T totals[Own::BANDS][Own::EACH];
    const int first_row = top + own_top + lane / Own::COLUMNS, first_column = left + own_left + lane % Own::COLUMNS;
    const auto each_in = [&](int band, const auto& action) {
        const int row = same(first_row) + band * Own::BAND;
#pragma unroll
        for (int i = 0; i < Own::EACH; i++) {
            const int own_row = row + i * LANES / Own::COLUMNS, column = first_column + i * LANES % Own::COLUMNS;
            action(own_row, column, totals[band][i], own_row < p.rows && column < p.columns);
        }
    };
    const auto begin = [&](int band) {
        const T* from = p.out + (same(first_row) + band * Own::BAND) * p.out_stride + first_column;
        int i = 0;
        each_in(band, [&](int, int column, T& total, bool exists) {
            total = ADDS && exists ? from[column - first_column] : 0;
            i++;
            from += (i * LANES / Own::COLUMNS - (i - 1) * LANES / Own::COLUMNS) * p.out_stride;
        });
    };
    // With few elements, `out` comes early, for nothing to wait; with many, late, to save registers.
    constexpr bool EARLY = M * N * sizeof(T) <= 128;
    Own sums;
    sums.clear();
    int side = 0;  // where the slabs begin that are multiplied; there is room for two of each
#pragma unroll 1
    for (int k = 0; true; k += DEPTH) {
        if (k < p.inner) {
            for_a.load(k, p.inner, thread);
            for_b.load(k, p.inner, thread);
        }
        if (EARLY && works && k == 0) {
#pragma unroll
            for (int band = 0; band < Own::BANDS; band++) begin(band);
        }
        if (k > 0) {
            const int steps = smaller(DEPTH, p.inner - k + DEPTH), b = side + SA::BYTES;
            if (works) sums.template add<SA, SB, SB, DEPTH>(shared, side, b, b, own_top, own_left, steps);
            if (k >= p.inner || k % CHUNK == 0) {
                __syncthreads();  // no slab is in use: sums take their place
#pragma unroll
                for (int band = 0; band < Own::BANDS; band++) {
                    if (!works) continue;
                    if (!EARLY && k <= CHUNK) begin(band);
                    sums.store(band, exchange);
                    __syncwarp();
#pragma unroll
                    for (int i = 0; i < Own::EACH; i++)
                        totals[band][i] =
                            total_of<ADDS>(totals[band][i], exchange[lane + i * LANES], p.scale, k <= CHUNK);
                    __syncwarp();
                }
                sums.clear();
                __syncthreads();
            }
        }
        if (k >= p.inner) break;
        side = k == 0 ? 0 : BYTES - side;
        for_a.store(shared, side, thread);
        for_b.store(shared, side + SA::BYTES, thread);
        __syncthreads();
    }
    if (!works) return;
#pragma unroll
    for (int band = 0; band < Own::BANDS; band++)
        each_in(band, [&](int row, int column, T total, bool exists) {
            if (exists) sink(row, column, total);
        });
}

// Make tile `block` of a product; `epilogue(row, column, value)` stores each element.
template <class T, class Tile, bool A_INNER, bool B_INNER, bool ADDS, class Epilogue>
__device__ __forceinline__ void product(const ProductOf<T>& p, int block, char* shared, const Epilogue& epilogue) {
    make<A_INNER, B_INNER, ADDS>(Tile(), p, block, shared, epilogue);
}

// What makes whole rows of at most 32 columns.
template <int COLUMNS> using Narrow = Apart<2, COLUMNS <= 16 ? 2 : 4, COLUMNS <= 16 ? 256 : 128>;

// Make rows of a product that has COLUMNS columns; `epilogue(row, values)` gets each, in one thread.
template <class T, int COLUMNS, bool A_INNER, bool B_INNER, bool ADDS, class RowEpilogue>
__device__ __forceinline__ void narrow_product(const ProductOf<T>& p, int block, char* shared,
                                               const RowEpilogue& epilogue) {
    using Tile = Narrow<COLUMNS>;
    constexpr int SIZE = Tile::ROWS * Tile::COLUMNS * sizeof(T);
    static_assert(COLUMNS <= Tile::COLUMNS, "a tile has whole rows");
    static_assert(2 * SIZE <= Tile::BYTES, "rows are kept behind the first warp's sums");
    const int top = block * Tile::ROWS, row = top + threadIdx.x;
    T(*const finished)[COLUMNS] = (T(*)[COLUMNS])(shared + SIZE);
    make<A_INNER, B_INNER, ADDS>(Tile(), p, block, shared, [&](int row, int column, T value) {
        finished[row - top][column] = value;
    });
    __syncthreads();
    if (threadIdx.x < Tile::ROWS && row < p.rows) {
        T values[COLUMNS];
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) values[i] = finished[threadIdx.x][i];
        epilogue(row, values);
    }
}

}  // namespace products
