// Runs programs of convolutions of bytes, and what stands between them, on every instruction set that the library holds and
// the machine has, with images laid out in every way, and prints a line for each: name, layout, hash of the result, how many of
// its numbers differ.
// For machines without Python: see test_bytes_elsewhere.py.
#include <cstdio>
#include <cstring>
#include <set>
#include <vector>

#include "api.h"
#include "isa_bytes.h"
#include "plan.h"

extern "C" {
const char* gc_isa_name(int32_t);
int32_t gc_isa_lanes(int32_t);
int32_t gc_isa_blocks(int32_t);
int32_t gc_isa_flat_blocks(int32_t);
int32_t gc_isa_supported(int32_t);
void* gc_plan_new(const uint8_t*, const gc::PlanShape*, int32_t);
void* gc_program_new(const GcProgram*, int32_t);
int32_t gc_program_add(void*, const GcStep*);
int32_t gc_program_run(const void*, const GcRun*);
int32_t gc_linear(const gc::LinearJob*, int32_t);
int32_t gc_tanh(const float*, int64_t, float*, int32_t);
}

namespace {

constexpr int32_t kWords = 6, kRows = 16, kTaps = 9, kHigh = 13, kWide = 11, kBatch = 3;

uint32_t state;
uint32_t drawn() { return (state = state * 1664525u + 1013904223u) >> 8; }
float number() { return static_cast<float>(static_cast<int32_t>(drawn() % 2001) - 1000) / 500.0f; }
std::vector<float> numbers(size_t count) {
  std::vector<float> all;
  for (size_t i = 0; i < count; i++) all.push_back(number());
  return all;
}
// Words of weights from -127 to 127, and which are kept.
struct Weights {
  std::vector<uint8_t> mask;
  std::vector<int32_t> words;
};
int32_t word() {
  uint32_t all = 0;
  for (int i = 0; i < 4; i++) all |= (static_cast<uint32_t>(static_cast<int32_t>(drawn() % 255) - 127) & 255) << (8 * i);
  return static_cast<int32_t>(all);
}

int32_t failed = 0;
void must(int32_t status) { failed |= status; }

struct Result {
  uint64_t hash = 1469598103934665603u;
  std::set<float> numbers;
  void add(const std::vector<float>& y) {
    numbers.insert(y.begin(), y.end());
    for (float v : y) {
      uint32_t bits;
      std::memcpy(&bits, &v, 4);
      hash = (hash ^ bits) * 1099511628211u;
    }
  }
};

// With outputs in the lanes where `across`; `channels` of the result, which may be no whole words.
void run(int32_t isa, int32_t mode, bool across, int32_t channels, Result* result_of_all) {
  state = 1;
  const int32_t lanes = gc_isa_lanes(isa), most = mode == GC_FLAT ? gc_isa_flat_blocks(isa) : gc_isa_blocks(isa), own = across ? kRows : most > 1 ? 2 : 1;
  const int32_t strip = mode == GC_ROWS ? (kHigh + lanes - 1) / lanes : kHigh;
  const auto value = [&](int32_t arena, int32_t planes, int32_t times, int32_t bytes, int32_t zero) {
    return GcValue{arena, planes, kHigh * times, kWide * times, strip * times, kWide * times, bytes, zero, 0.02f};
  };
  const GcValue values[] = {value(0, 4 * kWords, 1, 0, 0), value(1, 4 * kWords, 1, 1, 77), value(2, kRows, 1, 0, 0), value(3, kRows, 1, 1, 120), value(4, channels, 2, 0, 0)};
  const GcProgram shape{values, mode, 5};
  void* program = gc_program_new(&shape, isa);

  const std::vector<float> gain = numbers(4 * kWords), offset = numbers(4 * kWords), slopes = numbers(kRows);
  const GcView first{gain.data(), offset.data(), nullptr, 1, -1, 0, 50.0f};
  const int32_t input = 0, held = 1, second = 3;
  GcStep bytes{};
  bytes.views = &first, bytes.view_count = 1, bytes.sources = &input, bytes.source_count = 1, bytes.dst = 1, bytes.affine = -1;
  must(gc_program_add(program, &bytes));

  // Pairs of rows keep the same words.
  Weights direct;
  for (int32_t r = 0; r < kRows / own; r++)
    for (int32_t t = 0; t < kWords * kTaps; t++) direct.mask.push_back(0), direct.words.insert(direct.words.end(), own, 0);
  for (int32_t r = 0; r < kRows / 2; r++)
    for (int32_t t = 0; t < kWords * kTaps; t++) {
      const bool kept = drawn() % 3 == 0;
      for (int32_t b = 0; b < 2; b++) {
        const int32_t row = 2 * r + b, at = (row / own * kWords * kTaps + t);
        direct.mask[at] |= kept;
        const int32_t drawn_word = word();
        if (kept) direct.words[at * own + row % own] = drawn_word;
      }
    }
  const std::vector<float> factor = numbers(kRows), shifts = numbers(kRows);
  std::vector<float> small = factor;
  for (float& f : small) f *= 1e-3f;
  const gc::PlanShape plan{gc::kDirect, kRows / own, kWords, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, mode == GC_FLAT && !across, kHigh, kWide, 0, 0, 0, 0, 0, across ? 1 : own, across, 1};
  const GcView then{nullptr, nullptr, slopes.data(), 3, -1, 2, 50.0f};
  GcStep conv{};
  conv.plan = gc_plan_new(direct.mask.data(), &plan, isa), conv.weight = direct.words.data(), conv.scale = small.data(), conv.shift = shifts.data();
  conv.sources = &held, conv.source_count = 1, conv.views = &then, conv.view_count = 1, conv.dst = 2, conv.written = 1, conv.affine = -1, conv.blocks = own, conv.shuffle = 1;
  must(gc_program_add(program, &conv));

  Weights phased;
  for (int32_t t = 0; t < kRows / 4 * channels * 16; t++) phased.mask.push_back(drawn() % 2), phased.words.push_back(word());
  const std::vector<float> scale(channels, 1e-3f), phases = numbers(channels * 4);
  const gc::PlanShape up{gc::kPhased, kRows / 4, channels, 4, 4, 2, 2, 1, 1, 1, 1, 1, 1, mode == GC_FLAT, kHigh, kWide, 0, 0, 0, 0, 0, 1, 0, 1};
  GcStep last{};
  last.plan = gc_plan_new(phased.mask.data(), &up, isa), last.weight = phased.words.data(), last.scale = scale.data(), last.shift = phases.data();
  last.sources = &second, last.source_count = 1, last.dst = 4, last.written = 1, last.affine = -1, last.blocks = 1, last.shuffle = 1, last.activation = 1;
  must(gc_program_add(program, &last));

  const std::vector<float> x = numbers(static_cast<size_t>(kBatch) * 4 * kWords * kHigh * kWide);
  std::vector<float> y(static_cast<size_t>(kBatch) * channels * 4 * kHigh * kWide);
  const float* inputs[] = {x.data()};
  float* outputs[] = {y.data()};
  const int32_t result = 4;
  const GcRun args{inputs, outputs, nullptr, &result, kBatch, 1, 1, 0, 1};
  must(gc_program_run(program, &args));
  result_of_all->add(y);
}

// A linear layer and a tanh.
void run_between(int32_t isa, Result* result) {
  state = 2;
  constexpr int32_t kImages = 5, kInputs = 33, kOutputs = 75, kTiles = (kOutputs + gc::kLanes - 1) / gc::kLanes;
  const std::vector<float> x = numbers(kImages * kInputs), weight = numbers(kTiles * kInputs * gc::kLanes), bias = numbers(kTiles * gc::kLanes);
  std::vector<float> y(kImages * kOutputs), z(y.size());
  const gc::LinearJob job{x.data(), weight.data(), bias.data(), y.data(), kImages, kInputs, kOutputs};
  must(gc_linear(&job, isa));
  must(gc_tanh(y.data(), static_cast<int64_t>(y.size()), z.data(), isa));
  result->add(y);
  result->add(z);
}

void all(int32_t isa, int32_t mode, bool across) {
  Result result;
  for (int32_t channels : {5, 8}) run(isa, mode, across, channels, &result);
  run_between(isa, &result);
  std::printf("%s %d %016llx %zu\n", gc_isa_name(isa), across ? -1 : mode, static_cast<unsigned long long>(result.hash), result.numbers.size());
}

}  // namespace

int main() {
  for (int32_t isa = 0; gc_isa_name(isa) != nullptr; isa++)
    if (gc_isa_supported(isa)) {
      for (int32_t mode = GC_BATCH; mode <= GC_ROWS; mode++) all(isa, mode, false);
      all(isa, GC_FLAT, true);
    }
  return failed;
}
