// The C interface, called through ctypes. It mirrors gancompress/kernels/native_library.py; raise GC_ABI on any change.
#pragma once
#include <stdint.h>

#if defined(_WIN32)
#define GC_EXPORT extern "C" __declspec(dllexport)
#else
#define GC_EXPORT extern "C" __attribute__((visibility("default")))
#endif

constexpr int32_t GC_ABI = 14;

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
  int32_t bf16;            // 1: of the weight gradient, products of numbers rounded to bf16. plan_x says it by its pairs
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

// The filter [1, 3, 3, 1] in both directions times `scale`, on x [planes][height][width][inner] as for GcBoxes: `kind` 0 keeps
// the size but for `padding` (1 or 2: 2 * padding - 3 are added), 1 doubles it (zeros between the pixels), 2 halves an even one.
struct GcFilter {
  const float* x;
  float* out;
  int64_t planes, height, width, inner;
  float scale;
  int32_t kind, padding, isa, threads;
};

// What stands between two convolutions, on maps batch last: filter(leaky(gain * filter(x) + bias + strength * noise)) + beside,
// in one pass; a filter is [1, 3, 3, 1] / 8 both ways with that much padding, and one of the two at most is there.
// Of its gradient `out` is towards x. `gate` says by its sign which side of the leaky ReLU was taken: the result, where nothing
// comes after it, else x, where nothing comes before it.
struct GcStyle {
  const float *x, *gate, *gradient;  // the latter two only of a gradient
  const float* noise;                // or null: [height][width][batch], of the map that it is added to
  const float* beside;               // or null: as the result
  const float* gain;                 // or null: [channels][batch]
  const float* bias;                 // or null: [channels]
  float* out;
  float* for_gain;                   // or null: [channels][batch]
  float* sums;                       // or null: [channels][2], the gradients towards bias and strength
  int64_t channels, height, width, batch;  // of x
  float strength, slope;                   // a slope of 1: no ReLU
  int32_t before, after;                   // padding, 0: there is no filter
  int32_t isa, threads;
};

// How the images of a program lie: 16 of them side by side, or one: pixel after pixel, or cut along rows or columns into as
// many strips as a vector has lanes, which lie side by side.
enum GcMode : int32_t { GC_BATCH = 0, GC_FLAT = 1, GC_ROWS = 2, GC_COLUMNS = 3 };

struct GcValue {
  int32_t arena;  // -1: it is not written
  int32_t channels, h, w;
  int32_t strip_h, strip_w;  // of what one lane holds: h and w, but on the axis that is cut
  int32_t bytes, zero;       // 1: held in bytes, four channels in a word: unit * (byte - zero)
  float unit;
};

struct GcProgram {
  const GcValue* values;  // the inputs first
  int32_t mode, value_count;
};

struct GcAddend {
  int32_t value;
  float factor;
  int32_t up;  // nearest upsampling
};

// Bytes that a step writes of its result: those of activation(result * scale + shift).
struct GcView {
  const float* scale;   // or null: per channel
  const float* shift;
  const float* slopes;  // per channel, where `activation` says so
  int32_t value, affine, activation;
  float inverse;  // of the value's unit
};

// One step of a program; pointers are copied from. A convolution has a plan, a norm has groups, a sum has addends; with
// none of them, bytes are made of the source.
struct GcStep {
  const void* plan;     // of bytes: of the mask of words, [rows / blocks][words of channels]
  const void* weight;   // dense floats; of bytes, words of four weights for every position of the plan's mask and row of a block
  const float* bias;    // or null; of a norm too, with its gains in `scale`
  const float* scale;   // or null, with shift: per input channel. Of bytes, what sums are multiplied by, per row, then
  const float* shift;   // added to, per row and phase of a transposed convolution
  const float* pre_slopes;  // per input channel, where `pre` says so
  const float* slopes;      // per output channel, where `activation` says so
  const int32_t* sources;   // values, read as if concatenated along channels
  const GcAddend* add;
  const GcView* views;
  int32_t source_count, add_count, view_count;
  int32_t dst;
  int32_t written;          // 0: only the views of the result are wanted
  int32_t up;               // 1: the input is read as if upsampled x2 (nearest)
  int32_t border;           // 0 zeros, 1 reflect, 2 replicate
  int32_t pre, activation;  // 0 none, 1 ReLU, 2 slopes, 3 tanh, 4 sigmoid, 5 x * sigmoid(x); `pre` is not 4
  int32_t affine;           // >= 0: scale and shift are those of this affine of the run, one for every image
  int32_t groups;
  int32_t blocks, shuffle;  // of bytes: rows that share their words, and the factor of the pixel shuffle
  float eps;
};

// Inputs and outputs are [N][floats of the value]; affines [N][2][input channels of the steps that use it]: scale, shift.
struct GcRun {
  const float* const* inputs;
  float* const* outputs;
  const float* const* affines;
  const int32_t* output_values;
  int64_t batch;
  int32_t input_count, output_count, affine_count, threads;
};
