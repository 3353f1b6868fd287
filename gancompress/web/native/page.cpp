// What a web page calls: programs from flat lists of numbers, run on one thread, and BLAKE2b. It is built to WebAssembly
// together with the kernels that it drives (see ../build.py); generator.js is its only caller.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "driver.h"
#include "isa_bytes.h"

#define WEB_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using gc::Plan;

const gc::Isa& isa() {
  static const gc::Isa with_bytes = [] {
    gc::Isa made = gc::isa_baseline;
    made.bytes = &gc::bytes_baseline;
    return made;
  }();
  return with_bytes;
}

float float_of(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A program with the plans that its steps point to.
struct Held {
  gc::Program* program = nullptr;
  int32_t mode = 0;
  std::vector<GcValue> values;
  std::vector<Plan*> plans;
  ~Held() {
    if (program != nullptr) gc::free_program(program);
    for (Plan* plan : plans) gc::free_plan(plan);
  }
};

// The numbers of a step, in the order of web/steps.py::step_numbers.
struct Numbers {
  int32_t dst, written, source_count, add_count, view_count, up, border, pre, activation, affine, groups, shuffle, eps, conv;
  int32_t bytes, transpose, dims[4], stride[2], top, left, dilation[2];
  int32_t rest[1];  // sources; value, factor and upsampling of addends; value, affine, activation and inverse of views
};
// Its tensors in memory, 0 where there is none; then scale, shift and slopes of every view.
struct Tensors {
  const void* weight;
  const uint8_t* mask;
  const float *bias, *scale, *shift, *pre_slopes, *slopes;
  const float* rest[1];
};

struct Weight {
  int32_t dims[4];
  bool transpose;
  std::vector<float> values;
  std::vector<uint8_t> mask;
};

// As kernels/upsampling.py: a 3x3 convolution of doubled pixels as a transposed 4x4 one of the small map.
Weight folded(const Weight& from) {
  const int32_t rows = from.dims[0], channels = from.dims[1];
  Weight made{{channels, rows, 4, 4}, true, std::vector<float>(static_cast<size_t>(rows) * channels * 16), std::vector<uint8_t>(static_cast<size_t>(rows) * channels * 16)};
  for (int32_t r = 0; r < rows; r++)
    for (int32_t c = 0; c < channels; c++) {
      const size_t at = (static_cast<size_t>(r) * channels + c) * 9, to = (static_cast<size_t>(c) * rows + r) * 16;
      double sums[16] = {};
      bool any = false;
      for (int32_t t = 0; t < 9; t++) {  // of few that are kept: each is in up to two rows and columns
        if (from.mask[at + t] == 0) continue;
        const int32_t k = t / 3, l = t % 3;
        for (int32_t y = std::max(0, 2 - k); y < std::min(4, 4 - k); y++)
          for (int32_t x = std::max(0, 2 - l); x < std::min(4, 4 - l); x++) sums[4 * y + x] += from.values[at + t], made.mask[to + 4 * y + x] = 1;
        any = true;
      }
      for (int32_t i = 0; any && i < 16; i++) made.values[to + i] = static_cast<float>(sums[i]);
    }
  return made;
}

// Weights of bytes as words of four inputs, for blocks of outputs (see kernels/words.py).
struct WordWeights {
  int32_t dims[4], blocks;
  std::vector<int32_t> words;
  std::vector<uint8_t> mask;
  int64_t kept = 0;
};

// The places of weights that are not 0: few, and looked for once.
std::vector<int32_t> kept_of(const int8_t* weight, const int32_t* dims) {
  std::vector<int32_t> places;
  const int32_t count = dims[0] * dims[1] * dims[2] * dims[3];
  for (int32_t i = 0; i < count; i++)
    if (weight[i] != 0) places.push_back(i);
  return places;
}

WordWeights in_words(const int8_t* weight, const std::vector<int32_t>& places, const int32_t* dims, bool transpose, int32_t blocks) {
  const int32_t outputs = dims[transpose ? 1 : 0], inputs = dims[transpose ? 0 : 1], taps = dims[2] * dims[3];
  const int32_t rows = outputs / blocks, parts = (inputs + 3) / 4;
  WordWeights made{{transpose ? parts : rows, transpose ? rows : parts, dims[2], dims[3]}, blocks, {}, {}, 0};
  made.words.assign(static_cast<size_t>(rows) * parts * taps * blocks, 0);
  made.mask.assign(static_cast<size_t>(rows) * parts * taps, 0);
  for (const int32_t place : places) {
    const int32_t t = place % taps, second = place / taps % dims[1], first = place / taps / dims[1];
    const int32_t r = transpose ? second : first, c = transpose ? first : second;
    const size_t at = (transpose ? static_cast<size_t>(c / 4) * rows + r / blocks : static_cast<size_t>(r / blocks) * parts + c / 4) * taps + t;
    made.words[at * blocks + r % blocks] |= static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint8_t>(weight[place])) << (8 * (c % 4)));
    made.kept += made.mask[at] == 0;
    made.mask[at] = 1;
  }
  return made;
}

constexpr double kMostAdded = 0.1;  // share of words, of zeros, that taking rows together may add

WordWeights words_for(const Held& held, const Numbers& n, const int8_t* weight) {
  const int32_t outputs = n.transpose ? n.dims[1] : n.dims[0] / n.groups;
  const std::vector<int32_t> places = kept_of(weight, n.dims);
  WordWeights single = in_words(weight, places, n.dims, n.transpose, 1);
  for (int32_t blocks : {4, 2}) {
    if (blocks > (held.mode == GC_FLAT ? isa().bytes->flat_blocks : isa().bytes->blocks) || outputs % blocks != 0) continue;
    WordWeights some = in_words(weight, places, n.dims, n.transpose, blocks);
    if (static_cast<double>(some.kept) * blocks <= (1 + kMostAdded) * static_cast<double>(single.kept)) return some;
  }
  return single;
}

Plan* plan_of(Held& held, const uint8_t* mask, const int32_t* dims, const Numbers& n, bool transpose, const int32_t* stride, int32_t top, int32_t left,
              int32_t shuffle, int32_t blocks, int32_t h, int32_t w) {
  gc::PlanShape s{};
  s.kind = transpose ? gc::kPhased : gc::kDirect;
  s.dim0 = dims[0], s.dim1 = dims[1], s.kh = dims[2], s.kw = dims[3];
  s.stride_y = stride[0], s.stride_x = stride[1], s.top = top, s.left = left;
  s.dilation_y = n.dilation[0], s.dilation_x = n.dilation[1], s.groups = n.groups, s.shuffle = shuffle;
  s.flat = held.mode == GC_FLAT;
  const int32_t of_y = transpose ? stride[0] : shuffle, of_x = transpose ? stride[1] : shuffle;
  s.grid_h = (h + of_y - 1) / of_y, s.grid_w = (w + of_x - 1) / of_x;
  s.blocks = blocks, s.pairs = 1;
  Plan* plan = gc::make_plan(mask, s, &isa());
  if (plan != nullptr) held.plans.push_back(plan);
  return plan;
}

int32_t add_conv(Held& held, const Numbers& n, const Tensors& t, GcStep& step) {
  const GcValue& out = held.values[n.dst];
  if (n.bytes) {
    const WordWeights words = words_for(held, n, static_cast<const int8_t*>(t.weight));
    step.plan = plan_of(held, words.mask.data(), words.dims, n, n.transpose, n.stride, n.top, n.left, 1, words.blocks, out.strip_h / n.shuffle, out.strip_w / n.shuffle);
    if (step.plan == nullptr) return GC_BAD_ARGUMENT;
    step.weight = words.words.data(), step.blocks = words.blocks, step.shuffle = n.shuffle;
    return gc::add_step(*held.program, step);
  }
  const float* weight = static_cast<const float*>(t.weight);
  Weight own{{n.dims[0], n.dims[1], n.dims[2], n.dims[3]}, n.transpose != 0, {}, {}};
  int32_t stride[2] = {n.stride[0], n.stride[1]};
  const bool plain = stride[0] == 1 && stride[1] == 1 && n.dilation[0] == 1 && n.dilation[1] == 1 && n.groups == 1 && n.shuffle == 1 && n.border == 0 && n.top == 1 && n.left == 1;
  if (n.up && plain && !own.transpose && own.dims[2] == 3 && own.dims[3] == 3 && held.mode != GC_FLAT) {
    const size_t count = static_cast<size_t>(own.dims[0]) * own.dims[1] * 9;
    own.values.assign(weight, weight + count);
    own.mask.assign(t.mask, t.mask + count);
    own = folded(own);
    weight = own.values.data();
    stride[0] = stride[1] = 2;
    step.up = 0;
  }
  const uint8_t* mask = own.mask.empty() ? t.mask : own.mask.data();
  step.plan = plan_of(held, mask, own.dims, n, own.transpose, stride, n.top, n.left, n.shuffle, 1, out.strip_h, out.strip_w);
  if (step.plan == nullptr) return GC_BAD_ARGUMENT;
  step.weight = weight;
  return gc::add_step(*held.program, step);
}

uint64_t rotated(uint64_t x, int by) { return x >> by | x << (64 - by); }

constexpr uint64_t kBlake[8] = {0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
                                0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u};
constexpr uint8_t kOrder[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

void compress(uint64_t* h, const uint8_t* block, uint64_t count, bool last) {
  uint64_t v[16], m[16];
  for (int i = 0; i < 8; i++) v[i] = h[i], v[i + 8] = kBlake[i];
  std::memcpy(m, block, sizeof m);
  v[12] ^= count;
  if (last) v[14] = ~v[14];
  const auto mix = [&](int a, int b, int c, int d, uint64_t x, uint64_t y) {
    v[a] += v[b] + x, v[d] = rotated(v[d] ^ v[a], 32), v[c] += v[d], v[b] = rotated(v[b] ^ v[c], 24);
    v[a] += v[b] + y, v[d] = rotated(v[d] ^ v[a], 16), v[c] += v[d], v[b] = rotated(v[b] ^ v[c], 63);
  };
  for (int round = 0; round < 12; round++) {
    const uint8_t* s = kOrder[round % 10];
    for (int i = 0; i < 4; i++) mix(i, i + 4, i + 8, i + 12, m[s[2 * i]], m[s[2 * i + 1]]);
    for (int i = 0; i < 4; i++) mix(i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12, m[s[8 + 2 * i]], m[s[9 + 2 * i]]);
  }
  for (int i = 0; i < 8; i++) h[i] ^= v[i] ^ v[i + 8];
}

}  // namespace

WEB_EXPORT void* web_alloc(int32_t bytes) {
  void* p = nullptr;
  return posix_memalign(&p, 64, std::max(bytes, 64)) == 0 ? p : nullptr;
}
WEB_EXPORT void web_free(void* p) { free(p); }

// numbers: mode, number of values; of every value what GcValue holds.
WEB_EXPORT Held* web_new(const int32_t* numbers) {
  auto held = std::make_unique<Held>();
  held->mode = numbers[0];
  const int32_t count = numbers[1];
  static_assert(sizeof(GcValue) == 9 * 4, "a value is nine numbers");
  held->values.resize(count);
  std::memcpy(held->values.data(), numbers + 2, count * sizeof(GcValue));
  const GcProgram shape{held->values.data(), held->mode, count};
  held->program = gc::new_program(shape, &isa());
  return held->program == nullptr ? nullptr : held.release();
}
WEB_EXPORT void web_drop(Held* held) { delete held; }

WEB_EXPORT int32_t web_add(Held* held, const Numbers* numbers, const Tensors* tensors) {
  const Numbers& n = *numbers;
  const Tensors& t = *tensors;
  const int32_t* rest = n.rest;
  std::vector<int32_t> sources(rest, rest + n.source_count);
  rest += n.source_count;
  std::vector<GcAddend> add;
  for (int32_t i = 0; i < n.add_count; i++, rest += 3) add.push_back({rest[0], float_of(rest[1]), rest[2]});
  std::vector<GcView> views;
  for (int32_t i = 0; i < n.view_count; i++, rest += 4)
    views.push_back({t.rest[3 * i], t.rest[3 * i + 1], t.rest[3 * i + 2], rest[0], rest[1], rest[2], float_of(rest[3])});
  GcStep step{};
  step.bias = t.bias, step.scale = t.scale, step.shift = t.shift, step.pre_slopes = t.pre_slopes, step.slopes = t.slopes;
  step.sources = sources.data(), step.add = add.data(), step.views = views.data();
  step.source_count = n.source_count, step.add_count = n.add_count, step.view_count = n.view_count;
  step.dst = n.dst, step.written = n.written, step.up = n.up, step.border = n.border;
  step.pre = n.pre, step.activation = n.activation, step.affine = n.affine, step.eps = float_of(n.eps);
  if (n.conv) return add_conv(*held, n, t, step);
  step.groups = n.groups;
  return gc::add_step(*held->program, step);
}

// Inputs, outputs [N][floats of the value]; affines [N][2][channels].
WEB_EXPORT int32_t web_run(const Held* held, int32_t batch, int32_t input_count, const float* const* inputs, int32_t affine_count,
                           const float* const* affines, int32_t output_count, float* const* outputs, const int32_t* output_values) {
  const GcRun run{inputs, outputs, affines, output_values, batch, input_count, output_count, affine_count, 1};
  return gc::run_program(*held->program, run);
}

WEB_EXPORT void web_tanh(const float* x, int32_t count, float* out) { isa().bytes->tanh(x, count, out); }

// BLAKE2b (RFC 7693) of `count` bytes, `size` of them, without a key; `person` is null or sixteen bytes.
WEB_EXPORT void web_hash(const uint8_t* from, int32_t count, int32_t size, const uint8_t* person, uint8_t* to) {
  uint64_t h[8], words[2];
  std::memcpy(h, kBlake, sizeof h);
  h[0] ^= 0x01010000u ^ static_cast<uint32_t>(size);
  if (person != nullptr) {
    std::memcpy(words, person, sizeof words);
    h[6] ^= words[0], h[7] ^= words[1];
  }
  int32_t at = 0;
  for (; count - at > 128; at += 128) compress(h, from + at, at + 128, false);
  uint8_t last[128] = {};
  if (count > at) std::memcpy(last, from + at, count - at);
  compress(h, last, count, true);
  std::memcpy(to, h, size);
}
