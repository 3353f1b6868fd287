// What one translation unit per instruction set offers to the drivers. No standard library templates may be used by
// those units: a template instantiated there could be the copy that the linker keeps, and would need the wide machine.
#pragma once
#include <stdint.h>

namespace gc {

struct Plan;

constexpr int kLanes = 16;  // images side by side in memory; an ISA with narrower vectors takes them in groups
constexpr int kMostAddends = 3;
// In a web page, programs alone run, on one thread: what only training needs, and what is large for one pattern, is not there.
#if defined(GC_WEB)
constexpr bool kTrains = false;
#else
constexpr bool kTrains = true;
#endif

// One packed row or column.
struct Line {
  int32_t at;      // which row or column in memory, -1: zeros
  int32_t shift;   // it is of that many lanes further on
  int32_t mask;    // where the mask of the lanes that exist begins, -1: all do
  int32_t places;  // where the places of every lane begin, -1: they are `at` and `shift`
};
struct LanePlace {
  int32_t at, lane;
};
// Of one axis (see axis.h); lines plain0..plain1 are pixel after pixel of the lane's own.
struct Lines {
  const Line* line;
  const int32_t* masks;
  const LanePlace* places;
  int32_t plain0, plain1;
};

enum ActivationKind : int32_t { kNone = 0, kRelu = 1, kSlopes = 2, kTanh = 3, kSigmoid = 4, kSilu = 5 };
struct Activation {
  int32_t kind;
  const float* slopes;  // per channel: what negative numbers are multiplied by
};

struct Added {
  const float* data;
  int64_t c, y, x;
  float factor;
  int32_t up;  // every pixel counts as so many by so many
  int32_t bytes;  // 1: `data` are words of bytes (see isa_bytes.h): unit * (byte - zero)
  int32_t zero;
  float unit;
};

// A run of the tiles of one block of 16 images, whose values lie side by side, 64-byte aligned; strides are in floats.
struct TileJob {
  const Plan* plan;
  const float* value;  // one per entry
  const float* in;
  int64_t in_c, in_y, in_x;
  const float* const* planes;  // null, or where every channel lies, in place of in and in_c
  Lines rows, columns;         // where packed positions come from
  int32_t hi, wi, up;          // size in memory; read as (hi << up) x (wi << up), nearest
  float* out;
  int64_t out_c, out_y, out_x;
  int32_t ho, wo;
  int32_t out_y0;  // the output row at which `out` begins
  const float* scale;  // per input channel: in = scale*in + shift
  const float* shift;
  int32_t per_image;  // 1: scale and shift are [channel][16], one for every image (flat: of this image)
  Activation pre;
  const float* bias;
  Added add[kMostAddends];
  int32_t added;
  const float* gate;  // or null: the result is 0 where this, shaped like it, is 0 or less (a gradient through a ReLU)
  int64_t gate_c, gate_y, gate_x;
  Activation act;
  int32_t lanes;           // images that count, 1..16
  int32_t tile0, tile1;    // rows of regions to do
  int32_t row0, row1;      // rows of the plan to do
  float* packed;           // plan->chunk * packed_positions * as many lanes as count, whole vectors of them
  float* acc;              // rows * region * the same; of one chunk, unused but by weight gradients
  float* check;            // [16]: 0 times all that was read of `in` is added; not a number when anything was not finite
  int32_t bf16;            // of a weight gradient: 1: numbers are rounded to bf16, and taken two by two along x
};

// A map [channel][y][x][pixel] for steps beside convolutions; `width` lanes of a pixel are images or strips of one.
struct MapJob {
  const float* in;     // of a norm
  float* out;
  int64_t plane, row;  // floats of a channel and of one of its rows
  int32_t channels, h, w, width;
  Added add[kMostAddends];  // of a sum
  int32_t added;
  int32_t first;            // 0: the sum goes on, from what `out` holds
  Activation act;
  int32_t groups;           // of a norm
  float eps;
  const float* gain;        // per channel, or null
  const float* bias;
  int32_t one_image;        // 1: the lanes are strips of one image, or its neighbouring pixels (width 1)
  int32_t strip_y, strip_x, whole_h, whole_w;  // of strips: where a lane begins is lane * strip; what lies past the whole does not count
};

// The filter [1, 3, 3, 1] in both directions, times `scale`, on one plane [h][w][inner].
enum FilterKind : int32_t { kSame = 0, kUp = 1, kDown = 2 };
struct FilterJob {
  const float* x;
  float* out;
  int64_t h, w, inner;
  int32_t kind;
  int32_t padding;  // zeros around it, 1 or 2, where the size stays; else 1 by the kind
  float scale;
  float* rows;      // filter_rows floats
};
// One channel of a map, [h][w][n], between convolutions: see GcStyle.
struct StyleJob {
  const float *x, *gate, *gradient, *noise, *beside, *gain;
  float bias, strength, slope;
  int32_t before, after;
  int64_t h, w, n;
  float* out;
  double* for_gain;  // [n]
  double* sums;      // [2]
  float* rows;       // filter_rows floats
};
// Rows that jobs need for themselves: one filtered, with zeros beside it, one of zeros, and five that are in work.
inline int64_t filter_rows(int64_t w, int64_t inner) { return 7 * (w + 8) * inner + 64; }

struct ByteKernels;

struct Isa {
  const char* name;
  int32_t lanes;      // floats in a vector
  int32_t registers;  // vector registers
  bool (*supported)();
  void (*conv)(const TileJob& job);
  // One image [channel][y][x] with pixels in the lanes; the plan is flat, `packed` holds the whole input and a tail of
  // kFlatVectors vectors and a row, `acc` rows * kFlatVectors vectors.
  void (*conv_flat)(const TileJob& job);
  // One image with kLanes outputs in the lanes; the plan is of blocks, `value` holds kLanes floats an entry, `packed` a
  // region and the whole input as whole regions need it, `acc` all outputs of a row of regions.
  void (*conv_lanes)(const TileJob& job);
  // Adds to sums [entry] the products of the input and of `gradient` (shaped like the output of a direct plan),
  // for some chunks and for the rows and tiles of the job.
  void (*weight_gradient)(const TileJob& job, const float* gradient, int32_t chunk0, int32_t chunk1, float* sums);
  void (*sum)(const MapJob& job);
  void (*norm)(const MapJob& job);
  void (*filter)(const FilterJob& job);
  void (*style)(const StyleJob& job);
  void (*style_gradient)(const StyleJob& job);
  // The sum of `count` floats that lie side by side.
  double (*total)(const float* x, int64_t count);
  // [lane][count] (lane_stride apart) <-> [count][width] (position_stride apart). Lanes past `lanes` become zeros.
  void (*to_blocked)(const float* src, int64_t lane_stride, int32_t lanes, int64_t count, float* dst, int64_t position_stride, int32_t width);
  void (*from_blocked)(const float* src, int64_t position_stride, int64_t count, float* dst, int64_t lane_stride, int32_t lanes);
  // What multiplies two bf16 by two and adds up in float32; null where plans in pairs cannot run.
  const char* (*pairs)();
  const ByteKernels* bytes;  // set where instruction sets are listed, in api.cpp
};

extern const Isa isa_baseline;
#if defined(__x86_64__) || defined(__i386__)
extern const Isa isa_avx2;
extern const Isa isa_avx512;
#endif

}  // namespace gc
