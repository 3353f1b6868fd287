// Part of impl.h: one image at a time, with pixels in the lanes.
//
// The whole input is packed with its padding, so that the outputs of a channel are one run of positions: position
// q = y*stride + x reads packed[q + off] for every entry, whatever the width of the image. The columns past the width
// are computed and dropped. Loads are unaligned, which is why this is not the kernel for batches.

typedef float vu __attribute__((vector_size(VL * 4), aligned(4), may_alias));
GC_INLINE vf load_any(const float* p) { return *reinterpret_cast<const vu*>(p); }

// Pixels row[from], row[from + step], .. of one channel with what is fused before the convolution. Loops of the
// compiler's own vectors: conditions that never change are kept out of them.
template <bool AFFINE, bool RELU>
GC_INLINE void copy_pixels(const float* row, int32_t step, int32_t count, float scale, float shift, float* dst) {
  const auto value = [&](float v) {
    if (AFFINE) v = v * scale + shift;
    return RELU && v < 0.0f ? 0.0f : v;
  };
  if (step == 1)
    for (int32_t k = 0; k < count; k++) dst[k] = value(row[k]);
  else
    for (int32_t k = 0; k < count; k++) dst[k] = value(row[k * step]);
}

static void fused_pixels(const TileJob& j, int32_t c, const float* row, int32_t step, int32_t count, float* dst) {
  const bool affine = j.scale != nullptr;
  const float scale = affine ? j.scale[c] : 1.0f, shift = affine ? j.shift[c] : 0.0f;
  if (affine && j.pre_relu) copy_pixels<true, true>(row, step, count, scale, shift, dst);
  else if (affine) copy_pixels<true, false>(row, step, count, scale, shift, dst);
  else if (j.pre_relu) copy_pixels<false, true>(row, step, count, scale, shift, dst);
  else copy_pixels<false, false>(row, step, count, scale, shift, dst);
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
  const int32_t high = j.hi << j.up, wide = j.wi << j.up, row_floats = p.nphx * p.pw;
  float* dst = j.packed;
  for (int32_t c = 0; c < p.in_channels; c++) {
    const float* plane = j.in + c * j.in_c;
    for (int32_t phase = 0; phase < p.nphy; phase++) {
      int32_t above = -1;  // the input row that the packed row before came from
      for (int32_t q = 0; q < p.ph; q++, dst += row_floats) {
        const int32_t y = p.si * q + p.dy0 + phase, from = y >> j.up;
        if (y >= 0 && y < high && from == above) {
          memcpy(dst, dst - row_floats, row_floats * sizeof(float));
          continue;
        }
        above = y >= 0 && y < high ? from : -1;
        for (int32_t across = 0; across < p.nphx; across++) {
          float* const to = dst + across * p.pw;
          const int32_t at = p.dx0 + across;
          // Columns k0..k1 lie inside the image.
          int32_t k0 = at < 0 ? (-at + p.si - 1) / p.si : 0, k1 = at >= wide ? 0 : (wide - at + p.si - 1) / p.si;
          k1 = above < 0 ? 0 : k1 < p.pw ? k1 : p.pw;
          k0 = k0 < k1 ? k0 : k1;
          for (int32_t k = 0; k < k0; k++) to[k] = 0.0f;
          for (int32_t k = k1; k < p.pw; k++) to[k] = 0.0f;
          const int32_t x = at + p.si * k0;  // of the first column
          const float* row = plane + from * j.in_y;
          if (!j.up) {
            fused_pixels(j, c, row + x, p.si, k1 - k0, to + k0);
          } else if (p.si == 1 && x % 2 == 0) {
            fused_upsampled(j, c, row + x / 2, k1 - k0, to + k0);
          } else {
            for (int32_t k = k0; k < k1; k++) fused_pixels(j, c, row + ((at + p.si * k) >> 1), 1, 1, to + k);
          }
        }
      }
    }
  }
  memset(dst, 0, (kFlatVectors * VL + p.pw) * sizeof(float));  // what the last vectors read past the end
}

// `n` results side by side, with what is fused behind the convolution.
template <bool ADD, bool RELU>
GC_INLINE void put_row(const float* from, const float* add, int32_t add_up, int32_t n, float* to) {
  const auto value = [](float v) { return RELU && v < 0.0f ? 0.0f : v; };
  if (!ADD)
    for (int32_t k = 0; k < n; k++) to[k] = value(from[k]);
  else if (!add_up)
    for (int32_t k = 0; k < n; k++) to[k] = value(from[k] + add[k]);
  else
    for (int32_t k = 0; k < n; k++) to[k] = value(from[k] + add[k >> 1]);
}

// Takes `count` positions from q0 on to their places in the output.
static void finish_flat(const TileJob& j, int32_t row, int32_t q0, int32_t count, const float* acc) {
  const Plan& p = *j.plan;
  const int32_t so = p.so, stride = p.nphx * p.pw;
  const int32_t c = row / (so * so), oy = row / so % so, ox = row % so;
  for (int32_t q = q0; q < q0 + count;) {
    const int32_t y = so * (q / stride) + oy, x0 = q % stride;
    int32_t end = q + stride - x0;
    if (end > q0 + count) end = q0 + count;
    if (y < j.ho) {
      int32_t n = (j.wo - ox + so - 1) / so - x0;  // columns of this phase that exist
      if (n > end - q) n = end - q;
      const float* from = acc + (q - q0);
      float* to = j.out + c * j.out_c + y * j.out_y + so * x0 + ox;
      const float* add = j.add != nullptr ? j.add + c * j.add_c + (y >> j.add_up) * j.add_y : nullptr;
      if (so == 1 && (add == nullptr || x0 % 2 == 0 || !j.add_up)) {
        const float* beside = add != nullptr ? add + (x0 >> j.add_up) : nullptr;
        if (add != nullptr && j.relu) put_row<true, true>(from, beside, j.add_up, n, to);
        else if (add != nullptr) put_row<true, false>(from, beside, j.add_up, n, to);
        else if (j.relu) put_row<false, true>(from, beside, 0, n, to);
        else put_row<false, false>(from, beside, 0, n, to);
      } else {
        for (int32_t k = 0; k < n; k++) {
          float v = from[k];
          if (add != nullptr) v += add[(so * (x0 + k) + ox) >> j.add_up];
          to[so * k] = j.relu && v < 0.0f ? 0.0f : v;
        }
      }
    }
    q = end;
  }
}

template <int NV>
static void flat_run(const TileJob& j, int32_t q0, int32_t count) {
  const Plan& p = *j.plan;
  const int64_t channel = p.packed_positions;
  for (int32_t k = 0; k < p.chunks; k++) {
    const float* packed = j.packed + k * p.chunk * channel + q0;
    const int32_t* ptr = p.ptr + static_cast<int64_t>(k) * (p.rows + 1);
    const bool first = k == 0, last = k + 1 == p.chunks;
    for (int32_t row = j.row0; row < j.row1; row++) {
      float* acc = j.acc + static_cast<int64_t>(row) * kFlatVectors * VL;
      const int32_t end = ptr[row + 1];
      if (ptr[row] == end && !first && !last) continue;
      vf a[NV];
      const float b = first && j.bias != nullptr ? j.bias[row / (p.so * p.so)] : 0.0f;
      GC_UNROLL for (int i = 0; i < NV; i++) a[i] = first ? zero() + b : load(acc + i * VL);
      for (int32_t t = ptr[row]; t < end; t++) {
        const float* at = packed + p.off[t];
        const float w = j.value[t];
        GC_UNROLL for (int i = 0; i < NV; i++) a[i] += w * load_any(at + i * VL);
      }
      GC_UNROLL for (int i = 0; i < NV; i++) store(acc + i * VL, a[i]);
      if (last) finish_flat(j, row, q0, count, acc);
    }
  }
}

static void conv_flat(const TileJob& j) {
  const Plan& p = *j.plan;
  pack_flat(j);
  const int32_t positions = p.th * p.nphx * p.pw;
  const int32_t vectors = (positions + VL - 1) / VL;
  const int32_t most = GC_REGISTERS >= 32 ? kFlatVectors : kFlatVectors / 2;
  const int32_t runs = (vectors + most - 1) / most, even = (vectors + runs - 1) / runs;
  for (int32_t q0 = 0; q0 < positions; q0 += even * VL) {
    const int32_t count = positions - q0 < even * VL ? positions - q0 : even * VL;
    switch (even) {
#define GC_RUN(n) case n: flat_run<n>(j, q0, count); break;
      GC_RUN(1) GC_RUN(2) GC_RUN(3) GC_RUN(4) GC_RUN(5) GC_RUN(6) GC_RUN(7)
      GC_RUN(9) GC_RUN(10) GC_RUN(11) GC_RUN(12) GC_RUN(13) GC_RUN(14) GC_RUN(15) GC_RUN(16)
#undef GC_RUN
      default: flat_run<8>(j, q0, count); break;
    }
  }
}
