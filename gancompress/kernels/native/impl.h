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
// Written so that a NaN stays a NaN, as in torch.relu.
GC_INLINE vf relu(vf v) { return v < zero() ? zero() : v; }

// The columns of one input phase of a packed row: q0..q1 lie inside the image, `at` is where the first of all would be.
struct Columns {
  int32_t q0, q1;
  int32_t at;
};

GC_INLINE void zeros(float* dst, int32_t count) {
  for (int32_t q = 0; q < count; q++) store(dst + q * VL, zero());
}

// One row of the packed tile, from a row of the image.
GC_INLINE vf pack_row(const TileJob& j, const Plan& p, const Columns* columns, const float* row, vf scale, vf shift, float* dst) {
  vf check = zero();
  const bool plain = j.scale == nullptr && !j.pre_relu;
  const int64_t step = p.si * j.in_x;
  for (int32_t phase = 0; phase < p.nphx; phase++, dst += p.pw * VL) {
    const Columns c = columns[phase];
    zeros(dst, c.q0);
    zeros(dst + c.q1 * VL, p.pw - c.q1);
    if (j.up) {
      for (int32_t q = c.q0; q < c.q1; q++) {
        vf v = load(row + ((c.at + p.si * q) >> 1) * j.in_x);
        check += v * 0.0f;
        if (j.scale != nullptr) v = v * scale + shift;
        store(dst + q * VL, j.pre_relu ? relu(v) : v);
      }
    } else if (plain) {
      const float* from = row + c.at * j.in_x;
      for (int32_t q = c.q0; q < c.q1; q++) {
        const vf v = load(from + q * step);
        check += v * 0.0f;
        store(dst + q * VL, v);
      }
    } else {
      const float* from = row + c.at * j.in_x;
      for (int32_t q = c.q0; q < c.q1; q++) {
        vf v = load(from + q * step);
        check += v * 0.0f;
        if (j.scale != nullptr) v = v * scale + shift;
        store(dst + q * VL, j.pre_relu ? relu(v) : v);
      }
    }
  }
  return check;
}

GC_INLINE vf of_channel(const float* values, int32_t c, int32_t lane0, bool per_image) {
  return per_image ? load(values + static_cast<int64_t>(c) * kLanes + lane0) : zero() + values[c];
}

static void pack(const TileJob& j, int32_t lane0, int32_t y0, int32_t x0, int32_t c0, int32_t c1) {
  const Plan& p = *j.plan;
  const int32_t high = j.hi << j.up, wide = j.wi << j.up;
  Columns columns[kLargestStride];
  for (int32_t phase = 0; phase < p.nphx; phase++) {
    const int32_t at = p.si * x0 + p.dx0 + phase;
    int32_t q0 = at < 0 ? (-at + p.si - 1) / p.si : 0;
    int32_t q1 = at >= wide ? 0 : (wide - at + p.si - 1) / p.si;
    q1 = q1 < p.pw ? q1 : p.pw;
    q0 = q0 < q1 ? q0 : q1;
    columns[phase] = {q0, q1, at};
  }
  const int32_t row_floats = p.nphx * p.pw * VL;
  const int32_t top = p.si * y0 + p.dy0, bottom = top + p.si * p.ph;
  // Tiles are visited along a row, channel after channel: the hardware does not foresee the jump to the next channel.
  const int64_t ahead = 3 * j.in_c + (top > 0 ? (top >> j.up) * j.in_y : 0) + ((columns[0].at + p.si * columns[0].q0) >> j.up) * j.in_x;
  const int32_t rows_ahead = ((bottom < high ? bottom : high) >> j.up) - (top > 0 ? top >> j.up : 0);
  const int32_t lines_ahead = (p.si * p.pw) >> j.up;
  float* dst = j.packed;
  vf check = load(j.check + lane0);
  for (int32_t c = c0; c < c1; c++) {
    const float* plane = j.in + c * j.in_c + lane0;
    if (VL * 4 == 64 && c + 3 < p.in_channels)
      for (int32_t y = 0; y < rows_ahead; y++)
        for (int32_t x = 0; x < lines_ahead; x++) __builtin_prefetch(plane + ahead + y * j.in_y + x * j.in_x);
    const vf scale = j.scale != nullptr ? of_channel(j.scale, c, lane0, j.per_image) : zero();
    const vf shift = j.scale != nullptr ? of_channel(j.shift, c, lane0, j.per_image) : zero();
    for (int32_t phase = 0; phase < p.nphy; phase++)
      for (int32_t q = 0; q < p.ph; q++, dst += row_floats) {
        const int32_t y = p.si * (y0 + q) + p.dy0 + phase;
        if (y < 0 || y >= high)
          zeros(dst, p.nphx * p.pw);
        else
          check += pack_row(j, p, columns, plane + (y >> j.up) * j.in_y, scale, shift, dst);
      }
  }
  store(j.check + lane0, check);
}

// Writes one row's tile to the output, with what is fused behind the convolution.
template <int TH, int TW>
GC_INLINE void finish(const TileJob& j, const vf (&a)[TH][TW], int32_t row, int32_t lane0, int32_t y0, int32_t x0) {
  const int32_t so = j.plan->so;
  const int32_t c = row / (so * so), phase = row % (so * so);
  const int32_t oy = phase / so, ox = phase % so;
  float* out = j.out + c * j.out_c + lane0;
  const float* add = j.add != nullptr ? j.add + c * j.add_c + lane0 : nullptr;
  const float* gate = j.gate != nullptr ? j.gate + c * j.gate_c + lane0 : nullptr;
  const bool whole = so * (y0 + TH) <= j.ho && so * (x0 + TW) <= j.wo;
  float* at = out + (so * y0 + oy - j.out_y0) * j.out_y + (so * x0 + ox) * j.out_x;
  const int64_t step_y = so * j.out_y, step_x = so * j.out_x;
  if (whole && add == nullptr && gate == nullptr && !j.relu) {
    GC_UNROLL for (int i = 0; i < TH; i++, at += step_y) GC_UNROLL for (int k = 0; k < TW; k++) store(at + k * step_x, a[i][k]);
    return;
  }
  GC_UNROLL for (int i = 0; i < TH; i++, at += step_y) {
    const int32_t y = so * (y0 + i) + oy;
    GC_UNROLL for (int k = 0; k < TW; k++) {
      const int32_t x = so * (x0 + k) + ox;
      if (!whole && (y >= j.ho || x >= j.wo)) continue;
      vf v = a[i][k];
      if (add != nullptr) v += load(add + (y >> j.add_up) * j.add_y + (x >> j.add_up) * j.add_x);
      if (j.relu) v = relu(v);
      if (gate != nullptr) v = load(gate + y * j.gate_y + x * j.gate_x) <= zero() ? zero() : v;
      store(at + k * step_x, v);
    }
  }
}

// From so many entries per visit of a row on, taking two at a time gains (3 % at 40); with fewer, the odd one left costs more.
constexpr int64_t kEntriesForPairs = 13;

template <int TH, int TW>
static void conv_chunk(const TileJob& j, int32_t chunk, int32_t lane0, int32_t y0, int32_t x0) {
  const Plan& p = *j.plan;
  const bool first = chunk == 0, last = chunk + 1 == p.chunks;
  const int32_t* ptr = p.ptr + static_cast<int64_t>(chunk) * (p.rows + 1);
  const int32_t* off = p.off;
  const float* value = j.value;
  const float* packed = j.packed;
  const int64_t step = static_cast<int64_t>(p.nphx) * p.pw * VL;
  const int32_t phases = p.so * p.so;
  const bool in_pairs = p.entries >= kEntriesForPairs * p.rows * p.chunks;
  for (int32_t row = j.row0; row < j.row1; row++) {
    float* acc = j.acc + static_cast<int64_t>(row) * TH * TW * VL;
    vf a[TH][TW];
    if (first) {
      const vf b = zero() + (j.bias != nullptr ? j.bias[row / phases] : 0.0f);
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
        a[i][k] += w * load(at + k * VL);
        a[i][k] += v * load(next + k * VL);
      }
    }
    for (; t < end; t++) {
      const float* at = packed + off[t];
      const float w = value[t];
      GC_UNROLL for (int i = 0; i < TH; i++, at += step) GC_UNROLL for (int k = 0; k < TW; k++) a[i][k] += w * load(at + k * VL);
    }
    if (last) {
      finish<TH, TW>(j, a, row, lane0, y0, x0);
    } else {
      GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) store(acc + (i * TW + k) * VL, a[i][k]);
    }
  }
}

template <int TH, int TW>
static void conv_tiles(const TileJob& j) {
  const Plan& p = *j.plan;
  const int32_t grid_w = (j.wo + p.so - 1) / p.so;
  for (int32_t tile = j.tile0; tile < j.tile1; tile++)
    for (int32_t x0 = 0; x0 < grid_w; x0 += TW)
      for (int32_t lane0 = 0; lane0 < j.lanes; lane0 += VL)
        for (int32_t k = 0; k < p.chunks; k++) {
          const int32_t c0 = k * p.chunk, c1 = c0 + p.chunk < p.in_channels ? c0 + p.chunk : p.in_channels;
          pack(j, lane0, tile * TH, x0, c0, c1);
          conv_chunk<TH, TW>(j, k, lane0, tile * TH, x0);
        }
}

template <int TH, int TW>
static void gradient_rows(const TileJob& j, const float* gradient, int32_t chunk, float* sums, int32_t lane0, int32_t y0, int32_t x0) {
  const Plan& p = *j.plan;
  const int32_t* ptr = p.ptr + static_cast<int64_t>(chunk) * (p.rows + 1);
  const int32_t* off = p.off;
  const int64_t step = static_cast<int64_t>(p.nphx) * p.pw * VL;
  const bool whole = y0 + TH <= j.ho && x0 + TW <= j.wo;
  for (int32_t row = j.row0; row < j.row1; row++) {
    const int32_t begin = ptr[row], end = ptr[row + 1];
    if (begin == end) continue;
    const float* at = gradient + row * j.out_c + y0 * j.out_y + x0 * j.out_x + lane0;
    vf g[TH][TW];
    GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) {
      g[i][k] = whole || (y0 + i < j.ho && x0 + k < j.wo) ? load(at + i * j.out_y + k * j.out_x) : zero();
    }
    for (int32_t t = begin; t < end; t++) {
      const float* in = j.packed + off[t];
      vf a = load(sums + static_cast<int64_t>(t) * VL), b = zero();  // two chains hide the latency of the additions
      GC_UNROLL for (int i = 0; i < TH; i++, in += step) GC_UNROLL for (int k = 0; k < TW; k++) {
        if ((i * TW + k) & 1) b += g[i][k] * load(in + k * VL);
        else a += g[i][k] * load(in + k * VL);
      }
      store(sums + static_cast<int64_t>(t) * VL, a + b);
    }
  }
}

template <int TH, int TW>
static void gradient_tiles(const TileJob& j, const float* gradient, int32_t chunk, float* sums) {
  const Plan& p = *j.plan;
  const int32_t c0 = chunk * p.chunk, c1 = c0 + p.chunk < p.in_channels ? c0 + p.chunk : p.in_channels;
  for (int32_t tile = j.tile0; tile < j.tile1; tile++)
    for (int32_t x0 = 0; x0 < j.wo; x0 += TW)
      for (int32_t lane0 = 0; lane0 < j.lanes; lane0 += VL) {
        pack(j, lane0, tile * TH, x0, c0, c1);
        gradient_rows<TH, TW>(j, gradient, chunk, sums, lane0, tile * TH, x0);
      }
}

// The tiles that exist; plan.cpp chooses among those that fit the registers.
#define GC_FOR_TILE(th, tw, CALL)                                              \
  switch ((th) * 100 + (tw)) {                                                 \
    case 208: { constexpr int TH = 2, TW = 8; CALL; } break;                    \
    case 404: { constexpr int TH = 4, TW = 4; CALL; } break;                    \
    case 116: { constexpr int TH = 1, TW = 16; CALL; } break;                   \
    case 108: { constexpr int TH = 1, TW = 8; CALL; } break;                    \
    case 204: { constexpr int TH = 2, TW = 4; CALL; } break;                    \
    case 202: { constexpr int TH = 2, TW = 2; CALL; } break;                    \
    case 104: { constexpr int TH = 1, TW = 4; CALL; } break;                    \
    case 102: { constexpr int TH = 1, TW = 2; CALL; } break;                    \
    default: { constexpr int TH = 1, TW = 1; CALL; } break;                     \
  }

static void conv(const TileJob& j) { GC_FOR_TILE(j.plan->th, j.plan->tw, (conv_tiles<TH, TW>(j))) }

static void weight_gradient(const TileJob& j, const float* gradient, int32_t chunk, float* sums) {
  GC_FOR_TILE(j.plan->th, j.plan->tw, (gradient_tiles<TH, TW>(j, gradient, chunk, sums)))
}

#include "impl_flat.h"

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

// Pixels of one image taken at a time: few enough that their 16-image blocks stay in the first-level cache, enough that
// the 16 images, often a power of two apart, are not visited line by line in turn.
constexpr int64_t kRun = 128;

static void to_blocked(const float* src, int64_t lane_stride, int32_t lanes, int64_t count, float* dst, int64_t position_stride) {
  for (int64_t at = 0; at < count; at += kRun) {
    const int64_t here = count - at < kRun ? count - at : kRun;
    for (int32_t lane = 0; lane < kLanes; lane += 4) {
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

static bool supported() { return GC_SUPPORTED; }

}  // namespace GC_ISA

#define GC_JOIN_(a, b) a##b
#define GC_JOIN(a, b) GC_JOIN_(a, b)
#define GC_TEXT_(a) #a
#define GC_TEXT(a) GC_TEXT_(a)
extern const Isa GC_JOIN(isa_, GC_ISA) = {
    GC_TEXT(GC_ISA),  GC_VL, GC_REGISTERS, GC_ISA::supported, GC_ISA::conv, GC_ISA::conv_flat, GC_ISA::weight_gradient, GC_ISA::to_blocked,
    GC_ISA::from_blocked};

}  // namespace gc
