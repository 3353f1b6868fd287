// Part of impl.h: the filter [1, 3, 3, 1], and what stands between the convolutions of networks with styles.
//
// A plane is taken row by row: four rows are added up to one, which is slid along itself. Both are sums of whole rows of
// floats, whatever a pixel holds; only where the size changes are pixels told apart.

// out = a + 3 (b + c) + d, side by side.
GC_INLINE void four(const float* a, const float* b, const float* c, const float* d, float scale, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + VL <= count; i += VL)
    store_any(out + i, ((load_any(a + i) + load_any(d + i)) + 3.0f * (load_any(b + i) + load_any(c + i))) * scale);
  for (; i < count; i++) out[i] = ((a[i] + d[i]) + 3.0f * (b[i] + c[i])) * scale;
}
// out = a + 3 b
GC_INLINE void two(const float* a, const float* b, float scale, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + VL <= count; i += VL) store_any(out + i, (load_any(a + i) + 3.0f * load_any(b + i)) * scale);
  for (; i < count; i++) out[i] = (a[i] + 3.0f * b[i]) * scale;
}

// Rows in work: all begin on a cache line, four pixels of zeros stand before and behind the line that is slid.
struct Rows {
  float *line, *zeros, *ring, *made;
  int64_t apart;
  Rows(float* memory, int64_t w, int64_t inner) {
    const int64_t row = (w + 8) * inner;
    for (int64_t i = 0; i < 2 * row; i++) memory[i] = 0.0f;
    line = memory + 4 * inner, zeros = memory + row, ring = memory + 2 * row, made = memory + 6 * row, apart = row;
  }
};

// Every row of an h x w plane, filtered: row(y, place) gives where a row lies, and may write it to `place`; rows are asked for in
// turn, each once. done(y, filtered) is given a row of the result.
template <class Row, class Done>
GC_INLINE void smooth_rows(int64_t h, int64_t w, int64_t inner, int64_t padding, float scale, const Rows& rows, const Row& row, const Done& done) {
  const int64_t high = h + 2 * padding - 3, wide = w + 2 * padding - 3;
  const float* held[4] = {rows.zeros, rows.zeros, rows.zeros, rows.zeros};
  int64_t next = 0;
  for (int64_t y = 0; y < high; y++) {
    for (; next < h && next <= y - padding + 3; next++) held[next & 3] = row(next, rows.ring + (next & 3) * rows.apart);
    const auto at = [&](int64_t k) { return y - padding + k < 0 || y - padding + k >= h ? rows.zeros : held[(y - padding + k) & 3]; };
    four(at(0), at(1), at(2), at(3), scale, w * inner, rows.line);
    const float* from = rows.line - padding * inner;
    four(from, from + inner, from + 2 * inner, from + 3 * inner, 1.0f, wide * inner, rows.made);
    done(y, rows.made);
  }
}

// Rows of twice the width from one row with zeros beside it, and rows of half of it.
GC_INLINE void widen_row(const float* line, int64_t w, int64_t inner, float* out) {
  if (inner % VL == 0) {
    for (int64_t x = 0; x < w; x++, line += inner, out += 2 * inner)
      for (int64_t k = 0; k < inner; k += VL) {
        const vf v = 3.0f * load_any(line + k);
        store_any(out + k, load_any(line + k - inner) + v);
        store_any(out + inner + k, load_any(line + k + inner) + v);
      }
    return;
  }
  for (int64_t x = 0; x < w; x++, line += inner, out += 2 * inner)
    for (int64_t k = 0; k < inner; k++) {
      out[k] = line[k - inner] + 3.0f * line[k];
      out[inner + k] = line[k + inner] + 3.0f * line[k];
    }
}
GC_INLINE void narrow_row(const float* line, int64_t w, int64_t inner, float* out) {
  for (int64_t x = 0; x < w / 2; x++, line += 2 * inner, out += inner) {
    if (inner % VL == 0) four(line - inner, line, line + inner, line + 2 * inner, 1.0f, inner, out);
    else
      for (int64_t k = 0; k < inner; k++) out[k] = (line[k - inner] + line[k + 2 * inner]) + 3.0f * (line[k] + line[k + inner]);
  }
}

static void filter(const FilterJob& j) {
  const Rows rows(j.rows, j.w, j.inner);
  const int64_t row = j.w * j.inner;
  const auto at = [&](int64_t y) { return y < 0 || y >= j.h ? rows.zeros : j.x + y * row; };
  if (j.kind == kSame) {
    const int64_t wide = (j.w + 2 * j.padding - 3) * j.inner;
    for (int64_t y = 0; y < j.h + 2 * j.padding - 3; y++) {
      const int64_t top = y - j.padding;
      four(at(top), at(top + 1), at(top + 2), at(top + 3), j.scale, row, rows.line);
      const float* from = rows.line - j.padding * j.inner;
      four(from, from + j.inner, from + 2 * j.inner, from + 3 * j.inner, 1.0f, wide, j.out + y * wide);
    }
  } else if (j.kind == kUp) {
    for (int64_t y = 0; y < 2 * j.h; y++) {
      two(at(y % 2 == 0 ? y / 2 - 1 : y / 2 + 1), at(y / 2), j.scale, row, rows.line);
      widen_row(rows.line, j.w, j.inner, j.out + y * 2 * row);
    }
  } else {
    for (int64_t y = 0; y < j.h / 2; y++) {
      four(at(2 * y - 1), at(2 * y), at(2 * y + 1), at(2 * y + 2), j.scale, row, rows.line);
      narrow_row(rows.line, j.w, j.inner, j.out + y * row / 2);
    }
  }
}

constexpr float kSmooth = 1.0f / 64;  // of [1, 3, 3, 1] / 8 in both directions

// leaky(gain * v + bias + strength * noise), a row.
GC_INLINE void style_row(const StyleJob& j, const float* from, const float* noise, int64_t w, float* to) {
  const bool leaky = j.slope != 1.0f;
  const int64_t n = j.n;
  if (j.gain == nullptr && noise == nullptr) {  // a row of the discriminator
    for (int64_t k = 0; k < w * n; k += VL) {
      vf v = load(from + k) + j.bias;
      if (leaky) v = v > zero() ? v : v * j.slope;
      store(to + k, v);
    }
    return;
  }
  for (int64_t lane = 0; lane < n; lane += VL) {
    const vf gain = j.gain != nullptr ? load_any(j.gain + lane) : zero() + 1.0f;
    for (int64_t k = lane; k < w * n; k += n) {
      vf v = load(from + k) * gain + j.bias;
      if (noise != nullptr) v += load(noise + k) * j.strength;
      if (leaky) v = v > zero() ? v : v * j.slope;
      store(to + k, v);
    }
  }
}

static void style(const StyleJob& j) {
  const Rows rows(j.rows, j.w, j.n);
  const int64_t row = j.w * j.n, grown = 2 * (j.before + j.after) - 3, w = j.w + (j.before != 0 || j.after != 0 ? grown : 0), wide = w * j.n;
  const auto beside = [&](int64_t y) {
    if (j.beside == nullptr) return;
    float* to = j.out + y * wide;
    for (int64_t k = 0; k < wide; k += VL) store(to + k, load(to + k) + load(j.beside + y * wide + k));
  };
  const auto noise = [&](int64_t y, int64_t length) { return j.noise == nullptr ? nullptr : j.noise + y * length; };
  if (j.before != 0) {
    smooth_rows(j.h, j.w, j.n, j.before, kSmooth, rows, [&](int64_t y, float*) { return j.x + y * row; },
                [&](int64_t y, const float* made) {
                  style_row(j, made, noise(y, wide), w, j.out + y * wide);
                  beside(y);
                });
  } else if (j.after != 0) {
    smooth_rows(j.h, j.w, j.n, j.after, kSmooth, rows,
                [&](int64_t y, float* place) {
                  style_row(j, j.x + y * row, noise(y, row), j.w, place);
                  return static_cast<const float*>(place);
                },
                [&](int64_t y, const float* made) {
                  memcpy(j.out + y * wide, made, wide * sizeof(float));
                  beside(y);
                });
  } else {
    for (int64_t y = 0; y < j.h; y++) {
      style_row(j, j.x + y * row, noise(y, row), w, j.out + y * wide);
      beside(y);
    }
  }
}

GC_INLINE double across(vf v) {
  double sum = 0.0;
  for (int lane = 0; lane < VL; lane++) sum += v[lane];
  return sum;
}

// A row of the gradient behind the ReLU, from one in front of it; adds to the sums.
GC_INLINE void gate_row(const StyleJob& j, const float* from, int64_t y, int64_t wide, float* to) {
  const bool leaky = j.slope != 1.0f;
  const float *gate = leaky ? j.gate + y * wide : nullptr, *noise = j.noise != nullptr ? j.noise + y * wide : nullptr;
  vf sum = zero(), noisy = zero();
  for (int64_t k = 0; k < wide; k += VL) {
    vf v = load(from + k);
    if (leaky) v = load(gate + k) > zero() ? v : v * j.slope;
    sum += v;
    if (noise != nullptr) noisy += v * load(noise + k);
    store(to + k, v);
  }
  j.sums[0] += across(sum), j.sums[1] += across(noisy);
}

// A row of the gradient towards x, from one towards gain * x; adds to the gradient of the gain.
GC_INLINE void gain_row(const StyleJob& j, const float* from, int64_t y, float* to) {
  const int64_t row = j.w * j.n;
  const float* x = j.x + y * row;
  for (int64_t lane = 0; lane < j.n; lane += VL) {
    const vf gain = load_any(j.gain + lane);
    vf sum = zero();
    for (int64_t k = lane; k < row; k += j.n) {
      const vf v = load(from + k);
      sum += v * load(x + k);
      store(to + k, v * gain);
    }
    for (int k = 0; k < VL; k++) j.for_gain[lane + k] += sum[k];
  }
}

static void style_gradient(const StyleJob& j) {
  const int64_t row = j.w * j.n;
  const auto inner = [&](int64_t y, const float* gated) {
    if (j.gain != nullptr) gain_row(j, gated, y, j.out + y * row);
    else if (gated != j.out + y * row) memcpy(j.out + y * row, gated, row * sizeof(float));
  };
  if (j.before != 0) {
    const int64_t grown = 2 * j.before - 3, h = j.h + grown, w = j.w + grown, wide = w * j.n;
    const Rows rows(j.rows, w > j.w ? w : j.w, j.n);
    smooth_rows(h, w, j.n, 3 - j.before, kSmooth, rows,
                [&](int64_t y, float* place) {
                  gate_row(j, j.gradient + y * wide, y, wide, place);
                  return static_cast<const float*>(place);
                },
                inner);
  } else if (j.after != 0) {
    const int64_t grown = 2 * j.after - 3, h = j.h + grown, w = j.w + grown;
    const Rows rows(j.rows, w > j.w ? w : j.w, j.n);
    smooth_rows(h, w, j.n, 3 - j.after, kSmooth, rows, [&](int64_t y, float*) { return j.gradient + y * w * j.n; },
                [&](int64_t y, const float* made) {
                  float* to = j.out + y * row;
                  gate_row(j, made, y, row, to);
                  inner(y, to);
                });
  } else {
    for (int64_t y = 0; y < j.h; y++) {
      float* to = j.out + y * row;
      gate_row(j, j.gradient + y * row, y, row, to);
      inner(y, to);
    }
  }
}

static double total(const float* x, int64_t count) {
  constexpr int64_t kRow = 2048;  // floats that are added up as such
  double sum = 0.0;
  for (int64_t at = 0; at < count; at += kRow) {
    const int64_t here = count - at < kRow ? count - at : kRow;
    vf a = zero(), b = zero(), c = zero(), d = zero();
    int64_t k = at;
    for (; k + 4 * VL <= at + here; k += 4 * VL) a += load_any(x + k), b += load_any(x + k + VL), c += load_any(x + k + 2 * VL), d += load_any(x + k + 3 * VL);
    sum += across((a + b) + (c + d));
    for (; k < at + here; k++) sum += x[k];
  }
  return sum;
}
