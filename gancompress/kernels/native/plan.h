// A plan: the index structure of one sparse convolution, built once per mask and tile.
//
// Every convolution here, and every input gradient, has the same "gather" form:
//
//     out[r, so*Y + oy, so*X + ox] = sum over entries e of row (r, oy, ox):  value[e] * in[c_e, si*Y + dy_e, si*X + dx_e]
//
//   direct:  so = 1, si = stride, d = k*dilation - padding               (convolution; input gradient of a transposed one)
//   phased:  so = stride, si = 1, d = (o + padding - k*dilation)/stride  (transposed convolution; input gradient of a plain one)
//
// so and si are apart for rows and columns. A direct plan whose result is pixel-shuffled has so = the factor: the dense
// rows (r*so + oy)*so + ox are the phases. Of groups, the entries between different ones do not exist.
//
// The innermost loop therefore exists once. It works on a packed region: for a chunk of input channels, the pixels that
// GY x GX register tiles of TH x TW outputs need, already strided, padded and (optionally) upsampled.
#pragma once
#include <stdint.h>

#include "isa.h"

namespace gc {

constexpr int kLargestStride = 16;
constexpr int kFlatVectors = 16;  // accumulators of the flat kernel
constexpr int kGroup = 8;         // most entries that a weight gradient takes at a time

// kWeights: a direct plan that only weight gradients use.
enum Kind : int32_t { kDirect = 0, kPhased = 1, kWeights = 2 };

struct Plan {
  const Isa* isa = nullptr;
  Kind kind = kDirect;
  int32_t dim0 = 0, dim1 = 0, kh = 0, kw = 0;  // the dense weight, in blocks
  int32_t block = 1;                           // output channels of a row; kLanes where they are in the lanes
  int32_t out_channels = 0, in_channels = 0;   // of this direction, after a shuffle
  int32_t so_y = 1, so_x = 1, si_y = 1, si_x = 1;
  int32_t rows_of_bias = 1;      // rows that share an element of the bias
  int32_t pairs = 1;             // 2: two input channels of the dense weight are one here, a word of two bf16
  bool twins = false;            // of pairs, and flat in float32: output channels 2i and 2i+1 have the same entries, and share what they read
  int32_t unit = 1;              // floats per packed position: the lanes of the ISA, or 1 for one image
  int32_t th = 1, tw = 1;        // register tile (flat: the whole grid), in positions of the output grid
  int32_t gy = 1, gx = 1;        // tiles of a packed region
  int32_t chunk = 0, chunks = 0; // input channels packed at a time
  int32_t dy0 = 0, dx0 = 0;      // smallest offsets
  int32_t nphy = 1, nphx = 1;    // input phases kept apart in the packed region, so that columns stay adjacent
  int32_t ph = 0, pw = 0;        // rows and columns of each phase
  int32_t rows = 0;              // out_channels * so_y * so_x; row = (channel*so_y + oy)*so_x + ox
  int64_t entries = 0;
  int64_t packed_positions = 0;  // of one channel
  const int32_t* ptr = nullptr;  // [chunks][rows + 1] into the entries; of kWeights [chunks][kGroup + 1], see below
  const int32_t* off = nullptr;  // where the entry's first pixel lies in the packed region, in floats
  const int32_t* src = nullptr;  // index of the entry in the dense weight
  // Of kWeights, the entries of a chunk stand in groups of kGroup, kGroup - 1, .. 1 of one row, each size row after row:
  // loops over groups of one size are foreseen.
  const int32_t* group_row = nullptr;    // the row of every group
  const int32_t* first_group = nullptr;  // [chunks]

  int32_t phases() const { return so_y * so_x; }
};

// The plan as if one tile were all regions of an output of h x w.
inline Plan whole_image(const Plan& p, int32_t h, int32_t w) {
  Plan whole = p;
  const auto round_up = [](int32_t size, int32_t of) { return (size + of - 1) / of * of; };
  whole.th = round_up((h + p.so_y - 1) / p.so_y, p.th * p.gy), whole.tw = round_up((w + p.so_x - 1) / p.so_x, p.tw * p.gx);
  whole.gy = whole.gx = 1;
  whole.ph = whole.th + p.ph - p.th * p.gy, whole.pw = whole.tw + p.pw - p.tw * p.gx;
  whole.packed_positions = static_cast<int64_t>(p.nphy) * whole.ph * p.nphx * whole.pw;
  return whole;
}

// Floats of one output of a row of regions: as wide as what is packed, in whole vectors.
inline int64_t lanes_pitch(const Plan& p, const Plan& whole) {
  return (static_cast<int64_t>(p.th) * p.gy * whole.nphx * whole.pw + kLanes - 1) / kLanes * kLanes;
}

struct PlanShape {
  int32_t kind, dim0, dim1, kh, kw, stride_y, stride_x, top, left, dilation_y, dilation_x, groups;
  int32_t shuffle;         // of a direct plan: the factor of the pixel shuffle behind it
  int32_t flat;            // 1: for one image with pixels in the lanes; the tile is then the whole grid
  int32_t grid_h, grid_w;  // positions of one output phase: chooses the tile
  int32_t tile_h, tile_w, tiles_y, tiles_x, chunk;  // 0: choose
  int32_t blocks;          // rows that share every entry, whose sums are kept side by side
  int32_t in_lanes;        // 1: for one image with kLanes outputs in the lanes; the mask is of blocks of so many
  int32_t pairs;           // 2: the mask is of pairs of input channels, 1: of single ones
};

// Returns null when the shape is outside what the kernels take.
Plan* make_plan(const uint8_t* mask, const PlanShape& shape, const Isa* isa);
void free_plan(Plan* plan);

}  // namespace gc
