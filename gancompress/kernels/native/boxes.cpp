// Sums over 2x2 boxes at every position of a map, not only at every there one: what lets a convolution beside a change
// of resolution run at the small size.
#include "api.h"
#include "driver.h"

namespace gc {
namespace {

// Compilers do not vectorise a choice by a floating-point comparison, which may trap: it is written in vectors.
typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));

template <bool Relu>
inline float taken(float v) {
  return Relu && v < 0.0f ? 0.0f : v;  // a NaN stays one
}

// One row of `width` pixels of `inner` numbers to width + 1: each pixel and the one before it, zeros around.
template <bool Relu>
void widen_edge(const float* a, int64_t width, int64_t inner, float scale, float* out) {
  const int64_t all = width * inner;
  for (int64_t i = 0; i < inner; i++) out[i] = scale * taken<Relu>(a[i]);
  for (int64_t i = inner; i < all; i++) out[i] = scale * (taken<Relu>(a[i - inner]) + taken<Relu>(a[i]));
  for (int64_t i = 0; i < inner; i++) out[all + i] = scale * taken<Relu>(a[all - inner + i]);
}

template <bool Relu>
void widen(const float* a, const float* b, int64_t width, int64_t inner, float scale, float* out) {
  const int64_t all = width * inner;
  for (int64_t i = 0; i < inner; i++) out[i] = scale * (taken<Relu>(a[i]) + taken<Relu>(b[i]));
  for (int64_t i = inner; i < all; i++)
    out[i] = scale * ((taken<Relu>(a[i - inner]) + taken<Relu>(a[i])) + (taken<Relu>(b[i - inner]) + taken<Relu>(b[i])));
  for (int64_t i = all - inner; i < all; i++) out[inner + i] = scale * (taken<Relu>(a[i]) + taken<Relu>(b[i]));
}

template <bool Relu>
void widen_plane(const GcBoxes& j, const float* in, float* out) {
  const int64_t row = j.width * j.inner, wide = row + j.inner;
  widen_edge<Relu>(in, j.width, j.inner, j.scale, out);
  for (int64_t y = 1; y < j.height; y++) widen<Relu>(in + (y - 1) * row, in + y * row, j.width, j.inner, j.scale, out + y * wide);
  widen_edge<Relu>(in + (j.height - 1) * row, j.width, j.inner, j.scale, out + j.height * wide);
}

void narrow_plane(const GcBoxes& j, const float* in, const float* gate, float* out) {
  const int64_t row = j.width * j.inner, less = row - j.inner;
  for (int64_t y = 0; y + 1 < j.height; y++, out += less) {
    const float *a = in + y * row, *b = a + row;
    if (gate == nullptr) {
      for (int64_t i = 0; i < less; i++) out[i] = j.scale * ((a[i] + a[i + j.inner]) + (b[i] + b[i + j.inner]));
    } else {
      int64_t i = 0;
      for (; i + 4 <= less; i += 4) {
        const auto at = [i](const float* p) { return *reinterpret_cast<const v4*>(p + i); };
        const v4 v = j.scale * ((at(a) + at(a + j.inner)) + (at(b) + at(b + j.inner)));
        const v4 none = {};
        *reinterpret_cast<v4*>(out + i) = at(gate) <= none ? none : v;
      }
      for (; i < less; i++) {
        const float v = j.scale * ((a[i] + a[i + j.inner]) + (b[i] + b[i + j.inner]));
        out[i] = gate[i] <= 0.0f ? 0.0f : v;
      }
      gate += less;
    }
  }
}

}  // namespace

int32_t run_boxes(const GcBoxes& j) {
  if (j.height < (j.widen ? 1 : 2) || j.width < (j.widen ? 1 : 2) || j.threads < 1) return GC_BAD_ARGUMENT;
  const int64_t here = j.height * j.width * j.inner;
  const int64_t there = j.widen ? (j.height + 1) * (j.width + 1) * j.inner : (j.height - 1) * (j.width - 1) * j.inner;
  const int64_t worth = std::min(j.planes, 1 + j.planes * here / 500000);  // none gets less than about 0.1 ms
  Team team(static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(j.threads, worth))));
  team.run([&](int32_t) {
    team.each(j.planes, [&](int64_t c) {
      if (!j.widen)
        narrow_plane(j, j.x + c * here, j.gate == nullptr ? nullptr : j.gate + c * there, j.out + c * there);
      else if (j.relu)
        widen_plane<true>(j, j.x + c * here, j.out + c * there);
      else
        widen_plane<false>(j, j.x + c * here, j.out + c * there);
    });
  });
  return GC_OK;
}

}  // namespace gc
