// Matrix products: out = a @ b, or out += scale * (a @ b), in one order of additions everywhere.
//
// For each element the inner dimension is cut in chunks of CHUNK. A chunk's sum begins at zero and takes fused
// multiply-adds in the order of k; the chunks' sums are added in their order, and nothing is added to the first:
//     out = s0; out = out + s1; ...    or, with ADDS,    out = out + scale * s0; out = out + scale * s1; ...
// where scale * s is rounded before it is added. These are the bits of mlpd.core.codegen.products; no tile, thread or
// block changes one. Steps past the end of the inner dimension are 0 * -0, which changes no sum, not even -0.
//
// A block has 256 threads and makes one tile of `out`; tiles are numbered row by row. Both matrices stream through a
// ring of stages in shared memory, each with a slab of both, SPAN bytes of k deep and always with k as the outer
// dimension. While a stage is multiplied, copies to the others are under way. A warp of 4 x 8 lanes keeps sums of 4M x 8N
// elements in registers. At the end totals go through shared memory to threads of which neighbours have neighbouring
// columns, so that `out` moves in whole lines.
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

// A tile of 4M x 8N for which each warp takes a chunk of its own, with a ring of its own: for few elements and a long
// inner dimension.
template <int M, int N, int SPAN, int STAGES> struct Apart {
    static constexpr int ROWS = DOWN * M, COLUMNS = ACROSS * N;
    static constexpr int BYTES = STAGES * SPAN * (ROWS + COLUMNS);                      // of a warp's shared memory
    static constexpr int AT_ONCE = MOST_SHARED / BYTES < WARPS ? MOST_SHARED / BYTES : WARPS;  // warps that work
};

// A tile whose warps go through the inner dimension together: HIGH x WIDE of them have 4M x 8N elements each.
template <int M, int N, int HIGH, int WIDE, int SPAN, int STAGES> struct Together {
    static constexpr int ROWS = DOWN * M * HIGH, COLUMNS = ACROSS * N * WIDE;
    static_assert(HIGH * WIDE == WARPS, "each warp has a part");
};

template <bool ADDS, class T> __device__ __forceinline__ T total_of(T total, T chunk, T scale, bool is_first) {
    if (ADDS) return plus(total, times(scale, chunk));
    return is_first ? chunk : plus(total, chunk);
}

// A ring of STAGES stages that SHARERS threads fill: each has slabs of types SA, SB and, if HAS_REST, SC.
template <class SA, class SB, class SC, bool HAS_REST, int DEPTH, int STAGES, int SHARERS> struct Ring {
    static constexpr int STAGE = SA::BYTES + SB::BYTES + (HAS_REST ? SC::BYTES : 0);

    SA for_a;
    SB for_b;
    SC for_c;
    char* const first;
    char* stage;  // that is to be multiplied, and then filled again
    int left;     // steps that no copy has begun for

    static __device__ __forceinline__ void wait() {
        if (SHARERS == LANES) __syncwarp();
        else __syncthreads();
    }

    // Begin to copy the next slabs to `to`, if there are any.
    template <bool WHOLE> __device__ __forceinline__ void fill(char* to) {
        if (WHOLE || left > 0) {
            for_a.template bring<WHOLE>(to, left);
            for_b.template bring<WHOLE>(to + SA::BYTES, left);
            if (HAS_REST) for_c.template bring<WHOLE>(to + SA::BYTES + SB::BYTES, left);
        }
        end_group();
        left -= DEPTH;
    }

    __device__ __forceinline__ void fill_all() {
        if (left >= STAGES * DEPTH) {
#pragma unroll 1
            for (int i = 0; i < STAGES; i++) fill<true>(first + i * STAGE);
        } else {
#pragma unroll 1
            for (int i = 0; i < STAGES; i++) fill<false>(first + i * STAGE);
        }
    }

    // Return the first stage, when it is there.
    __device__ __forceinline__ char* begin() {
        arrive<STAGES - 1>();
        wait();
        return stage = first;
    }

    // Fill again what all have read, and return the next stage, when it is there.
    template <bool WHOLE> __device__ __forceinline__ char* following() {
        arrive<STAGES - 2>();
        wait();
        fill<WHOLE>(stage);
        stage = stage == first + (STAGES - 1) * STAGE ? first : stage + STAGE;
        return stage;
    }

    // Add the products of so many steps. While slabs are whole, they are copied between multiplications, without a
    // branch.
    template <class Own> __device__ __forceinline__ void multiply(Own& sums, int steps) {
        int stages = parts(steps, DEPTH), whole = smaller(stages, left / DEPTH);
        stages -= whole > 0 ? whole : 0;
#pragma unroll 1
        for (; whole > 0; whole--) sums.add(stage, [&] { return following<true>(); });
#pragma unroll 1
        for (; stages > 0; stages--) sums.add(stage, [&] { return following<false>(); });
    }
};

// Make tile `block` and give each element that exists to `sink(row, column, value, loaded)`, where `loaded` is what
// `load(row, column)` has returned: several are loaded before the first is stored, for loads take long, and the compiler
// does not know that no store changes what is loaded later.
template <bool A_INNER, bool B_INNER, bool ADDS, bool IN_UNITS, class T, int M, int N, int SPAN, int STAGES, class Load,
          class Sink>
__device__ __forceinline__ void make(Apart<M, N, SPAN, STAGES>, const ProductOf<T>& p, int block, char* shared,
                                     const Load& load, const Sink& sink) {
    using Tile = Apart<M, N, SPAN, STAGES>;
    constexpr int ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS, SIZE = ROWS * COLUMNS, DEPTH = SPAN / sizeof(T);
    using SA = Slab<T, A_INNER, IN_UNITS, ROWS, DEPTH, LANES>;
    using SB = Slab<T, B_INNER, IN_UNITS, ACROSS * (N - N % 2), DEPTH, LANES>;
    using SC = Slab<T, B_INNER, IN_UNITS, ACROSS, DEPTH, LANES>;
    using Own = Sums<T, M, N, SA, SB, SC, DEPTH>;
    constexpr int EACH = parts(SIZE, THREADS);
    static_assert(CHUNK % DEPTH == 0, "a slab is of one chunk");
    static_assert(SIZE * sizeof(T) <= Tile::BYTES, "sums take the place of slabs");
    const unsigned thread = threadIdx.x, lane = thread % LANES;
    const int warp = thread / LANES;
    const unsigned wide = parts(p.columns, COLUMNS);
    const int top = block / wide * ROWS, left = block % wide * COLUMNS;

    T totals[EACH];
    decltype(load(0, 0)) loaded[EACH];
    const auto each = [&](const auto& action) {
        const unsigned first = same(thread);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            const unsigned element = first + i * THREADS;
            const int row = top + element / COLUMNS, column = left + element % COLUMNS;
            action(i, row, column, element < SIZE && row < p.rows && column < p.columns);
        }
    };
    each([&](int i, int row, int column, bool exists) {
        totals[i] = ADDS && exists ? p.out[row * p.out_stride + column] : 0;
        if (exists) loaded[i] = load(row, column);
    });
    const int chunks = parts(p.inner, CHUNK);
#pragma unroll 1
    for (int first = 0; first < chunks; first += Tile::AT_ONCE) {
        const int count = smaller(Tile::AT_ONCE, chunks - first);
        if (first > 0) __syncthreads();  // the sums before have been read
        if (warp < count) {
            const int start = (first + warp) * CHUNK, steps = smaller(CHUNK, p.inner - start);
            char* const own = shared + warp * Tile::BYTES;
            Ring<SA, SB, SC, N % 2, DEPTH, STAGES, LANES> ring{
                SA(p.a, p.a_stride, top, p.rows, start, T(0), lane),
                SB(p.b, p.b_stride, left, p.columns, start, -T(0), lane),
                SC(p.b, p.b_stride, left + ACROSS * Own::WIDE, p.columns, start, -T(0), lane), own, own, steps};
            ring.fill_all();
            Own sums(0, 0, 0);
            sums.begin(ring.begin());
            ring.multiply(sums, steps);
            ring.wait();  // nobody reads stages any more
#pragma unroll
            for (int band = 0; band < Own::BANDS; band++) sums.store(sums.of, band, (T*)own + band * Own::BAND_SIZE);
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
    each([&](int i, int row, int column, bool exists) {
        if (exists) sink(row, column, totals[i], loaded[i]);
    });
}

template <bool A_INNER, bool B_INNER, bool ADDS, bool IN_UNITS, class T, int M, int N, int HIGH, int WIDE, int SPAN,
          int STAGES, class Load, class Sink>
__device__ __forceinline__ void make(Together<M, N, HIGH, WIDE, SPAN, STAGES>, const ProductOf<T>& p, int block,
                                     char* shared, const Load& load, const Sink& sink) {
    using Tile = Together<M, N, HIGH, WIDE, SPAN, STAGES>;
    constexpr int DEPTH = SPAN / sizeof(T);
    using SA = Slab<T, A_INNER, IN_UNITS, Tile::ROWS, DEPTH, THREADS>;
    using SB = Slab<T, B_INNER, IN_UNITS, Tile::COLUMNS, DEPTH, THREADS>;
    using Own = Sums<T, M, N, SA, SB, SB, DEPTH>;
    static_assert(CHUNK % DEPTH == 0, "a slab is of one chunk");
    static_assert(WARPS * Own::BAND_SIZE * sizeof(T) <= STAGES * (SA::BYTES + SB::BYTES), "totals take the ring's place");
    static_assert(Own::REST == 0, "there is no third slab");
    const unsigned thread = threadIdx.x, lane = thread % LANES;
    const int warp = thread / LANES;
    const unsigned wide = parts(p.columns, Tile::COLUMNS);
    const int top = block / wide * Tile::ROWS, left = block % wide * Tile::COLUMNS;
    const int own_top = warp % HIGH * Own::ROWS, own_left = warp / HIGH * Own::COLUMNS;
    Ring<SA, SB, SB, false, DEPTH, STAGES, THREADS> ring{SA(p.a, p.a_stride, top, p.rows, 0, T(0), thread),
                                                         SB(p.b, p.b_stride, left, p.columns, 0, -T(0), thread),
                                                         SB(p.b, p.b_stride, left, p.columns, 0, -T(0), thread),
                                                         shared, shared, p.inner};
    ring.fill_all();
    Own sums(0, own_top, own_left);

    T totals[M][N];
    const auto begin = [&] {
        const int column = left + own_left + sums.column_of(0), row = top + own_top + sums.row_of(0);
        using Part = Vector<T, Own::B::V>;
        const bool in_parts = ((unsigned long long)p.out % sizeof(Part) | (unsigned)p.out_stride % Own::B::V |
                               (unsigned)p.columns % Own::B::V) == 0;
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int j = 0; j < N; j += Own::B::V) {
                const int own_row = row + Own::A::line_of(i), own_column = column + Own::B::line_of(j);
                const T* const from = p.out + own_row * p.out_stride + own_column;
                Part part = {};
                if (in_parts) {
                    if (own_row < p.rows && own_column < p.columns) part = *(const Part*)from;
                } else
#pragma unroll
                    for (int l = 0; l < Own::B::V; l++)
                        if (own_row < p.rows && own_column + l < p.columns) part.of[l] = from[l];
#pragma unroll
                for (int l = 0; l < Own::B::V; l++) totals[i][j + l] = part.of[l];
            }
    };
    T* const exchange = (T*)shared + warp * Own::BAND_SIZE;
    const int first_row = top + own_top + lane / Own::COLUMNS, first_column = left + own_left + lane % Own::COLUMNS;
    constexpr int PART = Own::EACH < 8 ? Own::EACH : 8;
    decltype(load(0, 0)) loaded[PART];
    const auto each_in = [&](int band, int start, const auto& action) {
        const int row = same(first_row) + band * Own::BAND;
#pragma unroll
        for (int i = 0; i < PART; i++) {
            const int element = (start + i) * LANES, own_row = row + element / Own::COLUMNS;
            const int column = first_column + element % Own::COLUMNS;
            if (own_row < p.rows && column < p.columns) action(i, own_row, column);
        }
    };
    const auto load_part = [&](int band, int start) {
        each_in(band, start, [&](int i, int row, int column) { loaded[i] = load(row, column); });
    };

    // With few elements all comes early, for nothing to wait; with many late, to save registers.
    constexpr bool EARLY = M * N * sizeof(T) <= 128, ALL_EARLY = EARLY && Own::BANDS * Own::EACH <= 4;
    if (ADDS && EARLY) begin();
    static_assert(!ALL_EARLY || Own::BANDS == 1, "there is one part");
    if (ALL_EARLY) load_part(0, 0);
    sums.begin(ring.begin());
#pragma unroll 1
    for (int k = 0; k < p.inner; k += CHUNK) {
        ring.multiply(sums, smaller(CHUNK, p.inner - k));
        if (ADDS && !EARLY && k == 0) begin();
#pragma unroll
        for (int i = 0; i < M; i++)
#pragma unroll
            for (int j = 0; j < N; j++)
                totals[i][j] = total_of<ADDS>(totals[i][j], sums.of[i][j], p.scale, k == 0);
        sums.clear();
    }
    ring.wait();  // nobody reads stages any more
#pragma unroll
    for (int band = 0; band < Own::BANDS; band++) {
        __syncwarp();
        sums.store(totals, band, exchange);
        __syncwarp();
#pragma unroll
        for (int start = 0; start < Own::EACH; start += PART) {
            if (!ALL_EARLY) load_part(band, start);
            T values[PART];
#pragma unroll
            for (int i = 0; i < PART; i++) values[i] = exchange[lane + (start + i) * LANES];
            each_in(band, start, [&](int i, int row, int column) { sink(row, column, values[i], loaded[i]); });
        }
    }
}

// Make tile `block` of a product; `epilogue(row, column, value, load(row, column))` stores each element.
template <class T, class Tile, bool A_INNER, bool B_INNER, bool ADDS, bool IN_UNITS, class Load, class Epilogue>
__device__ __forceinline__ void product(const ProductOf<T>& p, int block, char* shared, const Load& load,
                                        const Epilogue& epilogue) {
    make<A_INNER, B_INNER, ADDS, IN_UNITS>(Tile(), p, block, shared, load, epilogue);
}

// Make rows of a product that has COLUMNS columns, by an apart tile; `epilogue(row, values)` gets each, in one thread.
template <class T, class Tile, int COLUMNS, bool A_INNER, bool B_INNER, bool ADDS, bool IN_UNITS, class RowEpilogue>
__device__ __forceinline__ void narrow_product(const ProductOf<T>& p, int block, char* shared,
                                               const RowEpilogue& epilogue) {
    constexpr int SIZE = Tile::ROWS * Tile::COLUMNS * sizeof(T);
    static_assert(COLUMNS <= Tile::COLUMNS, "a tile has whole rows");
    static_assert(2 * SIZE <= Tile::BYTES, "rows are kept behind the first warp's sums");
    const int top = block * Tile::ROWS, row = top + threadIdx.x;
    T(*const finished)[COLUMNS] = (T(*)[COLUMNS])(shared + SIZE);
    const auto nothing = [](int, int) { return 0; };
    make<A_INNER, B_INNER, ADDS, IN_UNITS>(Tile(), p, block, shared, nothing, [&](int row, int column, T value, int) {
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

// Make all columns of a product for the rows of narrow tile `block`, whose INNER numbers of `a` the block has stored.
template <class T, class Tile, int INNER, bool B_INNER, class Load, class Epilogue>
__device__ __forceinline__ void rows_product(const ProductOf<T>& p, int block, char* shared, const Load& load,
                                             const Epilogue& epilogue) {
    static_assert(INNER <= CHUNK, "a sum has one chunk");
    constexpr int ROWS = Tile::ROWS;
    const int top = block * ROWS;
    T(*const rows)[ROWS] = (T(*)[ROWS])shared;
    T b[INNER];  // of the next column: nobody has changed them
    const auto bring = [&](int column) {
#pragma unroll
        for (int k = 0; k < INNER; k++)
            if (column < p.columns) b[k] = p.b[B_INNER ? column * p.b_stride + k : k * p.b_stride + column];
    };
    bring(threadIdx.x);
    __syncthreads();  // rows of `a` are stored, and nobody reads shared memory any more
    for (int i = threadIdx.x; i < ROWS * INNER; i += THREADS) {
        const int row = smaller(top + i / INNER, p.rows - 1);
        rows[i % INNER][i / INNER] = p.a[row * p.a_stride + i % INNER];
    }
    __syncthreads();
#pragma unroll 1
    for (int column = threadIdx.x; column < p.columns; column += THREADS) {
        decltype(load(0, 0)) loaded[ROWS];
        T sums[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            sums[i] = 0;
            if (top + i < p.rows) loaded[i] = load(top + i, column);
        }
#pragma unroll
        for (int k = 0; k < INNER; k++)
#pragma unroll
            for (int i = 0; i < ROWS; i++) sums[i] = fused(rows[k][i], b[k], sums[i]);
        bring(column + THREADS);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            if (top + i < p.rows) epilogue(top + i, column, sums[i], loaded[i]);
    }
}

}  // namespace products
