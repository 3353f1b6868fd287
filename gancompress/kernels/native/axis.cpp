#include "axis.h"

#include <algorithm>

#include "plan.h"

namespace gc {
namespace {

// The pixel that stands at position `at` of an axis of `size` pixels, -1 for a zero. Positions that no border reaches,
// which only results that are dropped read, come out as any pixel.
int32_t bordered(int32_t at, int32_t size, Border border) {
  if (at >= 0 && at < size) return at;
  if (border == kZeros) return -1;
  if (border == kReflect) at = at < 0 ? -at : 2 * (size - 1) - at;
  return std::min(std::max(at, 0), size - 1);
}

int32_t floor_div(int32_t a, int32_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

Axis axis_of(const AxisShape& shape, int32_t first, int32_t so, int32_t si, int32_t region, int32_t packed, int32_t out) {
  const int32_t regions = ((out + so - 1) / so + region - 1) / region;
  return Axis(shape, first, si * ((regions - 1) * region + packed));
}

}  // namespace

Axis::Axis(const AxisShape& s, int32_t first, int32_t count) {
  const int32_t whole = s.size << s.up, own = s.strip << s.up;
  for (int32_t i = 0; i < count; i++) {
    const int32_t at = first + i;
    Line line{-1, 0, -1, -1};
    if (s.lanes == 1) {
      const int32_t from = bordered(at, whole, s.border);
      line.at = from < 0 ? -1 : from >> s.up;
    } else {
      int32_t inside[kLanes], any = 0, all = 1;
      for (int32_t lane = 0; lane < kLanes; lane++) {
        const int32_t here = lane * own + at;
        inside[lane] = lane < s.lanes && here >= 0 && here < whole ? -1 : 0;
        any |= inside[lane];
        if (lane < s.lanes) all &= inside[lane] & 1;
      }
      if (s.border != kZeros && !all) {
        line.places = static_cast<int32_t>(places_.size());
        for (int32_t lane = 0; lane < kLanes; lane++) {
          const int32_t from = bordered(lane * own + at, whole, s.border) >> s.up;
          places_.push_back({from % s.strip, from / s.strip});
        }
        line.at = 0;
      } else if (any) {
        const int32_t from = floor_div(at, 1 << s.up);
        line.shift = floor_div(from, s.strip);
        line.at = from - line.shift * s.strip;
        if (!all) {
          line.mask = static_cast<int32_t>(masks_.size());
          masks_.insert(masks_.end(), inside, inside + kLanes);
        }
      }
    }
    lines_.push_back(line);
    const bool plain = line.at >= 0 && at >= 0 && at < own && line.shift == 0 && line.mask < 0 && line.places < 0;
    if (plain && plain1_ == plain0_) plain0_ = i, plain1_ = i + 1;  // the first run of plain ones
    else if (plain && plain1_ == i) plain1_ = i + 1;
  }
}

Axis rows_of(const Plan& p, const AxisShape& shape, int32_t h) { return axis_of(shape, p.dy0, p.so_y, p.si_y, p.th * p.gy, p.ph, h); }
Axis columns_of(const Plan& p, const AxisShape& shape, int32_t w) { return axis_of(shape, p.dx0, p.so_x, p.si_x, p.tw * p.gx, p.pw, w); }

}  // namespace gc
