// A planned network, and what its steps share; see program.cpp.
#pragma once
#include <cstring>
#include <memory>
#include <vector>

#include "driver.h"
#include "isa_bytes.h"

namespace gc {

// The weights of a convolution of bytes, laid out for its kernels: see ByteJob.
struct Words {
  int32_t blocks, shuffle;
  std::vector<int32_t> ptr, single, off, words, start;
};

// Bytes of a step's result.
struct ViewOf {
  GcView at;
  std::vector<float> scale, shift, slopes;
};

struct Step {
  GcStep at;
  const Plan* plan;  // null: no convolution
  std::vector<float> value, bias, scale, shift, pre_slopes, slopes;
  std::vector<int32_t> sources;
  std::vector<GcAddend> add;
  std::unique_ptr<Axes> axes;
  std::unique_ptr<const Words> words;  // of a convolution of bytes
  std::vector<ViewOf> views;
};

struct Program {
  const Isa* isa;
  int32_t mode;
  int32_t width;  // lanes of a pixel
  std::vector<GcValue> values;
  std::vector<int64_t> arenas;  // floats
  std::vector<Step> steps;
  int64_t packed = 0, acc = 0, affine = 0, planes = 0;  // the most that a step needs
  int32_t affines = 0;

};

// What one thread works in. Strips are read past their ends, so arenas have room around them.
struct Memory {
  std::vector<std::unique_ptr<Scratch>> arenas;
  Scratch packed, acc, affine, check;
  std::vector<const float*> planes;
  explicit Memory(const Program& g) : packed(g.packed), acc(g.acc), affine(g.affine * g.width), check(kLanes), planes(g.planes) {
    for (int64_t floats : g.arenas) arenas.push_back(std::make_unique<Scratch>(floats + 2 * kLanes));
    std::memset(check.data(), 0, kLanes * sizeof(float));
  }
  float* arena(int32_t i) const { return arenas[i]->data() + kLanes; }
};

// Floats from a channel to the next. Tiles read the same place of many channels: a power of two between them would bring
// all to the same few places of a cache. kSpread lines past a multiple of a page, they spread over all.
inline int64_t plane_of(const Program& g, const GcValue& v) {
  constexpr int64_t kPage = 1024, kSpread = 9 * 16;
  const int64_t floats = static_cast<int64_t>(v.strip_h) * v.strip_w * g.width;
  return g.mode == GC_FLAT || floats < kPage ? floats : ceil_div(floats - kSpread, kPage) * kPage + kSpread;
}

// Planes of words.
inline int32_t planes_of(const GcValue& v) { return v.bytes ? (v.channels + kInWord - 1) / kInWord : v.channels; }

inline Place place_of(const Program& g, const Memory& own, int32_t value) {
  const GcValue& v = g.values[value];
  const int64_t x = g.width, y = x * v.strip_w;
  return {own.arena(v.arena), plane_of(g, v), y, x};
}

inline Added added(const Program& g, const Memory& own, const GcAddend& add) {
  const Place at = place_of(g, own, add.value);
  const GcValue& v = g.values[add.value];
  return {at.data, at.c, at.y, at.x, add.factor, add.up, v.bytes, v.zero, v.unit};
}

inline Activation activation(int32_t kind, const std::vector<float>& slopes) { return {kind, slopes.data()}; }

// Of program_bytes.cpp: all that has to do with values in bytes.
std::unique_ptr<const Words> words_of(const Plan& plan, const GcStep& at, const ByteKernels& kernels);
void run_conv_of_bytes(const Program& g, const Step& s, Memory& own, const GcRun& a, int64_t n, int32_t lanes);
void run_quantize(const Program& g, const Step& s, Memory& own, const GcRun& a, int64_t n, int32_t lanes);
bool add_views(Program& g, Step& s);

// A convolution's job, but for what is computed before and after the sums.
TileJob conv_job(const Program& g, const Step& s, Memory& own);

inline std::vector<float> copied(const float* from, int64_t count) { return from == nullptr ? std::vector<float>() : std::vector<float>(from, from + count); }

}  // namespace gc
