// The C interface, called through ctypes. It mirrors gancompress/kernels/native_library.py; raise GC_ABI on any change.
#pragma once
#include <stdint.h>

#if defined(_WIN32)
#define GC_EXPORT extern "C" __declspec(dllexport)
#else
#define GC_EXPORT extern "C" __attribute__((visibility("default")))
#endif

constexpr int32_t GC_ABI = 6;

enum GcStatus : int32_t { GC_OK = 0, GC_NOT_FINITE = 1, GC_BAD_ARGUMENT = 2, GC_NO_MEMORY = 3 };

// How tensors lie in memory.
enum GcLayout : int32_t {
  GC_IMAGES = 0,      // [N][C][H][W]
  GC_POINTS = 1,      // [N][C], for linear layers
  GC_BATCH_LAST = 2,  // [C][H][W][N], N a multiple of 16, 64-byte aligned
};

struct GcConv {
  const void* plan;
  const float* weight;  // dense; only kept positions are read
  const float* x;
  const float* bias;   // or null
  float* out;
  int64_t batch;
  int32_t hi, wi, ho, wo;
  int32_t layout_x, layout_out;
  int32_t pre_relu;  // 1: take relu(x)
  int32_t threads;
};

// Both gradients of a layer, which share the layout change of `gradient`.
struct GcBackward {
  const void* plan_x;   // the plan of for_x: phased, or direct when the layer is transposed
  const void* plan_weight;
  const float* weight;  // dense
  const float* x;
  const float* gradient;
  float* for_x;       // or null
  float* for_weight;  // or null; dense, zero off the mask
  int64_t batch;
  int32_t hi, wi, ho, wo;  // of x and of gradient
  int32_t layout_x;        // of x and for_x
  int32_t layout_gradient;
  int32_t transpose;       // 1: the layer is a transposed convolution
  int32_t pre_relu;        // 1: the layer takes relu(x); x and for_x are before it. Not transposed
  int32_t threads;
};

// Scaled sums of 2x2 boxes at every position. x is [planes][height][width][inner]: [N*C] and 1, [N] and C (channels
// last) or [C] and N (batch last). Widening, zeros stand around it: out is one larger both ways, else one smaller.
struct GcBoxes {
  const float* x;
  const float* gate;  // or null: the result is 0 where this, shaped like it, is 0 or less. Not when widening
  float* out;
  int64_t planes, height, width, inner;
  float scale;
  int32_t widen;
  int32_t relu;  // 1: take relu(x). Only when widening
  int32_t threads;
};

// One convolution of a program; pointers to floats are copied from, arenas are numbers.
struct GcStep {
  const void* plan;
  const float* weight;  // dense
  const float* bias;    // or null
  const float* scale;   // or null, with shift: per input channel
  const float* shift;
  int32_t src, dst, add;  // arenas; add < 0: none
  int32_t hi, wi, ho, wo;
  int32_t up;  // 1: the input is read as if upsampled x2 (nearest)
  int32_t pre_relu, relu, add_up;
  int32_t affine;  // >= 0: scale and shift are those of this affine of the run, one for every image
};

// x: [N][in_count] into arena `in`; out: [N][out_count] from arena `from`.
struct GcRun {
  const float* x;
  float* out;
  const float* const* affines;  // each [N][2][input channels of the steps that use it]: scale, shift
  int64_t in_count, out_count, batch;
  int32_t in, from, affine_count, threads;
};
