// Where the packed rows and columns of a tile come from: padding, borders, upsampling and strips, in one table per axis.
#pragma once
#include <cstdint>
#include <vector>

#include "isa.h"

namespace gc {

struct Plan;

enum Border : int32_t { kZeros = 0, kReflect = 1, kReplicate = 2 };

// One axis of what a convolution reads.
struct AxisShape {
  int32_t size;   // pixels in memory, of the whole image
  int32_t strip;  // of these, what one lane holds; `size` unless the axis is split
  int32_t lanes;  // that share the image; 1 unless the axis is split
  int32_t up;     // 1: every pixel counts as two
  Border border;
};

class Axis {
 public:
  // Positions first, first + 1, .. of the (upsampled) strip of every lane, counted from its start.
  Axis(const AxisShape& shape, int32_t first, int32_t count);
  Lines lines() const { return {lines_.data(), masks_.data(), places_.data(), plain0_, plain1_}; }

 private:
  std::vector<Line> lines_;
  std::vector<int32_t> masks_;
  std::vector<LanePlace> places_;
  int32_t plain0_ = 0, plain1_ = 0;
};

// The axes of a plan's input: all positions that the tiles of an output of h x w (of one strip) read.
Axis rows_of(const Plan& plan, const AxisShape& shape, int32_t h);
Axis columns_of(const Plan& plan, const AxisShape& shape, int32_t w);

}  // namespace gc
