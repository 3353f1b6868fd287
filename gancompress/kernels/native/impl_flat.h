// Part of impl.h: one image at a time, with pixels in the lanes.
//
// The whole input is packed with its padding, so that the outputs of a channel are one run of positions: position
// q = y*stride + x reads packed[q + off] for every entry, whatever the width of the image. The columns past the width
// are computed and dropped. Loads are unaligned, which is why this is not the kernel for batches.

// Pixels row[from], row[from + step], .. of one channel with what is fused before the convolution.
static void fused_pixels(const TileJob& j, int32_t c, const float* row, int32_t step, int32_t count, float* dst) {
  if (step == 1) memcpy(dst, row, count > 0 ? count * sizeof(float) : 0);
  else for (int32_t k = 0; k < count; k++) dst[k] = row[k * step];
  if (j.scale == nullptr && j.pre.kind == kNone) return;
  const bool affine = j.scale != nullptr;
  const int32_t kind = is_smooth(j.pre.kind) ? int32_t{kNone} : j.pre.kind;
  const Before b{zero() + (affine ? j.scale[c] : 0.0f), zero() + (affine ? j.shift[c] : 0.0f), zero() + (kind == kSlopes ? j.pre.slopes[c] : 0.0f), affine, kind};
  int32_t k = 0;
  for (; k + VL <= count; k += VL) store_any(dst + k, before(b, load_any(dst + k)));
  if (k < count) {
    float rest[VL] = {};
    memcpy(rest, dst + k, (count - k) * sizeof(float));
    store_any(rest, before(b, load_any(rest)));
    memcpy(dst + k, rest, (count - k) * sizeof(float));
  }
  if (is_smooth(j.pre.kind)) smooth_floats(dst, count, j.pre.kind);
}

static void activate_floats(float* v, int32_t count, int32_t kind, vf slope) {
  if (is_smooth(kind)) return smooth_floats(v, count, kind);
  int32_t k = 0;
  for (; k + VL <= count; k += VL) store_any(v + k, activated(load_any(v + k), kind, slope));
  for (; k < count; k++) v[k] = v[k] < 0.0f ? (kind == kRelu ? 0.0f : v[k] * slope[0]) : v[k];
}

// The same for `count` pixels of which every one of the row is two.
static void fused_upsampled(const TileJob& j, int32_t c, const float* row, int32_t count, float* dst) {
  constexpr int32_t kPart = 128;
  float part[kPart];
  for (int32_t k = 0; k < count; k += 2 * kPart) {
    const int32_t n = count - k < 2 * kPart ? count - k : 2 * kPart;
    fused_pixels(j, c, row + k / 2, 1, (n + 1) / 2, part);
    for (int32_t i = 0; i < n / 2; i++) dst[k + 2 * i] = dst[k + 2 * i + 1] = part[i];
    if (n % 2 != 0) dst[k + n - 1] = part[n / 2];
  }
}

static void pack_flat(const TileJob& j) {
  const Plan& p = *j.plan;
  const int32_t wide = j.wi << j.up, row_floats = p.nphx * p.pw;
  float* dst = j.packed;
  for (int32_t c = 0; c < p.in_channels; c++) {
    const float* plane = plane_of(j, c);
    for (int32_t phase = 0; phase < p.nphy; phase++) {
      int32_t above = -1;  // the input row that the packed row before came from
      for (int32_t q = 0; q < p.ph; q++, dst += row_floats) {
        const int32_t from = j.rows.line[p.si_y * q + phase].at;
        if (from >= 0 && from == above) {
          memcpy(dst, dst - row_floats, row_floats * sizeof(float));
          continue;
        }
        above = from;
        const float* row = plane + from * j.in_y;
        for (int32_t across = 0; across < p.nphx; across++) {
          float* const to = dst + across * p.pw;
          const int32_t at = p.dx0 + across;
          // Columns k0..k1 lie inside the image.
          int32_t k0 = at < 0 ? (-at + p.si_x - 1) / p.si_x : 0, k1 = at >= wide ? 0 : (wide - at + p.si_x - 1) / p.si_x;
          k1 = from < 0 ? 0 : k1 < p.pw ? k1 : p.pw;
          k0 = k0 < k1 ? k0 : k1;
          const auto edge = [&](int32_t k) {
            const int32_t x = from < 0 ? -1 : j.columns.line[across + p.si_x * k].at;
            if (x < 0) to[k] = 0.0f;
            else fused_pixels(j, c, row + x, 1, 1, to + k);
          };
          for (int32_t k = 0; k < k0; k++) edge(k);
          for (int32_t k = k1; k < p.pw; k++) edge(k);
          const int32_t x = at + p.si_x * k0;  // of the first column
          if (!j.up) fused_pixels(j, c, row + x, p.si_x, k1 - k0, to + k0);
          else if (p.si_x == 1 && x % 2 == 0) fused_upsampled(j, c, row + x / 2, k1 - k0, to + k0);
          else for (int32_t k = k0; k < k1; k++) edge(k);
        }
      }
    }
  }
  memset(dst, 0, (kFlatVectors * VL + p.pw) * sizeof(float));  // what the last vectors read past the end
}

// Takes `count` positions from q0 on to their places in the output; what is fused happens in `acc`.
static void finish_flat(const TileJob& j, int32_t row, int32_t q0, int32_t count, float* acc) {
  const Plan& p = *j.plan;
  const int32_t so_y = p.so_y, so_x = p.so_x, stride = p.nphx * p.pw;
  const int32_t c = row / (so_y * so_x), oy = row / so_x % so_y, ox = row % so_x;
  const vf slope = zero() + (j.act.kind == kSlopes ? j.act.slopes[c] : 0.0f);
  if (j.added == 0 && j.act.kind != kNone)
    activate_floats(acc, count, j.act.kind, slope);
  for (int32_t q = q0; q < q0 + count;) {
    const int32_t y = so_y * (q / stride) + oy, x0 = q % stride;
    int32_t end = q + stride - x0;
    if (end > q0 + count) end = q0 + count;
    if (y < j.ho) {
      int32_t n = (j.wo - ox + so_x - 1) / so_x - x0;  // columns of this phase that exist
      if (n > end - q) n = end - q;
      float* from = acc + (q - q0);
      for (int32_t m = 0; m < j.added; m++) {
        const Added& add = j.add[m];
        const float* beside = add.data + c * add.c + (y / add.up) * add.y;
        if (add.up == 1 && so_x == 1)
          for (int32_t k = 0; k < n; k++) from[k] += add.factor * beside[x0 + k];
        else if (add.up == 2 && so_x == 1)
          for (int32_t k = 0; k < n; k++) from[k] += add.factor * beside[(x0 + k) >> 1];
        else
          for (int32_t k = 0; k < n; k++) from[k] += add.factor * beside[(so_x * (x0 + k) + ox) / add.up];
      }
      float* to = j.out + c * j.out_c + y * j.out_y + so_x * x0 + ox;
      if (j.added != 0 && j.act.kind != kNone) activate_floats(from, n > 0 ? n : 0, j.act.kind, slope);
      if (so_x == 1)
        for (int32_t k = 0; k < n; k++) to[k] = from[k];
      else
        for (int32_t k = 0; k < n; k++) to[so_x * k] = from[k];
    }
    q = end;
  }
}

// Loads across cache lines take twice as long as a product: compilers must not load twice what two products take.
#if defined(GC_EMULATED)  // vectors wider than registers
#define GC_KEEP(x)
#elif defined(__x86_64__)
#define GC_KEEP(x) asm("" : "+v"(x))
#elif defined(__aarch64__)
#define GC_KEEP(x) asm("" : "+w"(x))
#else
#define GC_KEEP(x)
#endif

// TWINS rows with the same entries at a time: those of output channels side by side.
template <int TWINS, int NV>
static void flat_run(const TileJob& j, int32_t q0, int32_t count) {
  const Plan& p = *j.plan;
  const int64_t channel = p.packed_positions;
  const int32_t phases = p.so_y * p.so_x;
  for (int32_t k = 0; k < p.chunks; k++) {
    const float* packed = j.packed + k * p.chunk * channel + q0;
    const int32_t* ptr = p.ptr + static_cast<int64_t>(k) * (p.rows + 1);
    const bool first = k == 0, last = k + 1 == p.chunks;
    for (int32_t row = j.row0; row < j.row1; row++) {
      if (TWINS > 1 && row / phases % TWINS != 0) continue;
      const int64_t next = static_cast<int64_t>(phases) * kFlatVectors * VL;  // from the sums of a row to its twin's
      float* const acc = j.acc + static_cast<int64_t>(row) * kFlatVectors * VL;
      const int32_t begin = ptr[row], count_of = ptr[row + 1] - begin;
      if (count_of == 0 && !first && !last) continue;
      vf a[TWINS][NV];
#define GC_EACH GC_UNROLL for (int u = 0; u < TWINS; u++) GC_UNROLL for (int i = 0; i < NV; i++)
      if (first) {
        GC_EACH a[u][i] = zero() + (j.bias != nullptr ? j.bias[(row + u * phases) / p.rows_of_bias] : 0.0f);
      } else {
        GC_EACH a[u][i] = load(acc + u * next + i * VL);
      }
      const int32_t* off = p.off + begin;
      const float* value[TWINS];
      for (int u = 0; u < TWINS; u++) value[u] = j.value + ptr[row + u * phases];
      for (int32_t t = 0; t < count_of; t++) {
        const float* at = packed + off[t];
        float w[TWINS];
        GC_UNROLL for (int u = 0; u < TWINS; u++) w[u] = value[u][t];
        GC_UNROLL for (int i = 0; i < NV; i++) {
          vf x = load_any(at + i * VL);
          if (TWINS > 1) GC_KEEP(x);
          GC_UNROLL for (int u = 0; u < TWINS; u++) a[u][i] += w[u] * x;
        }
      }
      GC_EACH store(acc + u * next + i * VL, a[u][i]);
#undef GC_EACH
      for (int u = 0; last && u < TWINS; u++) finish_flat(j, row + u * phases, q0, count, acc + u * next);
    }
  }
}

static void conv_flat(const TileJob& j) {
  const Plan& p = *j.plan;
  pack_flat(j);
  const int32_t positions = p.th * p.nphx * p.pw;
  const int32_t vectors = (positions + VL - 1) / VL;
  // So many accumulators that they and what is multiplied fit the registers.
  const int32_t most = GC_REGISTERS >= 32 ? (p.twins ? 14 : kFlatVectors) : p.twins ? 6 : kFlatVectors / 2;
  const int32_t runs = (vectors + most - 1) / most, even = (vectors + runs - 1) / runs;
  for (int32_t q0 = 0; q0 < positions; q0 += even * VL) {
    const int32_t count = positions - q0 < even * VL ? positions - q0 : even * VL;
    switch ((p.twins ? 200 : 100) + even) {
#define GC_RUN(twins, n) case twins * 100 + n: flat_run<twins, n>(j, q0, count); break;
      GC_RUN(1, 1) GC_RUN(1, 2) GC_RUN(1, 3) GC_RUN(1, 4) GC_RUN(1, 5) GC_RUN(1, 6) GC_RUN(1, 7) GC_RUN(1, 8)
#if GC_REGISTERS >= 32
      GC_RUN(1, 9) GC_RUN(1, 10) GC_RUN(1, 11) GC_RUN(1, 12) GC_RUN(1, 13) GC_RUN(1, 14) GC_RUN(1, 15) GC_RUN(1, 16)
#endif
#if !defined(GC_WEB)
      GC_RUN(2, 1) GC_RUN(2, 2) GC_RUN(2, 3) GC_RUN(2, 4) GC_RUN(2, 5) GC_RUN(2, 6)
#if GC_REGISTERS >= 32
      GC_RUN(2, 7) GC_RUN(2, 8) GC_RUN(2, 9) GC_RUN(2, 10) GC_RUN(2, 11) GC_RUN(2, 12) GC_RUN(2, 13) GC_RUN(2, 14)
#endif
#endif
#undef GC_RUN
    }
  }
}
