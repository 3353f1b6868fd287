// A whole planned network in one call: steps over arenas that are laid out once, 16 images (or one) at a time through all
// layers, so that what a layer writes is still in the cache when the next one reads it.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "driver.h"

namespace gc {

struct Step {
  GcStep at;
  const Plan* plan;  // null: no convolution
  std::vector<float> value, bias, scale, shift, pre_slopes, slopes;
  std::vector<int32_t> sources;
  std::vector<GcAddend> add;
  std::unique_ptr<Axes> axes;
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

  bool split() const { return mode == GC_ROWS || mode == GC_COLUMNS; }
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

namespace {

// Floats from a channel to the next. Tiles read the same place of many channels: a power of two between them would bring
// all to the same few places of a cache. kSpread lines past a multiple of a page, they spread over all.
int64_t plane_of(const Program& g, const GcValue& v) {
  constexpr int64_t kPage = 1024, kSpread = 9 * 16;
  const int64_t floats = static_cast<int64_t>(v.strip_h) * v.strip_w * g.width;
  return g.mode == GC_FLAT || floats < kPage ? floats : ceil_div(floats - kSpread, kPage) * kPage + kSpread;
}

Place place_of(const Program& g, const Memory& own, int32_t value) {
  const GcValue& v = g.values[value];
  const int64_t x = g.width, y = x * v.strip_w;
  return {own.arena(v.arena), plane_of(g, v), y, x};
}

Added added(const Program& g, const Memory& own, const GcAddend& add) {
  const Place at = place_of(g, own, add.value);
  return {at.data, at.c, at.y, at.x, add.factor, add.up};
}

Activation activation(int32_t kind, const std::vector<float>& slopes) { return {kind, slopes.data()}; }

// Images n, n+1, .. of the run, `lanes` of them.
void run_conv_step(const Program& g, const Step& s, Memory& own, const GcRun& a, int64_t n, int32_t lanes) {
  const Plan& p = *s.plan;
  TileJob j = job_of(p, s.value.data(), s.bias.empty() ? nullptr : s.bias.data());
  const GcValue &first = g.values[s.sources[0]], &out = g.values[s.at.dst];
  read_from(j, place_of(g, own, s.sources[0]), first.strip_h, first.strip_w);
  if (s.sources.size() > 1) {
    const float** plane = own.planes.data();
    for (int32_t source : s.sources) {
      const Place at = place_of(g, own, source);
      for (int32_t c = 0; c < g.values[source].channels; c++) *plane++ = at.data + c * at.c;
    }
    j.planes = own.planes.data();
  }
  write_to(j, place_of(g, own, s.at.dst), out.strip_h, out.strip_w);
  s.axes->give(j);
  j.up = s.at.up;
  if (!s.scale.empty()) j.scale = s.scale.data(), j.shift = s.shift.data();
  if (s.at.affine >= 0) {
    const int64_t both = 2 * static_cast<int64_t>(p.in_channels);
    const float* of_images = a.affines[s.at.affine] + n * both;
    const bool batch = g.mode == GC_BATCH;
    if (batch) g.isa->to_blocked(of_images, both, lanes, both, own.affine.data(), kLanes, kLanes);
    j.scale = batch ? own.affine.data() : of_images;
    j.shift = j.scale + p.in_channels * (batch ? kLanes : 1);
    j.per_image = batch;
  }
  j.pre = activation(s.at.pre, s.pre_slopes), j.act = activation(s.at.activation, s.slopes);
  for (const GcAddend& add : s.add) j.add[j.added++] = added(g, own, add);
  j.lanes = g.mode == GC_BATCH ? lanes : g.width;
  j.tile1 = static_cast<int32_t>(ceil_div(ceil_div(j.ho, p.so_y), p.th * p.gy));
  j.packed = own.packed.data(), j.acc = own.acc.data(), j.check = own.check.data();
  if (g.mode == GC_FLAT) g.isa->conv_flat(j);
  else g.isa->conv(j);
}

void run_map_step(const Program& g, const Step& s, const Memory& own) {
  MapJob j{};
  const GcValue& out = g.values[s.at.dst];
  const Place to = place_of(g, own, s.at.dst);
  j.out = to.data, j.plane = to.c, j.row = to.y;
  j.channels = out.channels, j.h = out.strip_h, j.w = out.strip_w, j.width = g.width;
  if (s.at.groups > 0) {
    j.in = place_of(g, own, s.sources[0]).data;
    j.groups = s.at.groups, j.eps = s.at.eps;
    j.gain = s.scale.empty() ? nullptr : s.scale.data(), j.bias = s.bias.empty() ? nullptr : s.bias.data();
    j.one_image = g.mode != GC_BATCH;
    j.strip_y = g.mode == GC_ROWS ? out.strip_h : 0, j.strip_x = g.mode == GC_COLUMNS ? out.strip_w : 0;
    j.whole_h = out.h, j.whole_w = out.w;
    g.isa->norm(j);
    return;
  }
  for (size_t m = 0; m < s.add.size(); m += kMostAddends) {  // as many at a time as a job takes
    const size_t end = std::min(s.add.size(), m + kMostAddends);
    j.first = m == 0, j.added = 0;
    for (size_t i = m; i < end; i++) j.add[j.added++] = added(g, own, s.add[i]);
    if (end == s.add.size()) j.act = activation(s.at.activation, s.slopes);
    g.isa->sum(j);
  }
}

// One image of a value <-> strips side by side. A lane begins where the one before ends; the last ones may be short or empty.
struct Strips {
  int64_t runs;   // stretches of a channel that are cut: it all when rows are, else its rows
  int64_t total;  // pixels of a stretch
  int64_t own;    // of these, what a lane holds
  Strips(const Program& g, const GcValue& v)
      : runs(g.mode == GC_ROWS ? 1 : v.h), total(static_cast<int64_t>(g.mode == GC_ROWS ? v.h : 1) * v.w),
        own(static_cast<int64_t>(g.mode == GC_ROWS ? v.strip_h : 1) * v.strip_w) {}
};

void to_strips(const Program& g, const GcValue& v, const float* image, float* to) {
  const Strips s(g, v);
  const int64_t full = std::min<int64_t>(g.width, s.total / s.own), rest = full < g.width ? s.total - full * s.own : 0;
  for (int32_t c = 0; c < v.channels; c++) {
    float* here = to + c * plane_of(g, v);
    for (int64_t i = 0; i < s.runs; i++, image += s.total, here += s.own * g.width) {
      g.isa->to_blocked(image, s.own, static_cast<int32_t>(full), s.own, here, g.width, g.width);
      for (int64_t q = 0; q < rest; q++) here[q * g.width + full] = image[full * s.own + q];
    }
  }
}

void from_strips(const Program& g, const GcValue& v, const float* from, float* image) {
  const Strips s(g, v);
  const int64_t full = std::min<int64_t>(g.width, s.total / s.own), rest = full < g.width ? s.total - full * s.own : 0;
  for (int32_t c = 0; c < v.channels; c++) {
    const float* here = from + c * plane_of(g, v);
    for (int64_t i = 0; i < s.runs; i++, image += s.total, here += s.own * g.width) {
      g.isa->from_blocked(here, g.width, s.own, image, s.own, static_cast<int32_t>(full));
      for (int64_t q = 0; q < rest; q++) image[full * s.own + q] = here[q * g.width + full];
    }
  }
}

void run_images(const Program& g, Memory& own, const GcRun& a, int64_t n, int32_t lanes) {
  for (int32_t i = 0; i < a.input_count; i++) {
    const GcValue& v = g.values[i];
    const int64_t count = static_cast<int64_t>(v.channels) * v.h * v.w;
    const float* from = a.inputs[i] + n * count;
    float* to = own.arena(v.arena);
    if (g.mode == GC_BATCH)
      for (int32_t c = 0; c < v.channels; c++) g.isa->to_blocked(from + c * count / v.channels, count, lanes, count / v.channels, to + c * plane_of(g, v), kLanes, kLanes);
    else if (g.mode == GC_FLAT) std::memcpy(to, from, count * sizeof(float));
    else to_strips(g, v, from, to);
  }
  for (const Step& s : g.steps) {
    if (s.plan != nullptr) run_conv_step(g, s, own, a, n, lanes);
    else run_map_step(g, s, own);
  }
  for (int32_t i = 0; i < a.output_count; i++) {
    const GcValue& v = g.values[a.output_values[i]];
    const int64_t count = static_cast<int64_t>(v.channels) * v.h * v.w;
    float* to = a.outputs[i] + n * count;
    const float* from = own.arena(v.arena);
    if (g.mode == GC_BATCH)
      for (int32_t c = 0; c < v.channels; c++) g.isa->from_blocked(from + c * plane_of(g, v), kLanes, count / v.channels, to + c * count / v.channels, count, lanes);
    else if (g.mode == GC_FLAT) std::memcpy(to, from, count * sizeof(float));
    else from_strips(g, v, from, to);
  }
}

AxisShape axis_shape(const Program& g, int32_t size, int32_t strip, bool cut, const GcStep& at) {
  return {size, strip, cut ? g.width : 1, at.up, static_cast<Border>(at.border)};
}

std::vector<float> copied(const float* from, int64_t count) { return from == nullptr ? std::vector<float>() : std::vector<float>(from, from + count); }

}  // namespace

Program* new_program(const GcProgram& shape, const Isa* isa) {
  auto g = std::make_unique<Program>();
  g->isa = isa;
  g->mode = shape.mode;
  g->width = shape.mode == GC_BATCH ? kLanes : shape.mode == GC_FLAT ? 1 : isa->lanes;
  g->values.assign(shape.values, shape.values + shape.value_count);
  for (const GcValue& v : g->values) {
    if (v.arena >= static_cast<int32_t>(g->arenas.size())) g->arenas.resize(v.arena + 1);
    g->arenas[v.arena] = std::max(g->arenas[v.arena], v.channels * plane_of(*g, v));
  }
  return g.release();
}

void free_program(Program* g) { delete g; }

int32_t add_step(Program& g, const GcStep& at) {
  Step s;
  s.at = at;
  s.plan = static_cast<const Plan*>(at.plan);
  s.sources.assign(at.sources, at.sources + at.source_count);
  s.add.assign(at.add, at.add + at.add_count);
  const auto fits = [&](int32_t value) { return value >= 0 && value < static_cast<int32_t>(g.values.size()); };
  std::vector<int32_t> reads = s.sources;
  for (const GcAddend& add : s.add) reads.push_back(add.value);
  if (!fits(at.dst) || reads.empty()) return GC_BAD_ARGUMENT;
  const GcValue& out = g.values[at.dst];
  for (int32_t value : reads)
    if (!fits(value) || g.values[value].arena == out.arena) return GC_BAD_ARGUMENT;
  for (const GcAddend& add : s.add) {
    const GcValue& v = g.values[add.value];
    if (add.up < 1 || v.channels != out.channels || v.strip_h * add.up != out.strip_h || v.strip_w * add.up != out.strip_w) return GC_BAD_ARGUMENT;
  }
  s.slopes = copied(at.slopes, out.channels);
  int32_t channels = out.channels;
  if (s.plan != nullptr) {
    const Plan& p = *s.plan;
    channels = 0;
    for (int32_t value : s.sources) channels += g.values[value].channels;
    if (s.sources.empty() || s.add.size() > kMostAddends || channels != p.in_channels || out.channels != p.out_channels || p.isa != g.isa) return GC_BAD_ARGUMENT;
    if ((p.unit == 1) != (g.mode == GC_FLAT || g.isa->lanes == 1)) return GC_BAD_ARGUMENT;
    if (g.mode == GC_FLAT && (ceil_div(out.h, p.so_y) != p.th || ceil_div(out.w, p.so_x) != p.tw)) return GC_BAD_ARGUMENT;
    if (at.affine >= 0) {
      if (at.scale != nullptr) return GC_BAD_ARGUMENT;
      g.affines = std::max(g.affines, at.affine + 1);
      g.affine = std::max(g.affine, 2 * static_cast<int64_t>(channels));
    }
    const GcValue& in = g.values[s.sources[0]];
    s.axes = std::make_unique<Axes>(p, axis_shape(g, in.h, in.strip_h, g.mode == GC_ROWS, at), axis_shape(g, in.w, in.strip_w, g.mode == GC_COLUMNS, at),
                                    out.strip_h, out.strip_w);
    for (int64_t t = 0; t < p.entries; t++) s.value.push_back(at.weight[p.src[t]]);
    const int64_t vectors = static_cast<int64_t>(kFlatVectors) * g.isa->lanes, lanes = g.isa->lanes;
    g.packed = std::max(g.packed, g.mode == GC_FLAT ? p.packed_positions * p.in_channels + vectors + p.pw : p.packed_positions * p.chunk * lanes);
    g.acc = std::max(g.acc, p.rows * (g.mode == GC_FLAT ? vectors : static_cast<int64_t>(p.th) * p.gy * p.tw * p.gx * lanes));
    g.planes = std::max<int64_t>(g.planes, channels);
    s.bias = copied(at.bias, p.rows / p.rows_of_bias);
    s.pre_slopes = copied(at.pre_slopes, channels);
    s.shift = copied(at.shift, channels);
  } else {
    s.bias = copied(at.bias, channels);
  }
  s.scale = copied(at.scale, channels);
  s.at.weight = s.at.bias = s.at.scale = s.at.shift = s.at.pre_slopes = s.at.slopes = nullptr;
  s.at.sources = nullptr, s.at.add = nullptr;
  g.steps.push_back(std::move(s));
  return GC_OK;
}

int32_t run_program(const Program& g, const GcRun& a) {
  if (g.steps.empty() || a.affine_count < g.affines || a.input_count > static_cast<int32_t>(g.values.size())) return GC_BAD_ARGUMENT;
  const int64_t images = g.mode == GC_BATCH ? kLanes : 1, turns = ceil_div(a.batch, images);
  const int32_t threads = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(a.threads, turns)));
  std::vector<std::unique_ptr<Memory>> memory;
  for (int32_t t = 0; t < threads; t++) memory.push_back(std::make_unique<Memory>(g));
  Team team(threads);
  team.run([&](int32_t thread) {
    team.each(turns, [&](int64_t turn) {
      const int64_t n = turn * images;
      run_images(g, *memory[thread], a, n, static_cast<int32_t>(std::min(images, a.batch - n)));
    });
  });
  return GC_OK;
}

}  // namespace gc
