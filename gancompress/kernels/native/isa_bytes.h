// What one translation unit per instruction set offers for values in bytes; as in isa.h, no standard library templates.
//
// Bytes lie like floats: a 32-bit word holds those of four consecutive channels, so a map [channel][y][x][lane] of C
// channels becomes one of C/4 planes of words. A convolution multiplies a word of bytes by a word of int8 weights.
// Sums are exact, and all float arithmetic is one rounded operation after the other, never a fused multiply-add: every
// instruction set gives the same numbers.
#pragma once
#include <stdint.h>

#include "isa.h"

namespace gc {

constexpr int kMostViews = 3;
constexpr int kInWord = 4;  // bytes of a word

// Bytes that are written: clamp(rint(act(v*scale + shift) * inverse) + zero, 0, 255).
struct View {
  int32_t* data;
  int64_t c, y, x;  // in words; c of a plane
  float inverse;
  int32_t zero;
  const float* scale;  // per channel, or null
  const float* shift;
  int32_t per_image;   // 1: scale and shift are [channel][16]
  Activation act;
};

// Of TileJob it takes the input (words of bytes), the output (null: not wanted), addends, activation, tiles and memory.
struct ByteJob : TileJob {
  int32_t blocks;           // rows that share their entries: 1, 2 or 4; kLanes where they are in the lanes or in tiles
  int32_t so_y, so_x;       // of the output, a pixel shuffle included
  const int32_t* ptr;       // [chunks][rows + 1] into off: entries of a row, those that go in pairs first
  const int32_t* single;    // [chunks][rows]: where those begin that go alone
  const int32_t* off;
  const int32_t* words;     // four weights for every one of the rows of the block; in tiles [kLanes rows][kLanes entries]
  const int32_t* start;     // [rows * blocks]: what sums begin at
  const float* factor;      // per row of the dense weight
  const float* shifts;      // per row and phase
  uint32_t fill;            // the word that stands around a map
  View views[kMostViews];
  int32_t view_count;
};

// Of MapJob it takes the sizes and addends, or `in`.
struct ByteMapJob : MapJob {
  View view;
};

// A linear layer: out [image][output] = bias + the products in the order of the inputs.
struct LinearJob {
  const float* x;       // [images][inputs]
  const float* weight;  // [tiles of kLanes outputs][inputs][kLanes], zeros behind the last output
  const float* bias;    // as many as the tiles have
  float* out;
  int64_t images, inputs, outputs;
};

struct ByteKernels {
  // How the kernels sum: products of pairs are added up in 16 bits, so that weights must be given in words (and pairs of
  // words) whose sums fit.
  bool halves;
  int32_t blocks;  // the most rows that are taken together
  int32_t flat_blocks;  // the same, of one image with its pixels in the lanes
  // 128 where bytes are read as signed ones, so that sums begin at 128 times the weights
  int32_t offset;
  const char* instructions;  // that multiply
  void (*conv)(const ByteJob& job);
  void (*conv_flat)(const ByteJob& job);
  void (*conv_lanes)(const ByteJob& job);
  void (*quantize)(const ByteMapJob& job);  // floats to bytes
  void (*sum)(const MapJob& job);           // of maps of both kinds
  void (*linear)(const LinearJob& job);
  void (*tanh)(const float* x, int64_t count, float* out);
};

extern const ByteKernels bytes_baseline;
#if defined(__aarch64__) && !defined(_MSC_VER)
#define GC_HAS_DOTPROD
extern const ByteKernels bytes_dotprod;
#endif
#if defined(__x86_64__) || defined(__i386__)
extern const ByteKernels bytes_avx2;
extern const ByteKernels bytes_avx512;
extern const ByteKernels bytes_avx512vnni;
#if defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11
#define GC_HAS_AVXVNNI
extern const ByteKernels bytes_avxvnni;
#endif
#if defined(__x86_64__) && defined(__linux__) && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define GC_HAS_AMX
extern const ByteKernels bytes_amx;
#endif
#endif

}  // namespace gc
