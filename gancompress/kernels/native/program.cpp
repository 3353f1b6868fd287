// A whole planned network in one call: convolutions over arenas that are laid out once, 16 images (or one) at a time
// through all layers, so that what a layer writes is still in the cache when the next one reads it.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "driver.h"

namespace gc {

struct Step {
  const Plan* plan;
  std::vector<float> value, bias, scale, shift;
  GcStep at;
};

struct Program {
  bool flat;
  std::vector<int64_t> arenas;  // floats per image
  std::vector<Step> steps;
  int64_t packed = 0, acc = 0;  // the most that a step needs
};

namespace {

void run_step(const Program& g, const Step& s, const std::vector<std::unique_ptr<Scratch>>& arenas, float* packed, float* acc, int32_t lanes) {
  const int64_t pixel = g.flat ? 1 : kLanes;
  const Plan& p = *s.plan;
  TileJob j{};
  j.plan = &p;
  j.value = s.value.data();
  j.in = arenas[s.at.src]->data();
  j.hi = s.at.hi, j.wi = s.at.wi, j.up = s.at.up;
  j.in_x = pixel, j.in_y = pixel * j.wi, j.in_c = j.in_y * j.hi;
  j.out = arenas[s.at.dst]->data();
  j.ho = s.at.ho, j.wo = s.at.wo;
  j.out_x = pixel, j.out_y = pixel * j.wo, j.out_c = j.out_y * j.ho;
  j.bias = s.bias.empty() ? nullptr : s.bias.data();
  if (!s.scale.empty()) j.scale = s.scale.data(), j.shift = s.shift.data();
  j.pre_relu = s.at.pre_relu, j.relu = s.at.relu;
  if (s.at.add >= 0) {
    j.add = arenas[s.at.add]->data();
    j.add_up = s.at.add_up;
    j.add_x = pixel, j.add_y = pixel * (j.wo >> j.add_up), j.add_c = j.add_y * (j.ho >> j.add_up);
  }
  j.lanes = lanes;
  j.tile0 = 0, j.tile1 = static_cast<int32_t>(ceil_div(ceil_div(j.ho, p.so), p.th));
  j.row0 = 0, j.row1 = p.rows;
  j.packed = packed, j.acc = acc;
  if (g.flat) p.isa->conv_flat(j);
  else p.isa->conv(j);
}

}  // namespace

Program* new_program(int32_t flat, const int64_t* arenas, int32_t count) {
  auto g = std::make_unique<Program>();
  g->flat = flat != 0;
  g->arenas.assign(arenas, arenas + count);
  return g.release();
}

void free_program(Program* g) { delete g; }

int32_t add_step(Program& g, const GcStep& at) {
  Step s;
  s.plan = static_cast<const Plan*>(at.plan);
  const Plan& p = *s.plan;
  const auto arena = [&](int32_t i, int64_t floats) { return i >= 0 && i < static_cast<int32_t>(g.arenas.size()) && floats <= g.arenas[i]; };
  if ((p.unit == 1) != (g.flat || p.isa->lanes == 1)) return GC_BAD_ARGUMENT;
  if (!arena(at.src, static_cast<int64_t>(p.in_channels) * at.hi * at.wi) || !arena(at.dst, static_cast<int64_t>(p.out_channels) * at.ho * at.wo) ||
      at.src == at.dst)
    return GC_BAD_ARGUMENT;
  if (at.add >= 0 && !arena(at.add, static_cast<int64_t>(p.out_channels) * (at.ho >> at.add_up) * (at.wo >> at.add_up))) return GC_BAD_ARGUMENT;
  if (g.flat && (ceil_div(at.ho, p.so) != p.th || ceil_div(at.wo, p.so) != p.tw)) return GC_BAD_ARGUMENT;
  for (int64_t t = 0; t < p.entries; t++) s.value.push_back(at.weight[p.src[t]]);
  if (at.bias != nullptr) s.bias.assign(at.bias, at.bias + p.out_channels);
  if (at.scale != nullptr) s.scale.assign(at.scale, at.scale + p.in_channels), s.shift.assign(at.shift, at.shift + p.in_channels);
  s.at = at;
  s.at.weight = s.at.bias = s.at.scale = s.at.shift = nullptr;
  const int64_t vectors = static_cast<int64_t>(kFlatVectors) * p.isa->lanes;
  g.packed = std::max(g.packed, g.flat ? p.packed_positions * p.in_channels + vectors + p.pw : p.packed_positions * p.chunk * p.isa->lanes);
  g.acc = std::max(g.acc, p.rows * (g.flat ? vectors : static_cast<int64_t>(p.th) * p.tw * p.isa->lanes));
  g.steps.push_back(std::move(s));
  return GC_OK;
}

// x: [N][in_count] into arena `in`; out: [N][out_count] from arena `from`.
int32_t run_program(const Program& g, const float* x, int32_t in, int64_t in_count, float* out, int32_t from, int64_t out_count, int64_t batch,
                    int32_t threads) {
  if (g.steps.empty() || in_count > g.arenas.at(in) || out_count > g.arenas.at(from)) return GC_BAD_ARGUMENT;
  const Isa* isa = g.steps.front().plan->isa;
  const int64_t images = g.flat ? 1 : kLanes, turns = ceil_div(batch, images);
  threads = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(threads, turns)));
  std::vector<std::vector<std::unique_ptr<Scratch>>> memory(threads);
  for (auto& own : memory) {
    for (int64_t floats : g.arenas) own.push_back(std::make_unique<Scratch>(floats * images));
    own.push_back(std::make_unique<Scratch>(g.packed));
    own.push_back(std::make_unique<Scratch>(g.acc));
  }
  Team team(threads);
  team.run([&](int32_t thread) {
    const auto& own = memory[thread];
    float* const packed = own[g.arenas.size()]->data();
    float* const acc = own[g.arenas.size() + 1]->data();
    team.each(turns, [&](int64_t turn) {
      const int64_t n = turn * images;
      const int32_t lanes = static_cast<int32_t>(std::min(images, batch - n));
      if (g.flat) std::memcpy(own[in]->data(), x + n * in_count, in_count * sizeof(float));
      else isa->to_blocked(x + n * in_count, in_count, lanes, in_count, own[in]->data(), kLanes);
      for (const Step& s : g.steps) run_step(g, s, own, packed, acc, lanes);
      if (g.flat) std::memcpy(out + n * out_count, own[from]->data(), out_count * sizeof(float));
      else isa->from_blocked(own[from]->data(), kLanes, out_count, out + n * out_count, out_count, lanes);
    });
  });
  return GC_OK;
}

}  // namespace gc
