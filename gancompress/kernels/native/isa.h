// What one translation unit per instruction set offers to the drivers. No standard library templates may be used by
// those units: a template instantiated there could be the copy that the linker keeps, and would need the wide machine.
#pragma once
#include <stdint.h>

namespace gc {

struct Plan;

// A run of the tiles of one block of 16 images, whose values lie side by side, 64-byte aligned; strides are in floats.
struct TileJob {
  const Plan* plan;
  const float* value;  // one per entry
  const float* in;
  int64_t in_c, in_y, in_x;
  int32_t hi, wi, up;  // size in memory; read as (hi << up) x (wi << up), nearest
  float* out;
  int64_t out_c, out_y, out_x;
  int32_t ho, wo;
  int32_t out_y0;  // the output row at which `out` begins
  const float* scale;  // per input channel: in = scale*in + shift
  const float* shift;
  int32_t per_image;  // 1: scale and shift are [channel][16], one for every image (flat: of this image)
  int32_t pre_relu;
  const float* bias;
  const float* add;
  int64_t add_c, add_y, add_x;
  int32_t add_up;
  const float* gate;  // or null: the result is 0 where this, shaped like it, is 0 or less (a gradient through a ReLU)
  int64_t gate_c, gate_y, gate_x;
  int32_t relu;
  int32_t lanes;           // images that count, 1..16
  int32_t tile0, tile1;    // rows of tiles to do
  int32_t row0, row1;      // rows of the plan to do
  float* packed;           // plan->chunk * packed_positions * lanes of this ISA
  float* acc;              // rows * th * tw * lanes of this ISA; unused with one chunk
  float* check;            // [16]: 0 times all that was read of `in` is added; not a number when anything was not finite
};

struct Isa {
  const char* name;
  int32_t lanes;      // floats in a vector
  int32_t registers;  // vector registers
  bool (*supported)();
  void (*conv)(const TileJob& job);
  // One image [channel][y][x] with pixels in the lanes; the plan is flat, `packed` holds the whole input and a tail of
  // kFlatVectors vectors and a row, `acc` rows * kFlatVectors vectors.
  void (*conv_flat)(const TileJob& job);
  // Adds to sums [entry][lanes] the products of the input and of `gradient` (shaped like the output of a direct plan),
  // for one chunk and for the rows and tiles of the job.
  void (*weight_gradient)(const TileJob& job, const float* gradient, int32_t chunk, float* sums);
  // [lane][count] (lane_stride apart) <-> [count][16] (position_stride apart).
  void (*to_blocked)(const float* src, int64_t lane_stride, int32_t lanes, int64_t count, float* dst, int64_t position_stride);
  void (*from_blocked)(const float* src, int64_t position_stride, int64_t count, float* dst, int64_t lane_stride, int32_t lanes);
};

extern const Isa isa_baseline;
#if defined(__x86_64__) || defined(__i386__)
extern const Isa isa_avx2;
extern const Isa isa_avx512;
#endif

}  // namespace gc
