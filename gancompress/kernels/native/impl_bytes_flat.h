// Part of impl_bytes.h: one image at a time, with pixels in the lanes; see impl_flat.h.

static void pack_flat(const ByteJob& j) {
  const Plan& p = *j.plan;
  const int32_t fill = static_cast<int32_t>(j.fill);
  int32_t* const begin = reinterpret_cast<int32_t*>(j.packed);
  int32_t* dst = begin;
  for (int32_t c = 0; c < p.in_channels; c++) {
    const int32_t* plane = words_of(j.planes != nullptr ? j.planes[c] : j.in + c * j.in_c);
    for (int32_t phase = 0; phase < p.nphy; phase++)
      for (int32_t q = 0; q < p.ph; q++) {
        const int32_t from = j.rows.line[p.si_y * q + phase].at;
        const int32_t* row = plane + from * j.in_y;
        for (int32_t across = 0; across < p.nphx; across++, dst += p.pw) {
          const Line* line = j.columns.line + across;
          int32_t k0 = 0, k1 = 0;  // columns that lie side by side in memory, too
          if (from >= 0 && p.si_x == 1 && !j.up) {
            k0 = j.columns.plain0, k1 = j.columns.plain1 < p.pw ? j.columns.plain1 : p.pw;
            if (k1 > k0) memcpy(dst + k0, row + line[k0].at, (k1 - k0) * sizeof(int32_t));
            else k0 = k1 = 0;
          }
          const auto edge = [&](int32_t k) {
            const int32_t x = line[p.si_x * k].at;
            dst[k] = from < 0 || x < 0 ? fill : row[x];
          };
          for (int32_t k = 0; k < k0; k++) edge(k);
          for (int32_t k = k1; k < p.pw; k++) edge(k);
        }
      }
  }
  memset(dst, 0, (kFlatVectors * VL + p.pw) * sizeof(int32_t));  // what the last vectors read past the end
  if (kOffset != 0)
    for (int32_t* at = begin; at < dst; at += VL) store_any(at, as_read(load_any(at)));
}

// Sums of one channel, those of its next phase `phase` further on; and where the next channel's are.
struct Sums {
  const int32_t* data;
  int64_t channel, phase;
};

constexpr int32_t kPiece = kFlatVectors * kLanes;  // positions that are finished at a time

#if defined(__clang__) || __GNUC__ >= 12
#define GC_ZIP(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define GC_ZIP(a, b, ...) __builtin_shuffle(a, b, vi{__VA_ARGS__})
#endif
#if GC_VL == 4
#define GC_LOW 0, 4, 1, 5
#define GC_HIGH 2, 6, 3, 7
#elif GC_VL == 8
#define GC_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define GC_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define GC_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define GC_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif

// One word of each in turn.
GC_INLINE void zip(const int32_t* even, const int32_t* odd, int32_t count, int32_t* to) {
  for (int32_t k = 0; k < count; k += VL) {
    const vi a = load_any(even + k), b = load_any(odd + k);
    store_any(to + 2 * k, GC_ZIP(a, b, GC_LOW));
    store_any(to + 2 * k + VL, GC_ZIP(a, b, GC_HIGH));
  }
}
#undef GC_ZIP
#undef GC_LOW
#undef GC_HIGH

// Positions of a piece that lie in one row of the output, and where that row begins to be written in the first phase.
struct Segment {
  int32_t from, y, x, wide;  // wide: columns of the output
};
struct Piece {
  int32_t count, rows;  // positions, kPiece at most, and segments
  Segment segments[kPiece];
};

static void cut_piece(const ByteJob& j, int32_t q0, int32_t count, Piece* piece) {
  const int32_t stride = j.plan->nphx * j.plan->pw;
  Segment* const to = piece->segments;
  int32_t made = 0;
  for (int32_t q = q0, end; q < q0 + count; q = end) {
    const int32_t y = j.so_y * (q / stride), x = j.so_x * (q % stride);
    end = q + stride - q % stride;
    if (end > q0 + count) end = q0 + count;
    const int32_t wide = j.so_x * (end - q), exist = j.wo - x;
    if (y < j.ho && exist > 0) to[made++] = {q - q0, y, x, wide < exist ? wide : exist};
  }
  piece->count = count, piece->rows = made;
}

// Adds to n columns from x on, every so_x-th, of row y.
GC_INLINE void add_to(const Added& add, int32_t so_x, int32_t c, int32_t y, int32_t x, int32_t n, float* v) {
  const int32_t* row = words_of(plane_of(add, c)) + (add.up == 1 ? y : add.up == 2 ? y >> 1 : y / add.up) * add.y;
  alignas(64) int32_t words[kPiece + 2 * VL];
  const int32_t* from = words;
  if (add.up == so_x) from = row + (so_x == 1 ? x : x / so_x);
  else if (add.up == 2 && so_x == 1 && x % 2 == 0) zip(row + (x >> 1), row + (x >> 1), (n + 1) >> 1, words);
  else for (int32_t k = 0; k < n; k++) words[k] = row[(x + so_x * k) / add.up];
  for (int32_t k = 0; k < n; k += VL) {
    const vf more = taken(add, reinterpret_cast<const float*>(from) + k, c), sum = load_floats(v + k) + more;
    if (k + VL <= n) store_floats(v + k, sum);
    else memcpy(v + k, &sum, (n - k) * sizeof(float));
  }
}

GC_INLINE void spread(const void* from, int32_t so_x, int32_t n, void* to) {
  if (so_x == 1) memcpy(to, from, n * sizeof(int32_t));
  else for (int32_t k = 0; k < n; k++) static_cast<int32_t*>(to)[so_x * k] = static_cast<const int32_t*>(from)[k];
}

// What becomes of the sums of a piece, one channel of one phase: numbers, and what is added to them.
GC_INLINE void sums_to_floats(const ByteJob& j, int32_t c, int32_t phase, const int32_t* from, const Piece& piece, float* v) {
  const int32_t so_y = j.so_y, so_x = j.so_x, oy = phase / so_x, ox = phase % so_x, row = c * so_y * so_x + phase;
  const float factor = j.factor[j.plan->phases() > 1 ? c : row], shift = j.shifts[row];
  for (int32_t k = 0; k < piece.count; k += VL) {
    const vf product = __builtin_convertvector(load_any(from + k), vf) * factor;
    store_floats(v + k, product + shift);
  }
  for (int32_t m = 0; m < j.added; m++)
    for (int32_t i = 0; i < piece.rows; i++) {
      const Segment& s = piece.segments[i];
      if (s.y + oy < j.ho && s.wide > ox) add_to(j.add[m], so_x, c, s.y + oy, s.x + ox, (s.wide - ox + so_x - 1) / so_x, v + s.from);
    }
}

// Of n values of four channels, `apart` from each other, their words.
static void words_in_line(const WordWriter& given, const float* values, int64_t apart, int32_t n, int32_t* to) {
  const WordWriter w = given;
  for (int32_t k = 0; k < n; k += VL) {
    vf four[kInWord];
    GC_FOUR four[b] = load_floats(values + b * apart + k);
    store_any(to + k, word_of(w, four));
  }
}

// Takes sums of the channels of a word at the positions of a piece, with what is fused behind, to their places.
static void finish_flat(const ByteJob& j, int32_t c0, int32_t channels, const Piece& piece, const Sums& sums) {
  const int32_t so_y = j.so_y, so_x = j.so_x, n = piece.count, rows = piece.rows;
  const Segment* const segments = piece.segments;
  const bool whole = channels == kInWord && in_words(j);
  alignas(64) float v[kInWord][kPiece + VL];
  alignas(64) int32_t words[kMostViews][2][kPiece + VL], both[2 * (kPiece + VL)];
  WordWriter writers[kMostViews];
  for (int32_t m = 0; whole && m < j.view_count; m++) writers[m] = word_writer_of(j.views[m], c0, 0);
  const Bend bend = whole ? bend_of(j.act, c0) : Bend{};
  for (int32_t phase = 0; phase < so_y * so_x; phase++) {
    const int32_t oy = phase / so_x, ox = phase % so_x, half = so_x == 2 ? ox : 0;
    const auto exists = [&](const Segment& s) { return s.y + oy < j.ho && s.wide > ox; };
    const auto columns = [&](const Segment& s) { return (s.wide - ox + so_x - 1) / so_x; };
    for (int32_t b = 0; b < channels; b++)
      sums_to_floats(j, c0 + b, phase, sums.data + b * sums.channel + phase * sums.phase, piece, v[b]);
    if (whole) {
      for (int32_t k = 0; j.act.kind != kNone && k < n; k += VL) {
        vf four[kInWord];
        GC_FOUR four[b] = load_floats(v[b] + k);
        bend_all(bend, four);
        GC_FOUR store_floats(v[b] + k, four[b]);
      }
      for (int32_t m = 0; m < j.view_count; m++) words_in_line(writers[m], v[0], kPiece + VL, n, words[m][half]);
    } else {
      for (int32_t b = 0; b < channels; b++) {
        const int32_t c = c0 + b;
        if (j.act.kind != kNone)
          for (int32_t k = 0; k < n; k += VL) store_floats(v[b] + k, activated(load_floats(v[b] + k), j.act.kind, slope_of(j.act, c)));
        for (int32_t m = 0; m < j.view_count; m++) {
          const Writer writer = writer_of(j.views[m], c, 0);
          for (int32_t k = 0; k < n; k += VL) put(writer, words[m][half] + k, bytes_of(writer, load_floats(v[b] + k)));
        }
      }
    }
    for (int32_t b = 0; j.out != nullptr && b < channels; b++)
      for (int32_t i = 0; i < rows; i++) {
        const Segment& s = segments[i];
        if (exists(s)) spread(v[b] + s.from, so_x, columns(s), j.out + (c0 + b) * j.out_c + (s.y + oy) * j.out_y + s.x + ox);
      }
    for (int32_t m = 0; m < j.view_count && (so_x != 2 || ox == 1); m++) {
      const View& view = j.views[m];
      int32_t* const plane = view.data + c0 / kInWord * view.c + oy * view.y;
      if (so_x == 2) zip(words[m][0], words[m][1], n, both);
      for (int32_t i = 0; i < rows; i++) {
        const Segment& s = segments[i];
        int32_t* to = plane + s.y * view.y + s.x;
        if (s.y + oy >= j.ho) break;
        if (so_x == 2) memcpy(to, both + 2 * s.from, s.wide * sizeof(int32_t));
        else if (s.wide > ox) spread(words[m][0] + s.from, so_x, columns(s), to + ox);
      }
    }
  }
}

// Sums lie [dense row][phase of a transposed convolution], kRun apart: those of B rows, and of all phases of a word.
template <int B, int NV>
static void flat_run(const ByteJob& j, int32_t q0, int32_t count) {
  const Plan& p = *j.plan;
  const int32_t *off = j.off, *words = j.words;
  constexpr int64_t kRun = kFlatVectors * VL;
  const int32_t own = p.phases(), phases = j.so_y * j.so_x;
  const int32_t word = kInWord * phases / B;  // rows of a word of the result
  int32_t* const sums = reinterpret_cast<int32_t*>(j.acc);
  Piece piece;
  cut_piece(j, q0, count, &piece);
  for (int32_t chunk = 0; chunk < p.chunks; chunk++) {
    const int32_t* packed = words_of(j.packed) + chunk * p.chunk * p.packed_positions + q0;
    const int32_t* ptr = j.ptr + static_cast<int64_t>(chunk) * (p.rows + 1);
    const bool first = chunk == 0, last = chunk + 1 == p.chunks;
    for (int32_t row = j.row0; row < j.row1; row++) {
      int32_t* const acc = sums + (row / own * B * own + row % own) * kRun;
      const int32_t end = ptr[row + 1];
      if (ptr[row] == end && !first && !last) continue;
      vi a[B][NV];
#define GC_EACH GC_UNROLL for (int b = 0; b < B; b++) GC_UNROLL for (int i = 0; i < NV; i++)
      if (first) {
        GC_EACH a[b][i] = splat(j.start[row * B + b]);
      } else {
        GC_EACH a[b][i] = load(acc + b * own * kRun + i * VL);
      }
      int32_t t = ptr[row];
#if GC_DOT == GC_HALVES
      for (const int32_t pairs = j.single[static_cast<int64_t>(chunk) * p.rows + row]; t < pairs; t += 2) {
        const int32_t *at = packed + off[t], *next = packed + off[t + 1];
        vi w[B], u[B];
        GC_UNROLL for (int b = 0; b < B; b++) w[b] = splat(words[t * B + b]), u[b] = splat(words[(t + 1) * B + b]);
        GC_UNROLL for (int i = 0; i < NV; i++) {
          const vi x = load_any(at + i * VL), z = load_any(next + i * VL);
          GC_UNROLL for (int b = 0; b < B; b++) a[b][i] += whole(both(halves(x, w[b]), halves(z, u[b])));
        }
      }
#endif
      for (; t < end; t++) {
        const int32_t* at = packed + off[t];
        vi w[B];
        GC_UNROLL for (int b = 0; b < B; b++) w[b] = splat(words[t * B + b]);
        GC_UNROLL for (int i = 0; i < NV; i++) {
          const vi x = load_any(at + i * VL);
          GC_UNROLL for (int b = 0; b < B; b++) a[b][i] = dot(a[b][i], x, w[b]);
        }
      }
      GC_EACH store(acc + b * own * kRun + i * VL, a[b][i]);
#undef GC_EACH
      if (!last || ((row + 1) % word != 0 && row + 1 != j.row1)) continue;
      const int32_t c0 = row / word * kInWord, channels = (row + 1) * B / phases - c0;
      finish_flat(j, c0, channels, piece, {sums + c0 * phases * kRun, phases * kRun, kRun});
    }
  }
}

#if defined(GC_MATRICES)
// Sixteen rows together; see impl_bytes_tiles.h.
static void flat_tiles(const ByteJob& j, int32_t positions) {
  constexpr int32_t kRun = kFlatVectors * VL, kGroup16 = kBeside * VL;
  const Matrices matrices;
  const int32_t phases = j.plan->phases();
  int32_t* const sums = reinterpret_cast<int32_t*>(j.acc);
  const auto of_row = [&](int32_t row) { return sums + static_cast<int64_t>(row) * kTileRows * kRun; };
  Piece piece;
  for (int32_t q0 = 0; q0 < positions; q0 += kRun) {
    const int32_t count = positions - q0 < kRun ? positions - q0 : kRun;
    cut_piece(j, q0, count, &piece);
    const int32_t* packed = words_of(j.packed) + q0;
    multiply(
        j, (count + kGroup16 - 1) / kGroup16, kRun, [&](int32_t group) { return packed + group * kGroup16; }, of_row,
        [&](int32_t row) {
          if ((row + 1) % phases != 0) return;
          const int32_t first = row + 1 - phases;
          for (int32_t b = 0; b < kTileRows; b += kInWord)
            finish_flat(j, row / phases * kTileRows + b, kInWord, piece, {of_row(first) + b * kRun, kRun, kTileRows * kRun});
        });
  }
}
#endif

static void conv_flat(const ByteJob& j) {
  const Plan& p = *j.plan;
  pack_flat(j);
  const int32_t positions = p.th * p.nphx * p.pw;
#if defined(GC_MATRICES)
  if (j.blocks == kTileRows) return flat_tiles(j, positions);
#endif
  // So many accumulators that they and what is multiplied fit the registers.
  const int32_t vectors = (positions + VL - 1) / VL, registers = GC_MANY_REGISTERS ? 28 : 12;
  const int32_t all = VL == 16 ? kFlatVectors : kFlatVectors / 2, most = j.blocks == 1 || all * j.blocks <= registers ? all : registers / j.blocks;
  const int32_t runs = (vectors + most - 1) / most, even = (vectors + runs - 1) / runs;
  for (int32_t q0 = 0; q0 < positions; q0 += even * VL) {
    const int32_t count = positions - q0 < even * VL ? positions - q0 : even * VL;
    switch (j.blocks * 100 + even) {
#define GC_RUN(b, n) case b * 100 + n: flat_run<b, n>(j, q0, count); break;
      GC_RUN(1, 1) GC_RUN(1, 2) GC_RUN(1, 3) GC_RUN(1, 4) GC_RUN(1, 5) GC_RUN(1, 6) GC_RUN(1, 7) GC_RUN(1, 8)
#if GC_VL == 16
      GC_RUN(1, 9) GC_RUN(1, 10) GC_RUN(1, 11) GC_RUN(1, 12) GC_RUN(1, 13) GC_RUN(1, 14) GC_RUN(1, 15) GC_RUN(1, 16)
#endif
#if GC_FLAT_BLOCKS > 1
      GC_RUN(2, 1) GC_RUN(2, 2) GC_RUN(2, 3) GC_RUN(2, 4) GC_RUN(2, 5) GC_RUN(2, 6)
#if GC_MANY_REGISTERS
      GC_RUN(2, 7) GC_RUN(2, 8)
#endif
#if GC_VL == 16
      GC_RUN(2, 9) GC_RUN(2, 10) GC_RUN(2, 11) GC_RUN(2, 12) GC_RUN(2, 13) GC_RUN(2, 14)
#endif
#endif
#undef GC_RUN
    }
  }
}
