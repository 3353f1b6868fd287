// The kernels for values in bytes, written once in compiler vector extensions. The including file sets
//   GC_ISA   namespace and table name suffix      GC_VL   32-bit words in a vector
//   GC_DOT   how a word of four bytes is multiplied by a word of four weights: a name of dots.h
//   GC_INSTRUCTIONS   the name of the instruction that does
#include <stdint.h>
#include <string.h>

#include "dots.h"
#include "isa_bytes.h"
#include "plan.h"

#define GC_JOIN_(a, b) a##b
#define GC_JOIN(a, b) GC_JOIN_(a, b)
#define GC_INSIDE GC_JOIN(on_, GC_ISA)
// 32 of them, as the table of floats says: for tiles of sixteen positions
#if GC_VL == 16 || defined(__aarch64__)
#define GC_MANY_REGISTERS 1
#else
#define GC_MANY_REGISTERS 0
#endif

// rows that are taken together, at most
#if defined(GC_MATRICES)
#define GC_MOST_BLOCKS 16
#elif GC_DOT == GC_HALVES
#define GC_MOST_BLOCKS 1
#elif defined(GC_WEB)  // fewer kernels are less to load
#define GC_MOST_BLOCKS 2
#else
#define GC_MOST_BLOCKS 4
#endif

// the same, of one image with its pixels in the lanes
#if GC_DOT == GC_VNNI || GC_DOT == GC_SDOT || defined(GC_EMULATED)
#define GC_FLAT_BLOCKS 2
#else
#define GC_FLAT_BLOCKS 1
#endif

namespace gc {
namespace GC_INSIDE {

constexpr int VL = GC_VL;
typedef float vf __attribute__((vector_size(VL * 4), aligned(VL * 4), may_alias));
typedef float vfu __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(VL * 4), aligned(VL * 4), may_alias));
typedef int32_t viu __attribute__((vector_size(VL * 4), aligned(4), may_alias));

#define GC_INLINE static inline __attribute__((always_inline))
#define GC_UNROLL _Pragma("GCC unroll 16")

GC_INLINE vi load(const int32_t* p) { return *reinterpret_cast<const vi*>(p); }
GC_INLINE vi load_any(const int32_t* p) { return *reinterpret_cast<const viu*>(p); }
GC_INLINE void store(int32_t* p, vi v) { *reinterpret_cast<vi*>(p) = v; }
GC_INLINE void store_any(int32_t* p, vi v) { *reinterpret_cast<viu*>(p) = v; }
GC_INLINE vf load_floats(const float* p) { return *reinterpret_cast<const vfu*>(p); }
GC_INLINE void store_floats(float* p, vf v) { *reinterpret_cast<vfu*>(p) = v; }
GC_INLINE vi splat(int32_t v) { return vi{} + v; }
GC_INLINE vf splat_float(float v) {
  int32_t bits;
  memcpy(&bits, &v, sizeof bits);
  return reinterpret_cast<vf>(splat(bits));
}
GC_INLINE const int32_t* words_of(const float* p) { return reinterpret_cast<const int32_t*>(p); }

#if GC_DOT == GC_HALVES
// Sums of two products each, of one or two words, in 16 bits; then of pairs of those.
#if GC_VL == 16
GC_INLINE vi halves(vi x, vi w) { return reinterpret_cast<vi>(_mm512_maddubs_epi16(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(w))); }
GC_INLINE vi both(vi a, vi b) { return reinterpret_cast<vi>(_mm512_add_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b))); }
GC_INLINE vi whole(vi sum) { return reinterpret_cast<vi>(_mm512_madd_epi16(reinterpret_cast<__m512i>(sum), _mm512_set1_epi16(1))); }
#else
GC_INLINE vi halves(vi x, vi w) { return reinterpret_cast<vi>(_mm256_maddubs_epi16(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(w))); }
GC_INLINE vi both(vi a, vi b) { return reinterpret_cast<vi>(_mm256_add_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b))); }
GC_INLINE vi whole(vi sum) { return reinterpret_cast<vi>(_mm256_madd_epi16(reinterpret_cast<__m256i>(sum), _mm256_set1_epi16(1))); }
#endif
GC_INLINE vi dot(vi sum, vi x, vi w) { return sum + whole(halves(x, w)); }
#elif GC_DOT == GC_VNNI && GC_VL == 16
GC_INLINE vi dot(vi sum, vi x, vi w) {
  return reinterpret_cast<vi>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(w)));
}
#elif GC_DOT == GC_VNNI
GC_INLINE vi dot(vi sum, vi x, vi w) {
  return reinterpret_cast<vi>(_mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(sum), reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(w)));
}
#elif GC_DOT == GC_SSE2
GC_INLINE vi dot(vi sum, vi x, vi w) {
  const auto products = [](vi a, vi b) { return reinterpret_cast<vi>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b))); };
  const auto high = [](vi a) { return reinterpret_cast<vi>(_mm_srai_epi16(reinterpret_cast<__m128i>(a), 8)); };
  const auto up = [](vi a) { return reinterpret_cast<vi>(_mm_slli_epi16(reinterpret_cast<__m128i>(a), 8)); };
  return sum + products(x & splat(0x00ff00ff), high(up(w))) + products(reinterpret_cast<vi>(_mm_srli_epi16(reinterpret_cast<__m128i>(x), 8)), high(w));
}
#elif GC_DOT == GC_WASM
GC_INLINE vi dot(vi sum, vi x, vi w) {
  const auto products = [](vi a, vi b) { return reinterpret_cast<vi>(wasm_i32x4_dot_i16x8(reinterpret_cast<v128_t>(a), reinterpret_cast<v128_t>(b))); };
  const auto high = [](vi a) { return reinterpret_cast<vi>(wasm_i16x8_shr(reinterpret_cast<v128_t>(a), 8)); };
  const auto up = [](vi a) { return reinterpret_cast<vi>(wasm_i16x8_shl(reinterpret_cast<v128_t>(a), 8)); };
  return sum + products(x & splat(0x00ff00ff), high(up(w))) + products(reinterpret_cast<vi>(wasm_u16x8_shr(reinterpret_cast<v128_t>(x), 8)), high(w));
}
#elif GC_DOT == GC_SDOT
GC_INLINE vi dot(vi sum, vi x, vi w) {
  return reinterpret_cast<vi>(vdotq_s32(reinterpret_cast<int32x4_t>(sum), reinterpret_cast<int8x16_t>(x), reinterpret_cast<int8x16_t>(w)));
}
#else
GC_INLINE vi dot(vi sum, vi x, vi w) {
  GC_UNROLL for (int i = 0; i < 4; i++) sum += ((x >> (8 * i)) & 255) * ((w << (24 - 8 * i)) >> 24);
  return sum;
}
#endif

#if GC_DOT == GC_SDOT
constexpr int32_t kOffset = 128;
GC_INLINE vi as_read(vi words) { return words ^ splat(static_cast<int32_t>(0x80808080u)); }
#else
constexpr int32_t kOffset = 0;
GC_INLINE vi as_read(vi words) { return words; }
#endif

GC_INLINE vf activated(vf v, int32_t kind, float slope) { return kind == kNone ? v : v < 0.0f ? (kind == kRelu ? vf{} : v * slope) : v; }
GC_INLINE float slope_of(const Activation& act, int32_t c) { return act.kind == kSlopes ? act.slopes[c] : 0.0f; }
GC_INLINE vf per_channel(const float* values, int32_t c, int32_t lane0, bool per_image) {
  return per_image ? load_floats(values + static_cast<int64_t>(c) * kLanes + lane0) : splat_float(values[c]);
}

// One channel of a view.
struct Writer {
  vf scale, shift;
  float slope, inverse, least, most;
  int32_t kind, zero, bits;  // bits: where the channel's byte lies in a word
  bool scaled;
};
GC_INLINE Writer writer_of(const View& view, int32_t c, int32_t lane0) {
  const bool scaled = view.scale != nullptr;
  return {scaled ? per_channel(view.scale, c, lane0, view.per_image) : vf{}, scaled ? per_channel(view.shift, c, lane0, view.per_image) : vf{},
          slope_of(view.act, c), view.inverse, static_cast<float>(-view.zero), static_cast<float>(255 - view.zero), view.act.kind, view.zero, 8 * (c % kInWord), scaled};
}
GC_INLINE vf scaled(const Writer& w, vf v) {
  v = v * w.scale;
  return v + w.shift;
}
// The bytes of what was scaled and activated, in their place in words of zeros.
GC_INLINE vi rounded(const Writer& w, vf v) {
  v = v * w.inverse;
  v = v == v ? v : vf{};
  v = v < w.least ? splat_float(w.least) : v;
  v = v > w.most ? splat_float(w.most) : v;
  // Adding 1.5 * 2^23 leaves no bits behind the point: it rounds to the nearest, ties to even, and the number is in the low bits.
  const vf whole = v + 12582912.0f;
  return (reinterpret_cast<vi>(whole) - 0x4b400000 + w.zero) << w.bits;
}
GC_INLINE vi bytes_of(const Writer& w, vf v) { return rounded(w, activated(w.scaled ? scaled(w, v) : v, w.kind, w.slope)); }
// The first channel of a word begins it.
GC_INLINE void put(const Writer& w, int32_t* to, vi bytes) { store_any(to, w.bits == 0 ? bytes : bytes | load_any(to)); }

GC_INLINE vf floats_of(const Added& add, vi words, int32_t c) {
  return __builtin_convertvector(((words >> (8 * (c % kInWord))) & 255) - add.zero, vf) * add.unit;
}
GC_INLINE const float* plane_of(const Added& add, int32_t c) { return add.data + (add.bytes ? c / kInWord : c) * add.c; }
GC_INLINE vf taken(const Added& add, const float* at, int32_t c) {
  const vf v = add.bytes ? floats_of(add, load_any(words_of(at)), c) : load_floats(at);
  return add.factor == 1.0f ? v : v * add.factor;
}

// ---- packing

static vi pack_edge(const ByteJob& j, const int32_t* plane, const Line& row, const Line& column, int32_t lane0) {
  const vi fill = splat(static_cast<int32_t>(j.fill));
  if (row.at < 0 || column.at < 0) return fill;
  vi v;
  if (row.places < 0 && column.places < 0) {
    v = load_any(plane + row.at * j.in_y + column.at * j.in_x + row.shift + column.shift);
  } else {
    const bool across = column.places >= 0;
    const LanePlace* places = across ? j.columns.places + column.places : j.rows.places + row.places;
    const int32_t* from = plane + (across ? row.at * j.in_y : column.at * j.in_x);
    for (int lane = 0; lane < VL; lane++) v[lane] = from[places[lane].at * (across ? j.in_x : j.in_y) + places[lane].lane];
  }
  const auto masked = [&](const Lines& lines, const Line& line) {
    if (line.mask < 0) return;
    const vi mask = load_any(lines.masks + line.mask + lane0);
    v = (v & mask) | (fill & ~mask);
  };
  masked(j.rows, row);
  masked(j.columns, column);
  return v;
}

static void pack(const ByteJob& j, int32_t lane0, int32_t y0, int32_t x0, int32_t c0, int32_t c1) {
  const Plan& p = *j.plan;
  const Line* rows = j.rows.line + p.si_y * y0;
  const vi fill = as_read(splat(static_cast<int32_t>(j.fill)));
  int32_t* dst = reinterpret_cast<int32_t*>(j.packed);
  for (int32_t c = c0; c < c1; c++) {
    const int32_t* plane = words_of(j.planes != nullptr ? j.planes[c] : j.in + c * j.in_c) + lane0;
    for (int32_t phase = 0; phase < p.nphy; phase++)
      for (int32_t q = 0; q < p.ph; q++) {
        const Line& row = rows[p.si_y * q + phase];
        const int32_t* from = plane + row.at * j.in_y + row.shift;
        for (int32_t across = 0; across < p.nphx; across++, dst += p.pw * VL) {
          const int32_t at = p.si_x * x0 + across;
          const Line* line = j.columns.line + at;
          // Columns k0..k1 are plain.
          int32_t k0 = at < j.columns.plain0 ? (j.columns.plain0 - at + p.si_x - 1) / p.si_x : 0;
          int32_t k1 = at >= j.columns.plain1 || row.at < 0 || row.mask >= 0 || row.places >= 0 ? 0 : (j.columns.plain1 - at + p.si_x - 1) / p.si_x;
          k1 = k1 < p.pw ? k1 : p.pw;
          k0 = k0 < k1 ? k0 : k1;
          if (row.at < 0) k0 = k1 = p.pw;
          if (row.at < 0) for (int32_t k = 0; k < p.pw; k++) store(dst + k * VL, fill);
          else for (int32_t k = 0; k < k0; k++) store(dst + k * VL, as_read(pack_edge(j, plane, row, line[p.si_x * k], lane0)));
          for (int32_t k = k0; k < k1; k++) store(dst + k * VL, as_read(load_any(from + line[p.si_x * k].at * j.in_x)));
          for (int32_t k = k1; k < p.pw; k++) store(dst + k * VL, as_read(pack_edge(j, plane, row, line[p.si_x * k], lane0)));
        }
      }
  }
}

// ---- what is fused behind

// The dense row that row `row` of the plan and block `b` stand for; its channel of the output, and its phase.
struct Place4 {
  int32_t dense, phase, c, oy, ox;
};
GC_INLINE Place4 place_of(const ByteJob& j, int32_t row, int32_t b) {
  const Plan& p = *j.plan;
  const int32_t own = p.phases(), phases = j.so_y * j.so_x;  // equal where the convolution is transposed
  if (phases == 1) return {row * j.blocks + b, 0, row * j.blocks + b, 0, 0};  // divisions take their time
  const int32_t dense = row / own * j.blocks + b, shuffled = dense * own + row % own;
  return {dense, row % own, shuffled / phases, shuffled % phases / j.so_x, shuffled % j.so_x};
}

// Takes the sums of a tile [th][tw] of one dense row to the output and to the views: where rows that follow each other make up
// no whole words, as of three colours or behind a pixel shuffle.
__attribute__((noinline)) static void finish(const ByteJob& j, int th, int tw, const int32_t* sums, int32_t row, int32_t b, int32_t lane0, int32_t y0, int32_t x0) {
  const Place4 at = place_of(j, row, b);
  const float factor = j.factor[at.dense], shift = j.shifts[at.dense * j.plan->phases() + at.phase], slope = slope_of(j.act, at.c);
  for (int i = 0; i < th; i++)
    for (int k = 0; k < tw; k++) {
      const int32_t y = j.so_y * (y0 + i) + at.oy, x = j.so_x * (x0 + k) + at.ox;
      if (y >= j.ho || x >= j.wo) continue;
      const vf product = __builtin_convertvector(load(sums + (i * tw + k) * VL), vf) * factor;
      vf v = product + shift;
      for (int32_t m = 0; m < j.added; m++) {
        const Added& add = j.add[m];
        const vf more = taken(add, plane_of(add, at.c) + lane0 + y / add.up * add.y + x / add.up * add.x, at.c);
        v = v + more;
      }
      v = activated(v, j.act.kind, slope);
      if (j.out != nullptr) store_floats(j.out + at.c * j.out_c + y * j.out_y + x * j.out_x + lane0, v);
      for (int32_t m = 0; m < j.view_count; m++) {
        const View& view = j.views[m];
        const Writer writer = writer_of(view, at.c, lane0);
        put(writer, view.data + at.c / kInWord * view.c + y * view.y + x * view.x + lane0, bytes_of(writer, v));
      }
    }
}

#include "impl_bytes_finish.h"

// ---- one register tile

template <int B, int TH, int TW>
static void conv_chunk(const ByteJob& j, int32_t chunk, int32_t lane0, int32_t y0, int32_t x0, int32_t ty, int32_t tx, int32_t tile) {
  const Plan& p = *j.plan;
  constexpr int kSums = B * TH * TW * VL;
  const bool first = chunk == 0, last = chunk + 1 == p.chunks;
  const int32_t* ptr = j.ptr + static_cast<int64_t>(chunk) * (p.rows + 1);
  const int32_t *off = j.off, *words = j.words;
  const int64_t step = static_cast<int64_t>(p.nphx) * p.pw * VL;
  const int32_t* packed = words_of(j.packed) + ty * step + tx * VL;
  int32_t* sums = reinterpret_cast<int32_t*>(j.acc) + static_cast<int64_t>(tile) * p.rows * kSums;
  // Rows are finished when all that share the words of the result, in a phase, are summed.
  constexpr int kOne = TH * TW * VL;
  const bool in_word = words_of_rows(j, B);
  const int32_t own = in_word ? p.phases() : 1;
  alignas(64) int32_t done[kMostPhases * kInWord * kOne];
#define GC_EACH GC_UNROLL for (int b = 0; b < B; b++) GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++)
  for (int32_t row = j.row0; row < j.row1; row++) {
    int32_t* acc = sums + static_cast<int64_t>(row) * kSums;
    if (ptr[row] == ptr[row + 1] && !first && !last) continue;
    vi a[B][TH][TW];
    if (first) {
      GC_EACH a[b][i][k] = splat(j.start[row * B + b]);
    } else {
      GC_EACH a[b][i][k] = load(acc + ((b * TH + i) * TW + k) * VL);
    }
    if (last && j.added > 0 && in_word && row / own % (kInWord / B) == 0) expect_word<TH, TW>(j, row, lane0, y0, x0);
    const int32_t end = ptr[row + 1];
    int32_t t = ptr[row];
#if GC_DOT == GC_HALVES
    for (const int32_t pairs = j.single[static_cast<int64_t>(chunk) * p.rows + row]; t < pairs; t += 2) {
      const int32_t *at = packed + off[t], *next = packed + off[t + 1];
      vi w[B], u[B];
      GC_UNROLL for (int b = 0; b < B; b++) w[b] = splat(words[t * B + b]), u[b] = splat(words[(t + 1) * B + b]);
      GC_UNROLL for (int i = 0; i < TH; i++, at += step, next += step) GC_UNROLL for (int k = 0; k < TW; k++) {
        const vi x = load(at + k * VL), z = load(next + k * VL);
        GC_UNROLL for (int b = 0; b < B; b++) a[b][i][k] += whole(both(halves(x, w[b]), halves(z, u[b])));
      }
    }
#endif
    for (; t < end; t++) {
      const int32_t* at = packed + off[t];
      vi w[B];
      GC_UNROLL for (int b = 0; b < B; b++) w[b] = splat(words[t * B + b]);
      GC_UNROLL for (int i = 0; i < TH; i++, at += step) GC_UNROLL for (int k = 0; k < TW; k++) {
        const vi x = load(at + k * VL);
        GC_UNROLL for (int b = 0; b < B; b++) a[b][i][k] = dot(a[b][i][k], x, w[b]);
      }
    }
    const int32_t phase = row % own, part = in_word ? row / own % (kInWord / B) : 0;
    int32_t* const of_phase = done + phase * kInWord * kOne;
    int32_t* to = last ? of_phase + part * B * kOne : acc;
    GC_EACH store(to + ((b * TH + i) * TW + k) * VL, a[b][i][k]);
    if (!last) continue;
    if (!in_word) for (int32_t b = 0; b < B; b++) finish(j, TH, TW, done + b * kOne, row, b, lane0, y0, x0);
    else if (part == kInWord / B - 1) finish_word(j, TH, TW, of_phase, kOne, row - part * own, 0, lane0, y0, x0);
  }
#undef GC_EACH
}

#if defined(GC_MATRICES)
#include "impl_bytes_tiles.h"
#endif

template <int B, int TH, int TW>
static void conv_tiles(const ByteJob& j) {
#if defined(GC_MATRICES)
  const Matrices matrices;
#endif
  const Plan& p = *j.plan;
  const int32_t grid_h = (j.ho + j.so_y - 1) / j.so_y, grid_w = (j.wo + j.so_x - 1) / j.so_x;
  const int32_t high = TH * p.gy, wide = TW * p.gx;
  for (int32_t y0 = 0; y0 < grid_h; y0 += high)
    for (int32_t x0 = 0; x0 < grid_w; x0 += wide)
      for (int32_t lane0 = 0; lane0 < j.lanes; lane0 += VL)
        for (int32_t k = 0; k < p.chunks; k++) {
          const int32_t c0 = k * p.chunk, c1 = c0 + p.chunk < p.in_channels ? c0 + p.chunk : p.in_channels;
          pack(j, lane0, y0, x0, c0, c1);
          int32_t tile = 0;
          for (int32_t ty = 0; ty < high && y0 + ty < grid_h; ty += TH)
            for (int32_t tx = 0; tx < wide && x0 + tx < grid_w; tx += TW) {
#if defined(GC_MATRICES)
              if constexpr (B == kTileRows) tiles_region<TH, TW>(j, lane0, y0 + ty, x0 + tx, ty, tx);
              else
#endif
              conv_chunk<B, TH, TW>(j, k, lane0, y0 + ty, x0 + tx, ty, tx, tile++);
            }
        }
}

// The tiles that exist; plan.cpp chooses among those that fit the registers.
static void conv(const ByteJob& j) {
  const Plan& p = *j.plan;
  switch (j.blocks * 10000 + p.th * 100 + p.tw) {
#define GC_TILE(b, th, tw) case b * 10000 + th * 100 + tw: conv_tiles<b, th, tw>(j); break;
#if GC_MANY_REGISTERS
    GC_TILE(1, 2, 8) GC_TILE(1, 4, 4) GC_TILE(1, 1, 16)
#endif
    GC_TILE(1, 1, 8) GC_TILE(1, 2, 4) GC_TILE(1, 2, 2) GC_TILE(1, 1, 4) GC_TILE(1, 1, 2) GC_TILE(1, 1, 1)
#if GC_DOT != GC_HALVES  // two instructions for every product: not loads but they are what takes time
#if GC_MANY_REGISTERS
    GC_TILE(2, 1, 8) GC_TILE(2, 2, 4) GC_TILE(4, 2, 2) GC_TILE(4, 1, 4)
#endif
    GC_TILE(2, 2, 2) GC_TILE(2, 1, 4) GC_TILE(2, 1, 2) GC_TILE(2, 1, 1)
#if !defined(GC_WEB)
    GC_TILE(4, 1, 2) GC_TILE(4, 1, 1)
#endif
#endif
#if defined(GC_MATRICES)
    GC_TILE(16, 1, 4) GC_TILE(16, 2, 4) GC_TILE(16, 4, 4) GC_TILE(16, 1, 8) GC_TILE(16, 2, 8) GC_TILE(16, 1, 16)
#endif
#undef GC_TILE
  }
}

#include "impl_bytes_flat.h"
#if defined(GC_WEB)
static constexpr decltype(ByteKernels::conv_lanes) conv_lanes = nullptr;
#else
#include "impl_region.h"
#include "impl_bytes_lanes.h"
#endif

#include "impl_bytes_exact.h"

// ---- beside convolutions

static void quantize(const ByteMapJob& j) {
  const int64_t floats = static_cast<int64_t>(j.h) * j.row;
  for (int32_t c = 0; c < j.channels; c++) {
    const float* from = j.in + c * j.plane;
    int32_t* to = j.view.data + c / kInWord * j.plane;
    // Past the end of a plane stands the next one, which is written after it, or room that is left around the map.
    const int64_t step = j.width > VL ? j.width : VL;
    for (int32_t lane0 = 0; lane0 < step; lane0 += VL) {
      const Writer writer = writer_of(j.view, c, lane0);
      for (int64_t k = lane0; k < floats; k += step) put(writer, to + k, bytes_of(writer, load_floats(from + k)));
    }
  }
}

static void sum(const MapJob& j) {
  for (int32_t c = 0; c < j.channels; c++)
    for (int32_t y = 0; y < j.h; y++) {
      float* to = j.out + c * j.plane + y * j.row;
      for (int32_t m = 0; m < j.added; m++) {
        const Added& add = j.add[m];
        const float* line = plane_of(add, c) + y / add.up * add.y;
        const bool begins = j.first && m == 0;
        for (int32_t x = 0; x < j.w; x++)
          for (int32_t lane = 0; lane < j.width; lane++) {
            const float* at = line + x / add.up * add.x + lane;
            float v;
            if (add.bytes) v = static_cast<float>(((*words_of(at) >> (8 * (c % kInWord))) & 255) - add.zero) * add.unit;
            else v = *at;
            if (add.factor != 1.0f) v = v * add.factor;
            float& sum = to[x * j.width + lane];
            sum = begins ? v : sum + v;
          }
      }
      const float slope = slope_of(j.act, c);
      for (int32_t k = 0; j.act.kind != kNone && k < j.row; k++) to[k] = to[k] < 0.0f ? (j.act.kind == kRelu ? 0.0f : to[k] * slope) : to[k];
    }
}

}  // namespace GC_INSIDE

extern const ByteKernels GC_JOIN(bytes_, GC_ISA) = {GC_DOT == GC_HALVES, GC_MOST_BLOCKS, GC_FLAT_BLOCKS, GC_INSIDE::kOffset, GC_INSTRUCTIONS, GC_INSIDE::conv, GC_INSIDE::conv_flat, GC_INSIDE::conv_lanes, GC_INSIDE::quantize, GC_INSIDE::sum, GC_INSIDE::linear, GC_INSIDE::tanh};

}  // namespace gc
