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

// `count` sums of positions from q0 on, with what is fused behind, to their places.
static void finish_flat(const ByteJob& j, int32_t row, int32_t q0, int32_t count, const int32_t* sums) {
  const Plan& p = *j.plan;
  const Place4 at = place_of(j, row, 0);
  const float factor = j.factor[at.dense], shift = j.shifts[at.dense * p.phases() + at.phase], slope = slope_of(j.act, at.c);
  const int32_t stride = p.nphx * p.pw;
  alignas(64) float v[(kFlatVectors + 1) * VL];
  alignas(64) int32_t words[(kFlatVectors + 1) * VL];
  for (int32_t q = q0, end; q < q0 + count; q = end) {
    const int32_t y = j.so_y * (q / stride) + at.oy, x0 = q % stride;
    end = q + stride - x0;
    if (end > q0 + count) end = q0 + count;
    int32_t n = (j.wo - at.ox + j.so_x - 1) / j.so_x - x0;  // columns of this phase that exist
    if (n > end - q) n = end - q;
    if (y >= j.ho || n <= 0) continue;
    for (int32_t k = 0; k < n; k += VL) {
      const vf scaled = __builtin_convertvector(load_any(sums + (q - q0) + k), vf) * factor;
      store_floats(v + k, scaled + shift);
    }
    for (int32_t m = 0; m < j.added; m++) {
      const Added& add = j.add[m];
      const float* line = plane_of(add, at.c) + y / add.up * add.y;
      if (add.up == 1 && j.so_x == 1) {
        for (int32_t k = 0; k < n; k += VL) {
          const vf more = taken(add, line + x0 + k, at.c);
          store_floats(v + k, load_floats(v + k) + more);
        }
      } else {
        for (int32_t k = 0; k < n; k++) words[k] = words_of(line)[(j.so_x * (x0 + k) + at.ox) / add.up];
        for (int32_t k = 0; k < n; k += VL) {
          const vf more = taken(add, reinterpret_cast<const float*>(words) + k, at.c);
          store_floats(v + k, load_floats(v + k) + more);
        }
      }
    }
    if (j.act.kind != kNone)
      for (int32_t k = 0; k < n; k += VL) store_floats(v + k, activated(load_floats(v + k), j.act.kind, slope));
    const int32_t x = j.so_x * x0 + at.ox;
    if (j.out != nullptr) {
      float* to = j.out + at.c * j.out_c + y * j.out_y + x;
      for (int32_t k = 0; k < n; k++) to[j.so_x * k] = v[k];
    }
    for (int32_t m = 0; m < j.view_count; m++) {
      const View& view = j.views[m];
      const Writer writer = writer_of(view, at.c, 0);
      int32_t* to = view.data + at.c / kInWord * view.c + y * view.y + x;
      for (int32_t k = 0; k < n; k += VL) store_any(words + k, bytes_of(writer, load_floats(v + k)));
      for (int32_t k = 0; k < n; k++) to[j.so_x * k] = writer.bits == 0 ? words[k] : to[j.so_x * k] | words[k];
    }
  }
}

template <int NV>
static void flat_run(const ByteJob& j, int32_t q0, int32_t count) {
  const Plan& p = *j.plan;
  const int32_t *off = j.off, *words = j.words;
  for (int32_t chunk = 0; chunk < p.chunks; chunk++) {
    const int32_t* packed = words_of(j.packed) + chunk * p.chunk * p.packed_positions + q0;
    const int32_t* ptr = j.ptr + static_cast<int64_t>(chunk) * (p.rows + 1);
    const bool first = chunk == 0, last = chunk + 1 == p.chunks;
    for (int32_t row = j.row0; row < j.row1; row++) {
      int32_t* acc = reinterpret_cast<int32_t*>(j.acc) + static_cast<int64_t>(row) * kFlatVectors * VL;
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
      if (last) finish_flat(j, row, q0, count, acc);
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
