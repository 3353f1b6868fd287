// Part of impl_bytes.h: what stands between programs of bytes, in float32, one rounded operation after the other.

GC_INLINE vf zero() { return vf{}; }
#include "impl_smooth.h"

#if defined(GC_WEB)  // a page keeps its weights as they are stored, and adds them up where it reads them
static constexpr decltype(ByteKernels::linear) linear = nullptr;
#else
// IMAGES rows of the result, from tile `tile` on TILES of kLanes outputs.
template <int IMAGES, int TILES>
static void linear_tiles(const LinearJob& j, int64_t n, int64_t tile) {
  constexpr int kParts = kLanes / VL;
  const int64_t apart = j.inputs * kLanes;  // from one tile of the weight to the next
  for (int part = 0; part < kParts; part++) {
    const float* weight = j.weight + tile * apart + part * VL;
    vf sum[IMAGES][TILES];
#define GC_EACH GC_UNROLL for (int i = 0; i < IMAGES; i++) GC_UNROLL for (int t = 0; t < TILES; t++)
    GC_EACH sum[i][t] = load_floats(j.bias + (tile + t) * kLanes + part * VL);
    for (int64_t k = 0; k < j.inputs; k++, weight += kLanes) {
      vf w[TILES];
      GC_UNROLL for (int t = 0; t < TILES; t++) w[t] = load_floats(weight + t * apart);
      GC_UNROLL for (int i = 0; i < IMAGES; i++) {
        const vf x = splat_float(j.x[(n + i) * j.inputs + k]);
        GC_UNROLL for (int t = 0; t < TILES; t++) {
          const vf product = x * w[t];
          sum[i][t] = sum[i][t] + product;
        }
      }
    }
    GC_EACH {
      const int64_t first = (tile + t) * kLanes + part * VL, left = j.outputs - first;
      float* to = j.out + (n + i) * j.outputs + first;
      if (left >= VL) store_floats(to, sum[i][t]);
      else if (left > 0) memcpy(to, &sum[i][t], left * sizeof(float));
    }
#undef GC_EACH
  }
}

static void linear(const LinearJob& j) {
  constexpr int kImages = GC_MANY_REGISTERS ? 4 : 2, kTiles = 4;
  const int64_t tiles = (j.outputs + kLanes - 1) / kLanes, whole = tiles - tiles % kTiles;
  // The weights of a few tiles stay in the first-level cache for all images.
  for (int64_t tile = 0; tile < tiles; tile += tile < whole ? kTiles : 1) {
    int64_t n = 0;
    if (tile < whole) {
      for (; n + kImages <= j.images; n += kImages) linear_tiles<kImages, kTiles>(j, n, tile);
      for (; n < j.images; n++) linear_tiles<1, kTiles>(j, n, tile);
    } else {
      for (; n < j.images; n++) linear_tiles<1, 1>(j, n, tile);
    }
  }
}
#endif

static void tanh(const float* x, int64_t count, float* out) {
  memcpy(out, x, count * sizeof(float));
  smooth_floats(out, count, kTanh);
}
