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

#if !defined(GC_EMULATED) && (GC_DOT == GC_VNNI || GC_DOT == GC_HALVES)
#define GC_PACKS
#if GC_VL == 16
#define GC_WIDE(name, a, b) reinterpret_cast<vi>(_mm512_##name(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)))
#else
#define GC_WIDE(name, a, b) reinterpret_cast<vi>(_mm256_##name(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)))
#endif
// Words of the bytes of four whole numbers each, with `zeros` (16 bits each) added and what is no byte made the nearest one.
GC_INLINE vi packed(const vi* q, vi zeros) {
  vi turn;  // of every four words: all first bytes, all second ones, ..
  GC_UNROLL for (int i = 0; i < VL; i++) turn[i] = 0x0c080400 + 0x01010101 * (i % 4);
  const vi first = GC_WIDE(add_epi16, GC_WIDE(packs_epi32, q[0], q[1]), zeros), second = GC_WIDE(add_epi16, GC_WIDE(packs_epi32, q[2], q[3]), zeros);
  return GC_WIDE(shuffle_epi8, GC_WIDE(packus_epi16, first, second), turn);
}
#undef GC_WIDE
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

#define GC_FOUR GC_UNROLL for (int b = 0; b < kInWord; b++)

GC_INLINE void bend_all(const Bend& bend, vf* v) {
  if (bend.sloped) {
    GC_FOUR v[b] = v[b] < 0.0f ? v[b] * bend.slope[b] : v[b];
  } else {
    GC_FOUR v[b] = larger(bend.floor, v[b]);
  }
}

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
#if defined(GC_PACKS)
  w.zeros = splat(0x00010001 * view.zero);
#else
  w.zeros = splat(0x01010101 * view.zero);
#endif
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

// The same, where `blocks` dense rows at a time are summed: whether rows that follow each other make up whole words.
constexpr int kMostPhases = 4;  // of a stride of 2; their sums stay in the first-level cache
GC_INLINE bool words_of_rows(const ByteJob& j, int32_t blocks) {
  const int32_t phases = j.plan->phases(), rows = kInWord / (blocks < kInWord ? blocks : kInWord) * phases;
  return phases <= kMostPhases && j.row0 % rows == 0 && j.row1 % rows == 0 && in_words(j);
}

// The word of four channels.
GC_INLINE vi word_of(const WordWriter& w, const vf* four) {
  vf u[kInWord];
  GC_FOUR u[b] = four[b];
  if (w.scaled) {
    GC_FOUR {
      u[b] = u[b] * w.scale[b];
      u[b] = u[b] + w.shift[b];
    }
  }
  bend_all(w.bend, u);
#if defined(GC_PACKS)
  vi q[kInWord];
  GC_FOUR {
    u[b] = u[b] * w.inverse;
    if (GC_VL != 16) u[b] = larger(w.least, u[b]);  // with as many bits, what is far below becomes the least number
    q[b] = nearest(smaller(w.most, u[b]));
  }
  return packed(q, w.zeros);
#else
  vi word = w.zeros;
  GC_FOUR {
    u[b] = u[b] * w.inverse;
    word += nearest(smaller(w.most, larger(w.least, u[b]))) << (8 * b);
  }
  return word;
#endif
}

// Adds what stands at a place, of the four channels of a word.
GC_INLINE void add_word(const Added& add, const float* place, vf* v) {
  vf more[kInWord];
  if (add.bytes) {
    const vi words = load_any(words_of(place));
    GC_FOUR more[b] = __builtin_convertvector(((words >> (8 * b)) & 255) - add.zero, vf) * add.unit;
  } else {
    GC_FOUR more[b] = load_floats(place + b * add.c);
  }
  if (add.factor != 1.0f) {
    GC_FOUR more[b] = more[b] * add.factor;
  }
  GC_FOUR v[b] = v[b] + more[b];
}

// Where a tile of outputs lies: rows and columns from (y, x) on, as many as there are, so_y and so_x apart.
struct Spot {
  int32_t y, x, rows, columns, so_y, so_x;
};

// Writes the words of values [channel][position], `apart` numbers from each other and `across` positions a row.
static void write_words(const WordWriter& given, const View& view, const Spot& at, const float* values, int64_t apart, int32_t across) {
  const WordWriter w = given;
  const int64_t step = at.so_x * view.x;
  for (int32_t i = 0; i < at.rows; i++) {
    int32_t* to = w.to + (at.y + at.so_y * i) * view.y + at.x * view.x;
    const float* from = values + static_cast<int64_t>(i) * across * VL;
    for (int32_t k = 0; k < at.columns; k++, from += VL, to += step) {
      vf v[kInWord];
      GC_FOUR v[b] = load_floats(from + b * apart);
      store_any(to, word_of(w, v));
    }
  }
}

// Takes the sums of a tile [th][tw] of the four dense rows from b0 of a row on, `apart` words from each other, to the output
// and to the views. The sums are overwritten.
__attribute__((noinline)) static void finish_word(const ByteJob& j, int th, int tw, int32_t* sums, int64_t apart, int32_t row, int32_t b0, int32_t lane0, int32_t y0, int32_t x0) {
  const Place4 place = place_of(j, row, b0);
  const int32_t phases = j.plan->phases();
  Spot at{j.so_y * y0 + place.oy, j.so_x * x0 + place.ox, 0, 0, j.so_y, j.so_x};
  while (at.rows < th && at.y + at.so_y * at.rows < j.ho) at.rows++;
  while (at.columns < tw && at.x + at.so_x * at.columns < j.wo) at.columns++;
  const float *const factors = j.factor + place.dense, *const shifts = j.shifts + place.dense * phases + place.phase;
  vf factor[kInWord], shift[kInWord];
  GC_FOUR factor[b] = splat_float(factors[b]), shift[b] = splat_float(shifts[b * phases]);
  const Bend bend = bend_of(j.act, place.c);
  float* const values = reinterpret_cast<float*>(sums);
  float* const out = j.out == nullptr ? nullptr : j.out + place.c * j.out_c + lane0;
  const int64_t out_c = j.out_c;
  for (int32_t i = 0; i < at.rows; i++) {
    const int32_t y = at.y + at.so_y * i;
    const int64_t line = static_cast<int64_t>(i) * tw * VL;
    for (int32_t k = 0; k < at.columns; k++) {
      const int32_t x = at.x + at.so_x * k;
      vf v[kInWord];
      GC_FOUR {
        const vf product = __builtin_convertvector(load(sums + b * apart + line + k * VL), vf) * factor[b];
        v[b] = product + shift[b];
      }
      for (int32_t m = 0; m < j.added; m++) {
        const Added& add = j.add[m];
        const int32_t up = add.up;
        add_word(add, plane_of(add, place.c) + lane0 + (up == 1 ? y : up == 2 ? y >> 1 : y / up) * add.y + (up == 1 ? x : up == 2 ? x >> 1 : x / up) * add.x, v);
      }
      bend_all(bend, v);
      GC_FOUR store_floats(values + b * apart + line + k * VL, v[b]);
      if (out != nullptr) GC_FOUR store_floats(out + b * out_c + y * j.out_y + x * j.out_x, v[b]);
    }
  }
  for (int32_t m = 0; m < j.view_count; m++) write_words(word_writer_of(j.views[m], place.c, lane0), j.views[m], at, values, apart, tw);
}

// Asks for the numbers that finish_word will add: they may be far away, and here is time.
template <int TH, int TW>
GC_INLINE void expect_word(const ByteJob& j, int32_t row, int32_t lane0, int32_t y0, int32_t x0) {
  const Place4 at = place_of(j, row, 0);
  const int32_t y1 = j.so_y * y0 + at.oy, x1 = j.so_x * x0 + at.ox;
  for (int32_t m = 0; m < j.added; m++) {
    const Added& add = j.add[m];
    if (add.up > 2) continue;
    const int half = add.up - 1;
    const float* first = plane_of(add, at.c) + lane0 + (y1 >> half) * add.y + (x1 >> half) * add.x;
    for (int32_t b = 0; b < (add.bytes ? 1 : kInWord); b++, first += add.c)
      for (int i = 0; i < TH; i += half == 1 && j.so_y == 1 ? 2 : 1)  // neighbours share what is upsampled
        for (int k = 0; k < TW; k += half == 1 && j.so_x == 1 ? 2 : 1) __builtin_prefetch(first + (j.so_y * i >> half) * add.y + (j.so_x * k >> half) * add.x);
  }
}
