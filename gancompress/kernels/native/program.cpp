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
  int64_t packed = 0, acc = 0, affine = 0;  // the most floats that a step needs
  int32_t affines = 0;
};

// What one thread works in.
struct Memory {
  std::vector<std::unique_ptr<Scratch>> arenas;
  Scratch packed, acc, affine, check;
  Memory(const Program& g, int64_t images) : packed(g.packed), acc(g.acc), affine(g.affine * images), check(kLanes) {
    for (int64_t floats : g.arenas) arenas.push_back(std::make_unique<Scratch>(floats * images));
    std::memset(check.data(), 0, kLanes * sizeof(float));
  }
};

namespace {

// Images n, n+1, .. of the run, `lanes` of them.
void run_step(const Program& g, const Step& s, const Memory& own, const GcRun& a, int64_t n, int32_t lanes) {
  const int64_t pixel = g.flat ? 1 : kLanes;
  const Plan& p = *s.plan;
  const auto place = [&](int32_t arena, int32_t h, int32_t w) { return Place{own.arenas[arena]->data(), pixel * w * h, pixel * w, pixel}; };
  TileJob j = job_of(p, s.value.data(), s.bias.empty() ? nullptr : s.bias.data());
  read_from(j, place(s.at.src, s.at.hi, s.at.wi), s.at.hi, s.at.wi);
  write_to(j, place(s.at.dst, s.at.ho, s.at.wo), s.at.ho, s.at.wo);
  j.up = s.at.up;
  if (!s.scale.empty()) j.scale = s.scale.data(), j.shift = s.shift.data();
  if (s.at.affine >= 0) {
    const int64_t both = 2 * static_cast<int64_t>(p.in_channels);
    const float* of_images = a.affines[s.at.affine] + n * both;
    if (!g.flat) p.isa->to_blocked(of_images, both, lanes, both, own.affine.data(), kLanes);
    j.scale = g.flat ? of_images : own.affine.data();
    j.shift = j.scale + p.in_channels * pixel;
    j.per_image = 1;
  }
  j.pre_relu = s.at.pre_relu, j.relu = s.at.relu;
  if (s.at.add >= 0) {
    const Place add = place(s.at.add, j.ho >> s.at.add_up, j.wo >> s.at.add_up);
    j.add = add.data, j.add_c = add.c, j.add_y = add.y, j.add_x = add.x;
    j.add_up = s.at.add_up;
  }
  j.lanes = lanes;
  j.tile1 = static_cast<int32_t>(ceil_div(ceil_div(j.ho, p.so), p.th));
  j.packed = own.packed.data(), j.acc = own.acc.data(), j.check = own.check.data();
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
  if (at.affine >= 0) {
    if (at.scale != nullptr) return GC_BAD_ARGUMENT;
    g.affines = std::max(g.affines, at.affine + 1);
    g.affine = std::max(g.affine, 2 * static_cast<int64_t>(p.in_channels));
  }
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

int32_t run_program(const Program& g, const GcRun& a) {
  if (g.steps.empty() || a.in_count > g.arenas.at(a.in) || a.out_count > g.arenas.at(a.from) || a.affine_count < g.affines) return GC_BAD_ARGUMENT;
  const Isa* isa = g.steps.front().plan->isa;
  const int64_t images = g.flat ? 1 : kLanes, turns = ceil_div(a.batch, images);
  const int32_t threads = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(a.threads, turns)));
  std::vector<std::unique_ptr<Memory>> memory;
  for (int32_t t = 0; t < threads; t++) memory.push_back(std::make_unique<Memory>(g, images));
  Team team(threads);
  team.run([&](int32_t thread) {
    const Memory& own = *memory[thread];
    float *const first = own.arenas[a.in]->data(), *const last = own.arenas[a.from]->data();
    team.each(turns, [&](int64_t turn) {
      const int64_t n = turn * images;
      const int32_t lanes = static_cast<int32_t>(std::min(images, a.batch - n));
      if (g.flat) std::memcpy(first, a.x + n * a.in_count, a.in_count * sizeof(float));
      else isa->to_blocked(a.x + n * a.in_count, a.in_count, lanes, a.in_count, first, kLanes);
      for (const Step& s : g.steps) run_step(g, s, own, a, n, lanes);
      if (g.flat) std::memcpy(a.out + n * a.out_count, last, a.out_count * sizeof(float));
      else isa->from_blocked(last, kLanes, a.out_count, a.out + n * a.out_count, a.out_count, lanes);
    });
  });
  return GC_OK;
}

}  // namespace gc
