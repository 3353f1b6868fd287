// Two bf16 in a 32-bit word, part of impl.h. Maps stay float32: what was packed is rounded to bf16 and paired in place, and
// products of pairs are added up in float32.

#if GC_VL == 16 && defined(__GNUC__) && !defined(GC_EMULATED)
#define GC_PAIRS_NATIVE 1
#else
#define GC_PAIRS_NATIVE 0
#endif

// The instruction that this unit uses, null where the machine lacks it; or shifts and two products, which are slower than
// float32 and give nearly the same numbers.
static const char* pairs() {
#if GC_PAIRS_NATIVE
  return __builtin_cpu_supports("avx512bf16") ? "vdpbf16ps" : nullptr;
#elif defined(GC_WEB)
  return nullptr;
#else
  return "shifts";
#endif
}

GC_INLINE vi load_words(const float* p) { return *reinterpret_cast<const vi*>(p); }
GC_INLINE void store_words(float* p, vi v) { *reinterpret_cast<vi*>(p) = v; }
GC_INLINE vi splat_word(float w) {
  int32_t bits;
  memcpy(&bits, &w, sizeof bits);
  return vi{} + bits;
}

GC_INLINE vf dot(vf sum, vi x, vi w) {
#if GC_PAIRS_NATIVE
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w));
  return sum;
#else
  const vi high = vi{} - 65536;
  sum += reinterpret_cast<vf>(x << 16) * reinterpret_cast<vf>(w << 16);
  return sum + reinterpret_cast<vf>(x & high) * reinterpret_cast<vf>(w & high);
#endif
}

// Rounds to the nearest, ties to even; the first number is in the low half.
GC_INLINE vi paired(vf first, vf second) {
  typedef uint32_t vw __attribute__((vector_size(VL * 4), may_alias));
  vw a = reinterpret_cast<vw>(first), b = reinterpret_cast<vw>(second);
  a = a + 0x7fffu + ((a >> 16) & 1u);
  b = b + 0x7fffu + ((b >> 16) & 1u);
  return reinterpret_cast<vi>((a >> 16) | (b & 0xffff0000u));
}

// Of the 2 * words channels that were packed, words of two each, where the first of them lie.
static void pair_channels(const TileJob& j, int32_t words) {
  const int64_t plane = j.plan->packed_positions * VL;
  for (int part = 0; part < parts_of(j); part++) {
    float* to = j.packed + part * part_floats(*j.plan);
    const float* from = to;
    for (int32_t c = 0; c < words; c++, from += plane)
      for (int64_t q = 0; q < plane; q += VL, to += VL, from += VL) store_words(to, paired(load(from), load(from + plane)));
  }
}

// Of rows of so many positions, at every position a word of its number and of the next one's: any two neighbours can be read.
static void pair_columns(float* at, int64_t rows, int32_t width) {
  for (int64_t row = 0; row < rows; row++)
    for (int32_t q = 0; q < width; q++, at += VL) store_words(at, paired(load(at), q + 1 < width ? load(at + VL) : zero()));
}

// Of rows of so many positions, words of two each, one behind the other; a last number alone has a zero beside it.
static void halve_columns(float* from, int64_t rows, int32_t width) {
  float* to = from;
  for (int64_t row = 0; row < rows; row++, from += static_cast<int64_t>(width) * VL)
    for (int32_t q = 0; q < width; q += 2, to += VL)
      store_words(to, paired(load(from + q * VL), q + 1 < width ? load(from + (q + 1) * VL) : zero()));
}
