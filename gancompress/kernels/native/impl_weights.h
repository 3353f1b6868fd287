// Weight gradients, part of impl.h: for every kept weight, the sum over positions and images of what it reads times the
// gradient of what it adds to. Entries are taken in groups of one row, which share every vector of the gradient; their sums
// stay in registers over a whole region.

// The sums of the lanes of four vectors.
GC_INLINE v4 lane_sums(v4 a, v4 b, v4 c, v4 d) {
  const v4 ab = GC_SHUFFLE(a, b, 0, 4, 1, 5) + GC_SHUFFLE(a, b, 2, 6, 3, 7), cd = GC_SHUFFLE(c, d, 0, 4, 1, 5) + GC_SHUFFLE(c, d, 2, 6, 3, 7);
  return GC_SHUFFLE(ab, cd, 0, 1, 4, 5) + GC_SHUFFLE(ab, cd, 2, 3, 6, 7);
}

GC_INLINE v4 to_four_lanes(vf v) {
  const v4* part = reinterpret_cast<const v4*>(&v);
  return VL == 16 ? (part[0] + part[VL / 4 / 2]) + (part[VL / 16] + part[VL / 4 - 1]) : VL == 8 ? part[0] + part[VL / 4 - 1] : part[0];
}

template <bool PAIRS>
GC_INLINE vf product(vf sum, const float* g, const float* in) {
  if (PAIRS) return dot(sum, load_words(in), load_words(g));
  return sum + load(g) * load(in);
}

// Adds to the sums of E entries what a region of high x wide positions gives. `g` holds the gradient there; in pairs, words
// of two positions each, and `wide` counts them.
template <bool PAIRS, int E>
GC_INLINE void add_group(const float* g, const float* packed, const int32_t* off, int32_t high, int32_t wide, int64_t step, float* sums) {
  constexpr int U = E > 4 ? 1 : E > 2 ? 2 : 8 / E;  // positions at a time: so many chains hide the latency of the additions
  const float* in[E];
  vf a[U][E];
  constexpr int S = PAIRS ? 2 : 1;  // positions of the input for one of the gradient
  GC_UNROLL for (int e = 0; e < E; e++) {
    in[e] = packed + off[e];
    GC_UNROLL for (int u = 0; u < U; u++) a[u][e] = zero();
  }
  for (int32_t y = 0; y < high; y++) {
    int64_t x = 0;
    for (; x + U * VL <= static_cast<int64_t>(wide) * VL; x += U * VL, g += U * VL) GC_UNROLL for (int u = 0; u < U; u++) {
      const float* by = g + u * VL;
      GC_UNROLL for (int e = 0; e < E; e++) a[u][e] = product<PAIRS>(a[u][e], by, in[e] + S * (x + u * VL));
    }
    for (; U > 1 && x < static_cast<int64_t>(wide) * VL; x += VL, g += VL) {
      GC_UNROLL for (int e = 0; e < E; e++) a[0][e] = product<PAIRS>(a[0][e], g, in[e] + S * x);
    }
    GC_UNROLL for (int e = 0; e < E; e++) in[e] += step;
  }
  v4 s[8] = {};
  GC_UNROLL for (int e = 0; e < E; e++) {
    GC_UNROLL for (int n = U / 2; n > 0; n /= 2) GC_UNROLL for (int u = 0; u < n; u++) a[u][e] += a[u + n][e];
    s[e] = to_four_lanes(a[0][e]);
  }
  GC_UNROLL for (int e = 0; e < E; e += 4) {
    const v4 four = lane_sums(s[e], s[e + 1], s[e + 2], s[e + 3]);
    if (e + 4 <= E) store4(sums + e, load4(sums + e) + four);
    else GC_UNROLL for (int k = 0; k < E - e; k++) sums[e + k] += four[k];
  }
}

// The groups of E entries of one chunk: `at` is where their entries begin, `row` the row of each group.
template <bool PAIRS, int E>
static void add_groups(const TileJob& j, const int32_t* row, int32_t groups, int32_t at, int32_t high, int32_t wide, float* sums) {
  const Plan& p = *j.plan;
  const int64_t step = static_cast<int64_t>(p.nphx) * p.pw * VL, row_floats = static_cast<int64_t>(high) * wide * VL;
  int32_t first = 0;
  while (first < groups && row[first] < j.row0) first++;
  for (int32_t i = first; i < groups && row[i] < j.row1; i++) {
    const int32_t t = at + i * E;
    add_group<PAIRS, E>(j.acc + (row[i] - j.row0) * row_floats, j.packed, p.off + t, high, wide, step, sums + t);
  }
}

// Brings the gradient of a region together, [vector][row][position]: every chunk reads it from the second-level cache.
static void pack_gradient(const TileJob& j, const float* gradient, int32_t y0, int32_t x0, int32_t high, int32_t wide) {
  const int64_t apart = static_cast<int64_t>(j.row1 - j.row0) * high * wide * VL;
  const int32_t parts = parts_of(j);
  float* dst = j.acc;
  for (int32_t row = j.row0; row < j.row1; row++)
    for (int32_t y = 0; y < high; y++) {
      const float* at = gradient + row * j.out_c + (y0 + y) * j.out_y + x0 * j.out_x;
      for (int32_t x = 0; x < wide; x++, dst += VL)
        for (int32_t part = 0; part < parts; part++) store(dst + part * apart, load(at + x * j.out_x + part * VL));
      for (int32_t x = 0; row + 1 < j.row1 && x < wide; x++) __builtin_prefetch(at + j.out_c + x * j.out_x, 0, 2);
    }
}

template <bool PAIRS>
static void weight_sums(const TileJob& job, const float* gradient, int32_t chunk0, int32_t chunk1, float* sums) {
  TileJob j = job;
  const Plan& p = *j.plan;
  const int32_t rows = j.row1 - j.row0;
  for (int32_t y0 = j.tile0 * p.th; y0 < j.tile1 * p.th && y0 < j.ho; y0 += p.th)
    for (int32_t x0 = 0; x0 < j.wo; x0 += p.tw) {
      const int32_t high = p.th < j.ho - y0 ? p.th : j.ho - y0, across = p.tw < j.wo - x0 ? p.tw : j.wo - x0;
      const int32_t wide = PAIRS ? (across + 1) / 2 : across;  // of what is summed: positions, or pairs of them
      pack_gradient(job, gradient, y0, x0, high, across);
      const int64_t apart = static_cast<int64_t>(rows) * high * across * VL;
      for (int part = 0; PAIRS && part < parts_of(j); part++) halve_columns(job.acc + part * apart, static_cast<int64_t>(rows) * high, across);
      for (int32_t chunk = chunk0; chunk < chunk1; chunk++) {
        const int32_t c0 = chunk * p.chunk, c1 = c0 + p.chunk < p.in_channels ? c0 + p.chunk : p.in_channels;
        pack(job, y0, x0, c0, c1);
        const int32_t* ptr = p.ptr + static_cast<int64_t>(chunk) * (kGroup + 1);
        for (int32_t part = 0; part < parts_of(j); part++) {
          j.packed = job.packed + part * part_floats(p);
          if (PAIRS) pair_columns(j.packed, (c1 - c0) * p.packed_positions / p.pw, p.pw);
          j.acc = job.acc + part * apart;
          const int32_t* row = p.group_row + p.first_group[chunk];
#define GC_GROUPS(E)                                                                     \
  {                                                                                      \
    const int32_t at = ptr[kGroup - E], groups = (ptr[kGroup - E + 1] - at) / E;          \
    add_groups<PAIRS, E>(j, row, groups, at, high, wide, sums);                           \
    row += groups;                                                                       \
  }
          GC_GROUPS(8) GC_GROUPS(7) GC_GROUPS(6) GC_GROUPS(5) GC_GROUPS(4) GC_GROUPS(3) GC_GROUPS(2) GC_GROUPS(1)
#undef GC_GROUPS
        }
      }
    }
}

static void weight_gradient(const TileJob& job, const float* gradient, int32_t chunk0, int32_t chunk1, float* sums) {
  if (job.bf16) weight_sums<true>(job, gradient, chunk0, chunk1, sums);
  else weight_sums<false>(job, gradient, chunk0, chunk1, sums);
}
