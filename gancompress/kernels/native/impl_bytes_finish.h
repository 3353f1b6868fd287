// Part of impl_bytes.h: what is fused behind a convolution, for the four channels of a word at a time.

// a > b ? a : b and a < b ? a : b, which are b where either is not a number: as the instructions do it.
#if !defined(GC_EMULATED) && (GC_DOT == GC_VNNI || GC_DOT == GC_HALVES) && GC_VL == 16
constexpr __mmask16 kAllLanes = 0xffff;  // the forms without a mask make some compilers warn of their own headers
GC_INLINE vf larger(vf a, vf b) { return reinterpret_cast<vf>(_mm512_maskz_max_ps(kAllLanes, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b))); }
GC_INLINE vf smaller(vf a, vf b) { return reinterpret_cast<vf>(_mm512_maskz_min_ps(kAllLanes, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b))); }
// The nearest whole number, ties to even ones; 0 for what is no number. Of numbers up to 255.
GC_INLINE vi nearest(vf v) {
  const __m512 x = reinterpret_cast<__m512>(v);
  return reinterpret_cast<vi>(_mm512_maskz_cvt_roundps_epi32(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif !defined(GC_EMULATED) && (GC_DOT == GC_VNNI || GC_DOT == GC_HALVES)
GC_INLINE vf larger(vf a, vf b) { return reinterpret_cast<vf>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b))); }
GC_INLINE vf smaller(vf a, vf b) { return reinterpret_cast<vf>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b))); }
GC_INLINE vi nearest(vf v) {
  v = v == v ? v : vf{};
  return reinterpret_cast<vi>(v + 12582912.0f) - 0x4b400000;  // as rounded() does
}
#else
GC_INLINE vf larger(vf a, vf b) { return a > b ? a : b; }
GC_INLINE vf smaller(vf a, vf b) { return a < b ? a : b; }
GC_INLINE vi nearest(vf v) {
  v = v == v ? v : vf{};
  return reinterpret_cast<vi>(v + 12582912.0f) - 0x4b400000;
}
#endif

// An activation of four channels: negative numbers are multiplied by slopes, or what is below the floor becomes it.
struct Bend {
  vf floor, slope[kInWord];
  bool sloped;
};
GC_INLINE Bend bend_of(const Activation& act, int32_t c) {
  Bend bend;
  bend.sloped = act.kind == kSlopes;
  bend.floor = splat_float(act.kind == kRelu ? 0.0f : -__builtin_inff());
  for (int b = 0; b < kInWord; b++) bend.slope[b] = splat_float(bend.sloped ? act.slopes[c + b] : 0.0f);
  return bend;
}
GC_INLINE vf bent(const Bend& bend, int b, vf v) { return bend.sloped ? (v < 0.0f ? v * bend.slope[b] : v) : larger(bend.floor, v); }

// Four channels of a view.
struct WordWriter {
  vf scale[kInWord], shift[kInWord], inverse, least, most;
  vi zeros;
  Bend bend;
  int32_t* to;
  bool scaled;
};
GC_INLINE WordWriter word_writer_of(const View& view, int32_t c, int32_t lane0) {
  WordWriter w;
  w.scaled = view.scale != nullptr;
  for (int b = 0; b < kInWord; b++) {
    w.scale[b] = w.scaled ? per_channel(view.scale, c + b, lane0, view.per_image) : vf{};
    w.shift[b] = w.scaled ? per_channel(view.shift, c + b, lane0, view.per_image) : vf{};
  }
  w.inverse = splat_float(view.inverse), w.least = splat_float(static_cast<float>(-view.zero)), w.most = splat_float(static_cast<float>(255 - view.zero));
  w.zeros = splat(0x01010101 * view.zero);
  w.bend = bend_of(view.act, c);
  w.to = view.data + c / kInWord * view.c + lane0;
  return w;
}

// Whether dense rows that stand together are the channels of words, each of one phase, and their activations are simple.
GC_INLINE bool in_words(const ByteJob& j) {
  bool simple = j.so_y * j.so_x == j.plan->phases() && j.act.kind <= kSlopes;
  for (int32_t m = 0; m < j.view_count; m++) simple = simple && j.views[m].act.kind <= kSlopes;
  return simple;
}

#define GC_FOUR GC_UNROLL for (int b = 0; b < kInWord; b++)

// Takes the sums of a tile of dense rows b0..b0+3 of a row, `apart` words from each other, to the output and to the views.
template <int TH, int TW>
__attribute__((noinline)) static void finish_word(const ByteJob& j, const int32_t* sums, int64_t apart, int32_t row, int32_t b0, int32_t lane0, int32_t y0, int32_t x0) {
  const Place4 at = place_of(j, row, b0);
  const int32_t so_y = j.so_y, so_x = j.so_x, y1 = so_y * y0 + at.oy, x1 = so_x * x0 + at.ox, phases = j.plan->phases();
  const float *const factors = j.factor + at.dense, *const shifts = j.shifts + at.dense * phases + at.phase;
  vf factor[kInWord], shift[kInWord];
  GC_FOUR factor[b] = splat_float(factors[b]), shift[b] = splat_float(shifts[b * phases]);
  const Bend bend = bend_of(j.act, at.c);
  WordWriter writers[kMostViews];
  for (int32_t m = 0; m < j.view_count; m++) writers[m] = word_writer_of(j.views[m], at.c, lane0);
  float* const out = j.out == nullptr ? nullptr : j.out + at.c * j.out_c + lane0;
  for (int i = 0; i < TH; i++) {
    const int32_t y = y1 + so_y * i;
    if (y >= j.ho) break;
    for (int k = 0; k < TW; k++) {
      const int32_t x = x1 + so_x * k;
      if (x >= j.wo) break;
      vf v[kInWord];
      GC_FOUR {
        const vf product = __builtin_convertvector(load(sums + b * apart + (i * TW + k) * VL), vf) * factor[b];
        v[b] = product + shift[b];
      }
      for (int32_t m = 0; m < j.added; m++) {
        const Added& add = j.add[m];
        const int32_t up = add.up;
        const float* place = plane_of(add, at.c) + lane0 + (up == 1 ? y : up == 2 ? y >> 1 : y / up) * add.y + (up == 1 ? x : up == 2 ? x >> 1 : x / up) * add.x;
        if (add.bytes) {
          const vi words = load_any(words_of(place));
          GC_FOUR {
            vf more = __builtin_convertvector(((words >> (8 * b)) & 255) - add.zero, vf) * add.unit;
            more = add.factor == 1.0f ? more : more * add.factor;
            v[b] = v[b] + more;
          }
        } else {
          GC_FOUR {
            vf more = load_floats(place + b * add.c);
            more = add.factor == 1.0f ? more : more * add.factor;
            v[b] = v[b] + more;
          }
        }
      }
      GC_FOUR v[b] = bent(bend, b, v[b]);
      if (out != nullptr) GC_FOUR store_floats(out + b * j.out_c + static_cast<int64_t>(y) * j.out_y + static_cast<int64_t>(x) * j.out_x, v[b]);
      for (int32_t m = 0; m < j.view_count; m++) {
        const View& view = j.views[m];
        const WordWriter& w = writers[m];
        vi word = w.zeros;
        GC_FOUR {
          vf u = v[b];
          if (w.scaled) {
            u = u * w.scale[b];
            u = u + w.shift[b];
          }
          u = bent(w.bend, b, u) * w.inverse;
          u = smaller(w.most, larger(w.least, u));
          word += nearest(u) << (8 * b);
        }
        store_any(w.to + static_cast<int64_t>(y) * view.y + static_cast<int64_t>(x) * view.x, word);
      }
    }
  }
}
#undef GC_FOUR

// Asks for the memory that finish_word will write and add, which may be far away.
template <int TH, int TW>
GC_INLINE void expect_word(const ByteJob& j, int32_t row, int32_t b0, int32_t lane0, int32_t y0, int32_t x0) {
  const Place4 at = place_of(j, row, b0);
  const int32_t y1 = j.so_y * y0 + at.oy, x1 = j.so_x * x0 + at.ox;
  for (int32_t m = 0; m < j.view_count; m++) {
    const View& view = j.views[m];
    const int32_t* to = view.data + at.c / kInWord * view.c + y1 * view.y + x1 * view.x + lane0;
    GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) __builtin_prefetch(to + j.so_y * i * view.y + j.so_x * k * view.x, 1);
  }
}
