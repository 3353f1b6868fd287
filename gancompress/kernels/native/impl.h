// The kernels, written once in compiler vector extensions and compiled once per instruction set. The including file sets
//   GC_ISA        namespace and table name suffix        GC_VL   floats in a vector
//   GC_REGISTERS  vector registers                        GC_SUPPORTED  expression: may this machine run it
#include <stdint.h>
#include <string.h>

#include "isa.h"
#include "plan.h"

namespace gc {
namespace GC_ISA {

constexpr int VL = GC_VL;
typedef float vf __attribute__((vector_size(VL * 4), aligned(VL * 4), may_alias));
typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int i4 __attribute__((vector_size(16)));

#define GC_INLINE static inline __attribute__((always_inline))
#define GC_UNROLL _Pragma("GCC unroll 16")

GC_INLINE vf load(const float* p) { return *reinterpret_cast<const vf*>(p); }
GC_INLINE void store(float* p, vf v) { *reinterpret_cast<vf*>(p) = v; }
GC_INLINE vf zero() {
  vf z = {};
  return z;
}
typedef float vu __attribute__((vector_size(VL * 4), aligned(4), may_alias));
typedef int vi __attribute__((vector_size(VL * 4), aligned(VL * 4), may_alias));
typedef int viu __attribute__((vector_size(VL * 4), aligned(4), may_alias));
GC_INLINE vf load_any(const float* p) { return *reinterpret_cast<const vu*>(p); }
GC_INLINE void store_any(float* p, vf v) { *reinterpret_cast<vu*>(p) = v; }
GC_INLINE vf only(vf v, vi mask) { return reinterpret_cast<vf>(reinterpret_cast<vi>(v) & mask); }

// Written so that a NaN stays a NaN, as in torch.relu.
GC_INLINE vf relu(vf v) { return v < zero() ? zero() : v; }
// The slope of a ReLU is not multiplied by: minus infinity becomes 0.
GC_INLINE vf activated(vf v, int32_t kind, vf slope) {
  return kind == kNone ? v : v < zero() ? (kind == kRelu ? zero() : v * slope) : v;
}

GC_INLINE void zeros(float* dst, int32_t count) {
  for (int32_t q = 0; q < count; q++) store(dst + q * VL, zero());
}

GC_INLINE bool is_smooth(int32_t kind) { return kind >= kTanh; }
#include "impl_smooth.h"

// What is fused before the convolution, of one channel, but for what is smooth.
struct Before {
  vf scale, shift, slope;
  bool affine;
  int32_t kind;
};
GC_INLINE vf before(const Before& b, vf v) {
  if (b.affine) v = v * b.scale + b.shift;
  return activated(v, b.kind, b.slope);
}

GC_INLINE vi mask_of(const Lines& lines, const Line& line, int32_t lane0) {
  return *reinterpret_cast<const viu*>(lines.masks + line.mask + lane0);
}

// A packed vector of any kind. Of the two axes, one at most is split into strips.
static vf pack_edge(const TileJob& j, const float* plane, const Line& row, const Line& column, int32_t lane0, const Before& b) {
  if (row.at < 0 || column.at < 0) return zero();
  vf v = zero();
  if (row.places < 0 && column.places < 0) {
    v = load_any(plane + row.at * j.in_y + column.at * j.in_x + row.shift + column.shift);
  } else {
    const bool across = column.places >= 0;
    const LanePlace* places = across ? j.columns.places + column.places : j.rows.places + row.places;
    const float* from = plane + (across ? row.at * j.in_y : column.at * j.in_x);
    for (int lane = 0; lane < VL; lane++) v[lane] = from[places[lane].at * (across ? j.in_x : j.in_y) + places[lane].lane];
  }
  v = before(b, v);
  if (row.mask >= 0) v = only(v, mask_of(j.rows, row, lane0));
  if (column.mask >= 0) v = only(v, mask_of(j.columns, column, lane0));
  return v;
}

// Vectors q0..q1 of a packed row, whose columns are plain.
template <bool FUSED, bool MASKED>
GC_INLINE vf pack_run(const TileJob& j, const float* from, const Line* columns, int32_t si, int32_t q0, int32_t q1, const Before& b, vi mask, float* dst) {
  vf check = zero();
  for (int32_t q = q0; q < q1; q++) {
    vf v = load_any(from + columns[si * q].at * j.in_x);
    check += v * 0.0f;
    if (FUSED) v = before(b, v);
    store(dst + q * VL, MASKED ? only(v, mask) : v);
  }
  return check;
}

// A whole packed row of plain columns that lie side by side.
template <bool FUSED>
GC_INLINE vf pack_straight(const float* from, int64_t step, int32_t count, const Before& b, float* dst) {
  vf check = zero();
  for (int32_t q = 0; q < count; q++, from += step, dst += VL) {
    vf v = load_any(from);
    check += v * 0.0f;
    store(dst, FUSED ? before(b, v) : v);
  }
  return check;
}

// The columns of one input phase of a packed row: q0..q1 are plain, `at` is where the first of all stands in the table.
struct Columns {
  int32_t q0, q1;
  int32_t at;
};

// One row of the packed region, from a row of the image.
GC_INLINE vf pack_row(const TileJob& j, const Plan& p, const Columns* columns, const float* plane, const Line& row, int32_t lane0, const Before& b, float* dst) {
  vf check = zero();
  const bool plain = !b.affine && b.kind == kNone;
  const float* from = plane + row.at * j.in_y + row.shift;
  for (int32_t phase = 0; phase < p.nphx; phase++, dst += p.pw * VL) {
    const Columns c = columns[phase];
    const Line* line = j.columns.line + c.at;
    const int32_t q0 = row.places < 0 ? c.q0 : p.pw, q1 = row.places < 0 ? c.q1 : p.pw;
    for (int32_t q = 0; q < q0; q++) store(dst + q * VL, pack_edge(j, plane, row, line[p.si_x * q], lane0, b));
    if (row.mask >= 0) check += pack_run<true, true>(j, from, line, p.si_x, q0, q1, b, mask_of(j.rows, row, lane0), dst);
    else if (plain) check += pack_run<false, false>(j, from, line, p.si_x, q0, q1, b, vi{}, dst);
    else check += pack_run<true, false>(j, from, line, p.si_x, q0, q1, b, vi{}, dst);
    for (int32_t q = q1; q < p.pw; q++) store(dst + q * VL, pack_edge(j, plane, row, line[p.si_x * q], lane0, b));
  }
  return check;
}

// The vectors of 16 images, and the floats between the packed copies of two of them.
constexpr int kParts = kLanes / VL;
GC_INLINE int32_t parts_of(const TileJob& j) { return kParts == 1 ? 1 : (j.lanes + VL - 1) / VL; }
GC_INLINE int64_t part_floats(const Plan& p) { return static_cast<int64_t>(p.chunk) * p.pairs * p.packed_positions * VL; }

GC_INLINE const float* plane_of(const TileJob& j, int32_t c) { return j.planes != nullptr ? j.planes[c] : j.in + c * j.in_c; }

GC_INLINE vf of_channel(const float* values, int32_t c, int32_t lane0, bool per_image) {
  return per_image ? load(values + static_cast<int64_t>(c) * kLanes + lane0) : zero() + values[c];
}

// Brings into the second-level cache what will be packed later: of this channel, the columns of the next region of the row;
// where there is none, or regions are as large as those of weight gradients, the next channel. Regions are visited along a
// row, channel after channel: the hardware does not foresee the jumps.
GC_INLINE void fetch_ahead(const TileJob& j, const Plan& p, int32_t c, const Line* rows, int32_t x0) {
  int32_t from = p.si_x * (x0 + p.pw), to = from + p.si_x * p.tw * p.gx;
  if (p.kind == kWeights || from >= j.columns.plain1) {
    if (++c == p.in_channels * p.pairs) return;
    to = from;
    from = p.si_x * x0 > j.columns.plain0 ? p.si_x * x0 : j.columns.plain0;
  }
  to = to < j.columns.plain1 ? to : j.columns.plain1;
  const float* plane = plane_of(j, c);
  const int32_t step = j.in_x * 4 >= 64 ? 1 + j.up : (1 + j.up) * 64 / static_cast<int32_t>(4 * j.in_x);
  for (int32_t y = 0; y < p.si_y * p.ph; y += 1 + j.up)
    for (int32_t x = from; rows[y].at >= 0 && x < to; x += step) __builtin_prefetch(plane + rows[y].at * j.in_y + j.columns.line[x].at * j.in_x, 0, 2);
}

// Packs the region at y0, x0 of channels c0..c1: one copy per vector of the 16 images, `part_floats` apart. What lies side
// by side in memory is taken together, before it leaves the cache.
static void pack(const TileJob& j, int32_t y0, int32_t x0, int32_t c0, int32_t c1) {
  const Plan& p = *j.plan;
  Columns columns[kLargestStride];
  for (int32_t phase = 0; phase < p.nphx; phase++) {
    const int32_t at = p.si_x * x0 + phase;
    int32_t q0 = at < j.columns.plain0 ? (j.columns.plain0 - at + p.si_x - 1) / p.si_x : 0;
    int32_t q1 = at >= j.columns.plain1 ? 0 : (j.columns.plain1 - at + p.si_x - 1) / p.si_x;
    q1 = q1 < p.pw ? q1 : p.pw;
    q0 = q0 < q1 ? q0 : q1;
    columns[phase] = {q0, q1, at};
  }
  const int32_t row_floats = p.nphx * p.pw * VL, parts = parts_of(j);
  const int64_t apart = part_floats(p);
  const Line* rows = j.rows.line + p.si_y * y0;
  const bool smooth_after = is_smooth(j.pre.kind);  // on all that was packed: zeros stay zeros
  const int32_t kind = smooth_after ? int32_t{kNone} : j.pre.kind;
  const bool affine = j.scale != nullptr, plain = !affine && kind == kNone;
  const bool straight = p.si_x == 1 && !j.up && columns[0].q0 == 0 && columns[0].q1 == p.pw;
  const int64_t left = straight ? j.columns.line[columns[0].at].at * j.in_x : 0;
  float* to = j.packed;
  vf check[kParts];
  for (int part = 0; part < parts; part++) check[part] = load(j.check + part * VL);
  for (int32_t c = c0; c < c1; c++) {
    const float* channel = plane_of(j, c);
    fetch_ahead(j, p, c, rows, x0);
    Before of[kParts];
    for (int part = 0; part < parts; part++)
      of[part] = {affine ? of_channel(j.scale, c, part * VL, j.per_image) : zero(), affine ? of_channel(j.shift, c, part * VL, j.per_image) : zero(),
                  kind == kSlopes ? zero() + j.pre.slopes[c] : zero(), affine, kind};
    float* const begin = to;
    for (int32_t phase = 0; phase < p.nphy; phase++)
      for (int32_t q = 0; q < p.ph; q++, to += row_floats) {
        const Line& row = rows[p.si_y * q + phase];
        for (int part = 0; part < parts; part++) {
          const float *plane = channel + part * VL, *from = plane + row.at * j.in_y + row.shift + left;
          const Before& b = of[part];
          float* dst = to + part * apart;
          if (row.at < 0) zeros(dst, p.nphx * p.pw);
          else if (straight && plain && row.mask < 0 && row.places < 0) check[part] += pack_straight<false>(from, j.in_x, p.pw, b, dst);
          else if (straight && row.mask < 0 && row.places < 0) check[part] += pack_straight<true>(from, j.in_x, p.pw, b, dst);
          else check[part] += pack_row(j, p, columns, plane, row, part * VL, b, dst);
        }
      }
    for (int part = 0; smooth_after && part < parts; part++) smooth(reinterpret_cast<vf*>(begin + part * apart), (to - begin) / VL, j.pre.kind);
  }
  for (int part = 0; part < parts; part++) store(j.check + part * VL, check[part]);
}

#include "impl_pairs.h"

// Writes one row's tile to the output, with what is fused behind the convolution.
template <int TH, int TW>
GC_INLINE void finish(const TileJob& j, vf (&a)[TH][TW], int32_t row, int32_t lane0, int32_t y0, int32_t x0) {
  const int32_t so_y = j.plan->so_y, so_x = j.plan->so_x;
  const bool phases = so_y * so_x > 1;
  const int32_t c = phases ? row / (so_y * so_x) : row, oy = phases ? row / so_x % so_y : 0, ox = phases ? row % so_x : 0;
  float* out = j.out + c * j.out_c + lane0;
  const float* gate = j.gate != nullptr ? j.gate + c * j.gate_c + lane0 : nullptr;
  const bool whole = so_y * (y0 + TH) <= j.ho && so_x * (x0 + TW) <= j.wo;
  float* at = out + (so_y * y0 + oy - j.out_y0) * j.out_y + (so_x * x0 + ox) * j.out_x;
  const int64_t step_y = so_y * j.out_y, step_x = so_x * j.out_x;
  for (int32_t m = 0; m < j.added; m++) {
    const Added& add = j.add[m];
    const float* beside = add.data + c * add.c + lane0;
    GC_UNROLL for (int i = 0; i < TH; i++) {
      const int32_t y = so_y * (y0 + i) + oy;
      const float* line = beside + (add.up == 1 ? y : y / add.up) * add.y;
      GC_UNROLL for (int k = 0; k < TW; k++) {
        const int32_t x = so_x * (x0 + k) + ox;
        if (whole || (y < j.ho && x < j.wo)) a[i][k] += add.factor * load(line + (add.up == 1 ? x : add.up == 2 ? x >> 1 : x / add.up) * add.x);
      }
    }
  }
  if (is_smooth(j.act.kind)) {
    vf v[TH * TW];
    GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) v[i * TW + k] = a[i][k];
    smooth(v, TH * TW, j.act.kind);
    GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) a[i][k] = v[i * TW + k];
  } else if (j.act.kind != kNone) {
    const vf slope = j.act.kind == kSlopes ? zero() + j.act.slopes[c] : zero();
    GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) a[i][k] = activated(a[i][k], j.act.kind, slope);
  }
  if (whole && gate == nullptr) {
    GC_UNROLL for (int i = 0; i < TH; i++, at += step_y) GC_UNROLL for (int k = 0; k < TW; k++) store(at + k * step_x, a[i][k]);
    return;
  }
  GC_UNROLL for (int i = 0; i < TH; i++, at += step_y) {
    const int32_t y = so_y * (y0 + i) + oy;
    GC_UNROLL for (int k = 0; k < TW; k++) {
      const int32_t x = so_x * (x0 + k) + ox;
      if (y >= j.ho || x >= j.wo) continue;
      const vf v = a[i][k];
      store(at + k * step_x, gate == nullptr ? v : load(gate + y * j.gate_y + x * j.gate_x) <= zero() ? zero() : v);
    }
  }
}

// From so many entries per visit of a row on, taking two at a time gains (3 % at 40); with fewer, the odd one left costs more.
constexpr int64_t kEntriesForPairs = 13;

// What an entry adds: a weight times a number; or, in pairs, two weights times two numbers.
template <bool PAIRS>
GC_INLINE vf added(vf sum, float w, const float* at) {
  if (PAIRS) return dot(sum, load_words(at), splat_word(w));
  return sum + w * load(at);
}

// One register tile, which lies ty, tx inside the packed region; `tile` is its number there.
template <bool PAIRS, int TH, int TW>
static void conv_chunk(const TileJob& j, int32_t chunk, int32_t part, int32_t y0, int32_t x0, int32_t ty, int32_t tx, int32_t tile) {
  const Plan& p = *j.plan;
  const bool first = chunk == 0, last = chunk + 1 == p.chunks;
  const int32_t* ptr = p.ptr + static_cast<int64_t>(chunk) * (p.rows + 1);
  const int32_t* off = p.off;
  const float* value = j.value;
  const int64_t step = static_cast<int64_t>(p.nphx) * p.pw * VL;
  const float* packed = j.packed + part * part_floats(p) + ty * step + tx * VL;
  float* sums = j.acc + static_cast<int64_t>(tile * parts_of(j) + part) * p.rows * TH * TW * VL;
  const bool in_pairs = p.entries >= kEntriesForPairs * p.rows * p.chunks;
  for (int32_t row = j.row0; row < j.row1; row++) {
    float* acc = sums + static_cast<int64_t>(row) * TH * TW * VL;
    if (ptr[row] == ptr[row + 1] && !first && !last) continue;
    vf a[TH][TW];
    if (first) {
      const vf b = zero() + (j.bias != nullptr ? j.bias[row / p.rows_of_bias] : 0.0f);
      GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) a[i][k] = b;
    } else {
      GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) a[i][k] = load(acc + (i * TW + k) * VL);
    }
    const int32_t end = ptr[row + 1];
    int32_t t = ptr[row];
    for (; in_pairs && t + 1 < end; t += 2) {
      const float *at = packed + off[t], *next = packed + off[t + 1];
      const float w = value[t], v = value[t + 1];
      GC_UNROLL for (int i = 0; i < TH; i++, at += step, next += step) GC_UNROLL for (int k = 0; k < TW; k++) {
        a[i][k] = added<PAIRS>(a[i][k], w, at + k * VL);
        a[i][k] = added<PAIRS>(a[i][k], v, next + k * VL);
      }
    }
    for (; t < end; t++) {
      const float* at = packed + off[t];
      const float w = value[t];
      GC_UNROLL for (int i = 0; i < TH; i++, at += step) GC_UNROLL for (int k = 0; k < TW; k++) a[i][k] = added<PAIRS>(a[i][k], w, at + k * VL);
    }
    if (last) {
      finish<TH, TW>(j, a, row, part * VL, y0, x0);
    } else {
      GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) store(acc + (i * TW + k) * VL, a[i][k]);
    }
  }
}

#if !defined(GC_WEB)
// Sums of a register tile, from its bias or from what earlier chunks left.
template <int TH, int TW>
GC_INLINE void begin(const TileJob& j, vf (&a)[TH][TW], bool first, int32_t row, const float* acc) {
  const vf b = zero() + (first && j.bias != nullptr ? j.bias[row / j.plan->rows_of_bias] : 0.0f);
  GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) a[i][k] = first ? b : load(acc + (i * TW + k) * VL);
}

template <int TH, int TW>
GC_INLINE void end(const TileJob& j, vf (&a)[TH][TW], bool last, int32_t row, float* acc, int32_t part, int32_t y0, int32_t x0) {
  if (last) {
    finish<TH, TW>(j, a, row, part * VL, y0, x0);
  } else {
    GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) store(acc + (i * TW + k) * VL, a[i][k]);
  }
}

// As conv_chunk, of a plan whose rows are twins: two output channels take every word that is read. Where loads are as rare
// as products (Zen 4: one of 64 bytes a cycle each), that is what products wait for.
template <int TH, int TW>
static void conv_twins(const TileJob& j, int32_t chunk, int32_t part, int32_t y0, int32_t x0, int32_t ty, int32_t tx, int32_t tile) {
  const Plan& p = *j.plan;
  const bool first = chunk == 0, last = chunk + 1 == p.chunks;
  const int32_t* ptr = p.ptr + static_cast<int64_t>(chunk) * (p.rows + 1);
  const int64_t step = static_cast<int64_t>(p.nphx) * p.pw * VL, sums = TH * TW * VL;
  const float* packed = j.packed + part * part_floats(p) + ty * step + tx * VL;
  float* acc = j.acc + static_cast<int64_t>(tile * parts_of(j) + part) * p.rows * sums;
  const int32_t phases = p.phases();
  for (int32_t row = j.row0; row < j.row1; row++) {
    const bool odd = row / phases % 2 == 1;
    if (odd && row - phases >= j.row0) continue;  // done beside the one before
    const int32_t twin = row + phases;
    const bool both = !odd && twin < j.row1;  // threads may part twins
    const int32_t entries = ptr[row + 1] - ptr[row];
    if (entries == 0 && !first && !last) continue;
    const int32_t* off = p.off + ptr[row];
    const float *value = j.value + ptr[row], *beside = j.value + ptr[both ? twin : row];
    vf a[TH][TW], b[TH][TW];
    begin<TH, TW>(j, a, first, row, acc + row * sums);
    if (both) {
      begin<TH, TW>(j, b, first, twin, acc + twin * sums);
      for (int32_t t = 0; t < entries; t++) {
        const float* at = packed + off[t];
        const vi w = splat_word(value[t]), v = splat_word(beside[t]);
        GC_UNROLL for (int i = 0; i < TH; i++, at += step) GC_UNROLL for (int k = 0; k < TW; k++) {
          const vi x = load_words(at + k * VL);
          a[i][k] = dot(a[i][k], x, w);
          b[i][k] = dot(b[i][k], x, v);
        }
      }
      end<TH, TW>(j, b, last, twin, acc + twin * sums, part, y0, x0);
    } else {
      for (int32_t t = 0; t < entries; t++) {
        const float* at = packed + off[t];
        const vi w = splat_word(value[t]);
        GC_UNROLL for (int i = 0; i < TH; i++, at += step) GC_UNROLL for (int k = 0; k < TW; k++) a[i][k] = dot(a[i][k], load_words(at + k * VL), w);
      }
    }
    end<TH, TW>(j, a, last, row, acc + row * sums, part, y0, x0);
  }
}
#endif

template <bool PAIRS, int TH, int TW>
static void conv_tiles(const TileJob& j) {
  const Plan& p = *j.plan;
  const int32_t grid_h = (j.ho + p.so_y - 1) / p.so_y, grid_w = (j.wo + p.so_x - 1) / p.so_x;
  const int32_t high = TH * p.gy, wide = TW * p.gx;
  for (int32_t y0 = j.tile0 * high; y0 < j.tile1 * high && y0 < grid_h; y0 += high)
    for (int32_t x0 = 0; x0 < grid_w; x0 += wide)
      for (int32_t k = 0; k < p.chunks; k++) {
        const int32_t c0 = k * p.chunk, c1 = c0 + p.chunk < p.in_channels ? c0 + p.chunk : p.in_channels;
        pack(j, y0, x0, c0 * p.pairs, c1 * p.pairs);
        if (PAIRS) pair_channels(j, c1 - c0);
        for (int32_t ty = 0, tile = 0; ty < high && y0 + ty < grid_h; ty += TH)
          for (int32_t tx = 0; tx < wide && x0 + tx < grid_w; tx += TW, tile++)
            for (int32_t part = 0; part < parts_of(j); part++) {
#if !defined(GC_WEB)
              if constexpr (PAIRS && 2 * TH * TW <= GC_REGISTERS / 2) {
                if (p.twins) {
                  conv_twins<TH, TW>(j, k, part, y0 + ty, x0 + tx, ty, tx, tile);
                  continue;
                }
              }
#endif
              conv_chunk<PAIRS, TH, TW>(j, k, part, y0 + ty, x0 + tx, ty, tx, tile);
            }
      }
}

// The tiles that exist; plan.cpp chooses among those that fit the registers, of which there are few in a page.
#if defined(GC_WEB)
#define GC_LARGE_TILES(CALL)
#else
#define GC_LARGE_TILES(CALL)                                                    \
    case 208: { constexpr int TH = 2, TW = 8; CALL; } break;                    \
    case 404: { constexpr int TH = 4, TW = 4; CALL; } break;                    \
    case 116: { constexpr int TH = 1, TW = 16; CALL; } break;
#endif
#define GC_FOR_TILE(th, tw, CALL)                                              \
  switch ((th) * 100 + (tw)) {                                                 \
    GC_LARGE_TILES(CALL)                                                        \
    case 108: { constexpr int TH = 1, TW = 8; CALL; } break;                    \
    case 204: { constexpr int TH = 2, TW = 4; CALL; } break;                    \
    case 202: { constexpr int TH = 2, TW = 2; CALL; } break;                    \
    case 104: { constexpr int TH = 1, TW = 4; CALL; } break;                    \
    case 102: { constexpr int TH = 1, TW = 2; CALL; } break;                    \
    default: { constexpr int TH = 1, TW = 1; CALL; } break;                     \
  }

static void conv(const TileJob& j) {
#if !defined(GC_WEB)  // what only training needs is left out there
  if (j.plan->pairs == 2) GC_FOR_TILE(j.plan->th, j.plan->tw, (conv_tiles<true, TH, TW>(j)))
  else
#endif
  GC_FOR_TILE(j.plan->th, j.plan->tw, (conv_tiles<false, TH, TW>(j)))
}

#if defined(__clang__)
#define GC_SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define GC_SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (i4){i, j, k, l})
#endif

GC_INLINE void transpose4(v4& a, v4& b, v4& c, v4& d) {
  const v4 p = GC_SHUFFLE(a, b, 0, 4, 1, 5), q = GC_SHUFFLE(a, b, 2, 6, 3, 7);
  const v4 r = GC_SHUFFLE(c, d, 0, 4, 1, 5), s = GC_SHUFFLE(c, d, 2, 6, 3, 7);
  a = GC_SHUFFLE(p, r, 0, 1, 4, 5);
  b = GC_SHUFFLE(p, r, 2, 3, 6, 7);
  c = GC_SHUFFLE(q, s, 0, 1, 4, 5);
  d = GC_SHUFFLE(q, s, 2, 3, 6, 7);
}

GC_INLINE v4 load4(const float* p) { return *reinterpret_cast<const v4*>(p); }
GC_INLINE void store4(float* p, v4 v) { *reinterpret_cast<v4*>(p) = v; }

#if defined(GC_WEB)
static constexpr decltype(Isa::weight_gradient) weight_gradient = nullptr;
static constexpr decltype(Isa::conv_lanes) conv_lanes = nullptr;  // large, for one pattern
static constexpr decltype(Isa::filter) filter = nullptr;
static constexpr decltype(Isa::style) style = nullptr;
static constexpr decltype(Isa::style_gradient) style_gradient = nullptr;
static constexpr decltype(Isa::total) total = nullptr;
#else
#include "impl_weights.h"
#include "impl_style.h"
#endif

// Pixels of one image taken at a time: few enough that their 16-image blocks stay in the first-level cache, enough that
// the 16 images, often a power of two apart, are not visited line by line in turn.
constexpr int64_t kRun = 128;

static void to_blocked(const float* src, int64_t lane_stride, int32_t lanes, int64_t count, float* dst, int64_t position_stride, int32_t width) {
  for (int64_t at = 0; at < count; at += kRun) {
    const int64_t here = count - at < kRun ? count - at : kRun;
    for (int32_t lane = 0; lane < width; lane += 4) {
      const float* s = src + lane * lane_stride + at;
      float* d = dst + at * position_stride + lane;
      int64_t q = 0;
      if (lane + 4 <= lanes) {
        for (; q + 4 <= here; q += 4) {
          v4 a = load4(s + q), b = load4(s + lane_stride + q), c = load4(s + 2 * lane_stride + q), e = load4(s + 3 * lane_stride + q);
          transpose4(a, b, c, e);
          store4(d + q * position_stride, a);
          store4(d + (q + 1) * position_stride, b);
          store4(d + (q + 2) * position_stride, c);
          store4(d + (q + 3) * position_stride, e);
        }
      }
      for (; q < here; q++)
        for (int32_t k = 0; k < 4; k++) d[q * position_stride + k] = lane + k < lanes ? s[k * lane_stride + q] : 0.0f;
    }
  }
}

static void from_blocked(const float* src, int64_t position_stride, int64_t count, float* dst, int64_t lane_stride, int32_t lanes) {
  for (int64_t at = 0; at < count; at += kRun) {
    const int64_t here = count - at < kRun ? count - at : kRun;
    for (int32_t lane = 0; lane < lanes; lane += 4) {
      const float* s = src + at * position_stride + lane;
      float* d = dst + lane * lane_stride + at;
      int64_t q = 0;
      if (lane + 4 <= lanes) {
        for (; q + 4 <= here; q += 4) {
          v4 a = load4(s + q * position_stride), b = load4(s + (q + 1) * position_stride);
          v4 c = load4(s + (q + 2) * position_stride), e = load4(s + (q + 3) * position_stride);
          transpose4(a, b, c, e);
          store4(d + q, a);
          store4(d + lane_stride + q, b);
          store4(d + 2 * lane_stride + q, c);
          store4(d + 3 * lane_stride + q, e);
        }
      }
      for (; q < here; q++)
        for (int32_t k = 0; k < 4 && lane + k < lanes; k++) d[k * lane_stride + q] = s[q * position_stride + k];
    }
  }
}

#include "impl_flat.h"
#if !defined(GC_WEB)
#include "impl_region.h"
#include "impl_lanes.h"
#endif
#include "impl_maps.h"

static bool supported() { return GC_SUPPORTED; }

}  // namespace GC_ISA

#define GC_JOIN_(a, b) a##b
#define GC_JOIN(a, b) GC_JOIN_(a, b)
#define GC_TEXT_(a) #a
#define GC_TEXT(a) GC_TEXT_(a)
extern const Isa GC_JOIN(isa_, GC_ISA) = {
    GC_TEXT(GC_ISA),  GC_VL, GC_REGISTERS, GC_ISA::supported, GC_ISA::conv, GC_ISA::conv_flat, GC_ISA::conv_lanes,
    GC_ISA::weight_gradient, GC_ISA::sum, GC_ISA::norm, GC_ISA::filter, GC_ISA::style,
    GC_ISA::style_gradient, GC_ISA::total, GC_ISA::to_blocked, GC_ISA::from_blocked, GC_ISA::pairs, nullptr};

}  // namespace gc
