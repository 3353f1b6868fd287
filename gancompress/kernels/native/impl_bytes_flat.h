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

constexpr int32_t kLine = 32 * kLanes;  // columns that are finished at a time

#if defined(__clang__)
#define GC_ZIP(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define GC_ZIP(a, b, i, j, k, l) __builtin_shuffle(a, b, (v4){i, j, k, l})
#endif
typedef int32_t v4 __attribute__((vector_size(16), aligned(4), may_alias));

// Every other one of each.
GC_INLINE void zip(const void* even, const void* odd, int32_t count, void* to) {
  const v4 *a = static_cast<const v4*>(even), *b = static_cast<const v4*>(odd);
  v4* out = static_cast<v4*>(to);
  for (int32_t k = 0; k < count; k += 4, a++, b++) *out++ = GC_ZIP(*a, *b, 0, 4, 1, 5), *out++ = GC_ZIP(*a, *b, 2, 6, 3, 7);
}
#undef GC_ZIP

// The results of `positions` in a row, of all phases across, side by side; whole vectors of positions.
GC_INLINE void results(const ByteJob& j, int32_t c, int32_t oy, const int32_t* sums, int64_t phase, int32_t positions, float* line) {
  const int32_t so_x = j.so_x, own = j.plan->phases();
  alignas(64) float part[2][kLine];
  for (int32_t ox = 0; ox < so_x; ox++, sums += phase) {
    const int32_t row = (c * j.so_y + oy) * so_x + ox;
    const float factor = j.factor[row / own], shift = j.shifts[row];
    float* to = so_x == 1 ? line : part[so_x == 2 ? ox : 0];
    for (int32_t k = 0; k < positions; k += VL) {
      const vf product = __builtin_convertvector(load_any(sums + k), vf) * factor;
      store_floats(to + k, product + shift);
    }
    if (so_x > 2) for (int32_t k = 0; k < positions; k++) line[so_x * k + ox] = to[k];
  }
  if (so_x == 2) zip(part[0], part[1], positions, line);
}

GC_INLINE void add_to(const Added& add, int32_t c, int32_t y, int32_t x, int32_t n, float* line) {
  const int32_t* from = words_of(plane_of(add, c) + y / add.up * add.y) + x / add.up;
  alignas(64) int32_t words[kLine + VL];
  if (add.up == 2 && x % 2 == 0) zip(from, from, (n + 1) / 2, words);
  else if (add.up > 1) for (int32_t k = 0; k < n; k++) words[k] = from[(x % add.up + k) / add.up];
  if (add.up > 1) from = words;
  for (int32_t k = 0; k < n; k += VL) {
    const vf more = taken(add, reinterpret_cast<const float*>(from) + k, c);
    store_floats(line + k, load_floats(line + k) + more);
  }
}

// Takes sums of the channels of a word, those of `count` positions from q0 on, with what is fused behind, to their places.
static void finish_flat(const ByteJob& j, int32_t c0, int32_t channels, int32_t q0, int32_t count, const Sums& sums) {
  const Plan& p = *j.plan;
  const int32_t stride = p.nphx * p.pw, most = kLine / j.so_x / VL * VL;
  alignas(64) float lines[kInWord][kLine + VL];
  Writer writers[kMostViews][kInWord];
  for (int32_t m = 0; m < j.view_count; m++)
    for (int32_t b = 0; b < channels; b++) writers[m][b] = writer_of(j.views[m], c0 + b, 0);
  for (int32_t q = q0, end; q < q0 + count; q = end) {
    const int32_t x = j.so_x * (q % stride);
    end = q + stride - q % stride;
    if (end > q + most) end = q + most;
    if (end > q0 + count) end = q0 + count;
    const int32_t wide = j.so_x * (end - q), n = j.wo - x < wide ? j.wo - x : wide;  // columns that exist
    if (n <= 0) continue;
    const int32_t positions = (n + j.so_x - 1) / j.so_x;
    for (int32_t oy = 0; oy < j.so_y; oy++) {
      const int32_t y = j.so_y * (q / stride) + oy;
      if (y >= j.ho) break;
      for (int32_t b = 0; b < channels; b++) {
        float* line = lines[b];
        const int32_t c = c0 + b;
        results(j, c, oy, sums.data + b * sums.channel + oy * j.so_x * sums.phase + (q - q0), sums.phase, positions, line);
        for (int32_t m = 0; m < j.added; m++) add_to(j.add[m], c, y, x, n, line);
        if (j.act.kind != kNone)
          for (int32_t k = 0; k < n; k += VL) store_floats(line + k, activated(load_floats(line + k), j.act.kind, slope_of(j.act, c)));
        if (j.out != nullptr) memcpy(j.out + c * j.out_c + y * j.out_y + x, line, n * sizeof(float));
      }
      for (int32_t m = 0; m < j.view_count; m++) {
        const View& view = j.views[m];
        int32_t* to = view.data + c0 / kInWord * view.c + y * view.y + x;
        for (int32_t k = 0; k < n; k += VL) {
          vi words = {};
          for (int32_t b = 0; b < channels; b++) words |= bytes_of(writers[m][b], load_floats(lines[b] + k));
          if (k + VL <= n) store_any(to + k, words);
          else memcpy(to + k, &words, (n - k) * sizeof(int32_t));
        }
      }
    }
  }
}

template <int NV>
static void flat_run(const ByteJob& j, int32_t q0, int32_t count) {
  const Plan& p = *j.plan;
  const int32_t *off = j.off, *words = j.words;
  constexpr int64_t kRun = kFlatVectors * VL;
  const int32_t phases = j.so_y * j.so_x, word = kInWord * phases;  // rows of a word of the result
  for (int32_t chunk = 0; chunk < p.chunks; chunk++) {
    const int32_t* packed = words_of(j.packed) + chunk * p.chunk * p.packed_positions + q0;
    const int32_t* ptr = j.ptr + static_cast<int64_t>(chunk) * (p.rows + 1);
    const bool first = chunk == 0, last = chunk + 1 == p.chunks;
    for (int32_t row = j.row0; row < j.row1; row++) {
      int32_t* acc = reinterpret_cast<int32_t*>(j.acc) + row * kRun;
      const int32_t end = ptr[row + 1];
      if (ptr[row] == end && !first && !last) continue;
      vi a[NV];
      GC_UNROLL for (int i = 0; i < NV; i++) a[i] = first ? splat(j.start[row]) : load(acc + i * VL);
      int32_t t = ptr[row];
#if GC_DOT == GC_HALVES
      for (const int32_t pairs = j.single[static_cast<int64_t>(chunk) * p.rows + row]; t < pairs; t += 2) {
        const int32_t *at = packed + off[t], *next = packed + off[t + 1];
        const vi w = splat(words[t]), u = splat(words[t + 1]);
        GC_UNROLL for (int i = 0; i < NV; i++) a[i] += whole(both(halves(load_any(at + i * VL), w), halves(load_any(next + i * VL), u)));
      }
#endif
      for (; t < end; t++) {
        const int32_t* at = packed + off[t];
        const vi w = splat(words[t]);
        GC_UNROLL for (int i = 0; i < NV; i++) a[i] = dot(a[i], load_any(at + i * VL), w);
      }
      GC_UNROLL for (int i = 0; i < NV; i++) store(acc + i * VL, a[i]);
      if (last && ((row + 1) % word == 0 || row + 1 == j.row1)) {
        const int32_t c0 = row / word * kInWord;
        finish_flat(j, c0, row / phases + 1 - c0, q0, count, {acc - row % word * kRun, phases * kRun, kRun});
      }
    }
  }
}

static void conv_flat(const ByteJob& j) {
  const Plan& p = *j.plan;
  pack_flat(j);
  const int32_t positions = p.th * p.nphx * p.pw;
  const int32_t vectors = (positions + VL - 1) / VL;
  const int32_t most = VL == 16 ? kFlatVectors : kFlatVectors / 2;
  const int32_t runs = (vectors + most - 1) / most, even = (vectors + runs - 1) / runs;
  for (int32_t q0 = 0; q0 < positions; q0 += even * VL) {
    const int32_t count = positions - q0 < even * VL ? positions - q0 : even * VL;
    switch (even) {
#define GC_RUN(n) case n: flat_run<n>(j, q0, count); break;
      GC_RUN(1) GC_RUN(2) GC_RUN(3) GC_RUN(4) GC_RUN(5) GC_RUN(6) GC_RUN(7)
#if GC_VL == 16
      GC_RUN(9) GC_RUN(10) GC_RUN(11) GC_RUN(12) GC_RUN(13) GC_RUN(14) GC_RUN(15) GC_RUN(16)
#endif
#undef GC_RUN
      default: flat_run<8>(j, q0, count); break;
    }
  }
}
