// A whole planned network in one call: steps over arenas that are laid out once, 16 images (or one) at a time through all
// layers, so that what a layer writes is still in the cache when the next one reads it.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "program.h"

namespace gc {

TileJob conv_job(const Program& g, const Step& s, Memory& own) {
  const Plan& p = *s.plan;
  TileJob j = job_of(p, s.value.data(), s.bias.empty() ? nullptr : s.bias.data());
  const GcValue &first = g.values[s.sources[0]], &out = g.values[s.at.dst];
  read_from(j, place_of(g, own, s.sources[0]), first.strip_h, first.strip_w);
  if (s.sources.size() > 1) {
    const float** plane = own.planes.data();
    for (int32_t source : s.sources) {
      const Place at = place_of(g, own, source);
      for (int32_t c = 0; c < planes_of(g.values[source]); c++) *plane++ = at.data + c * at.c;
    }
    j.planes = own.planes.data();
  }
  write_to(j, s.at.written ? place_of(g, own, s.at.dst) : Place{}, out.strip_h, out.strip_w);
  s.axes->give(j);
  j.up = s.at.up;
  j.act = activation(s.at.activation, s.slopes);
  for (const GcAddend& add : s.add) j.add[j.added++] = added(g, own, add);
  j.packed = own.packed.data(), j.acc = own.acc.data(), j.check = own.check.data();
  return j;
}

namespace {

// Images n, n+1, .. of the run, `lanes` of them.
void run_conv_step(const Program& g, const Step& s, Memory& own, const GcRun& a, int64_t n, int32_t lanes) {
  const Plan& p = *s.plan;
  TileJob j = conv_job(g, s, own);
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
  j.pre = activation(s.at.pre, s.pre_slopes);
  j.lanes = g.mode == GC_BATCH ? lanes : g.width;
  j.tile1 = static_cast<int32_t>(ceil_div(ceil_div(j.ho, p.so_y), p.th * p.gy));
  if (p.block > 1) g.isa->conv_lanes(j);
  else if (g.mode == GC_FLAT) g.isa->conv_flat(j);
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
  const bool of_bytes = std::any_of(s.add.begin(), s.add.end(), [&](const GcAddend& add) { return g.values[add.value].bytes != 0; });
  for (size_t m = 0; m < s.add.size(); m += kMostAddends) {  // as many at a time as a job takes
    const size_t end = std::min(s.add.size(), m + kMostAddends);
    j.first = m == 0, j.added = 0;
    for (size_t i = m; i < end; i++) j.add[j.added++] = added(g, own, s.add[i]);
    if (end == s.add.size()) j.act = activation(s.at.activation, s.slopes);
    (of_bytes ? g.isa->bytes->sum : g.isa->sum)(j);
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
    if (s.words != nullptr) run_conv_of_bytes(g, s, own, a, n, lanes);
    else if (s.plan != nullptr) run_conv_step(g, s, own, a, n, lanes);
    else if (!s.views.empty()) run_quantize(g, s, own, a, n, lanes);
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

// The kept weights in the order of the entries, those of a block side by side.
std::vector<float> values_of(const Plan& p, const float* weight) {
  const int64_t taps = static_cast<int64_t>(p.kh) * p.kw, inner = p.kind == kPhased ? taps : p.dim1 * taps;
  std::vector<float> values;
  values.reserve(p.entries * p.block);
  for (int64_t t = 0; t < p.entries; t++) {
    const int64_t outer = p.src[t] / inner, rest = p.src[t] % inner;
    for (int32_t i = 0; i < p.block; i++) values.push_back(weight[(outer * p.block + i) * inner + rest]);
  }
  return values;
}

}  // namespace

Program* new_program(const GcProgram& shape, const Isa* isa) {
  auto g = std::make_unique<Program>();
  g->isa = isa;
  g->mode = shape.mode;
  g->width = shape.mode == GC_BATCH ? kLanes : shape.mode == GC_FLAT ? 1 : isa->lanes;
  g->values.assign(shape.values, shape.values + shape.value_count);
  for (const GcValue& v : g->values) {
    if (v.arena < 0) continue;
    if (v.arena >= static_cast<int32_t>(g->arenas.size())) g->arenas.resize(v.arena + 1);
    g->arenas[v.arena] = std::max(g->arenas[v.arena], planes_of(v) * plane_of(*g, v));
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
  if (at.view_count > 0 && !add_views(g, s)) return GC_BAD_ARGUMENT;
  std::vector<int32_t> writes;
  if (at.written) writes.push_back(at.dst);
  for (const ViewOf& view : s.views) writes.push_back(view.at.value);
  for (int32_t value : reads)
    for (int32_t written : writes)
      if (!fits(value) || g.values[value].arena == g.values[written].arena || g.values[written].arena < 0) return GC_BAD_ARGUMENT;
  for (const GcAddend& add : s.add) {
    const GcValue& v = g.values[add.value];
    if (add.up < 1 || v.channels != out.channels || v.strip_h * add.up != out.strip_h || v.strip_w * add.up != out.strip_w) return GC_BAD_ARGUMENT;
  }
  s.slopes = copied(at.slopes, out.channels);
  int32_t channels = out.channels;
  if (s.plan != nullptr) {
    const Plan& p = *s.plan;
    const GcValue& in = g.values[s.sources[0]];
    const int32_t blocks = in.bytes ? at.blocks : p.block, shuffle = in.bytes ? at.shuffle : 1;  // of floats, the plan knows
    int32_t planes = channels = 0;
    for (int32_t value : s.sources) channels += g.values[value].channels, planes += planes_of(g.values[value]);
    if (s.sources.empty() || s.add.size() > kMostAddends || planes != p.in_channels || out.channels * shuffle * shuffle != p.out_channels * blocks || p.isa != g.isa) return GC_BAD_ARGUMENT;
    if ((p.unit == 1) != (g.mode == GC_FLAT || g.isa->lanes == 1)) return GC_BAD_ARGUMENT;
    if (g.mode == GC_FLAT && p.block == 1 && (ceil_div(out.h, p.so_y * shuffle) != p.th || ceil_div(out.w, p.so_x * shuffle) != p.tw)) return GC_BAD_ARGUMENT;
    if (at.affine >= 0) {
      if (at.scale != nullptr) return GC_BAD_ARGUMENT;
      g.affines = std::max(g.affines, at.affine + 1);
      g.affine = std::max(g.affine, 2 * static_cast<int64_t>(channels));
    }
    s.axes = std::make_unique<Axes>(p, axis_shape(g, in.h, in.strip_h, g.mode == GC_ROWS, at), axis_shape(g, in.w, in.strip_w, g.mode == GC_COLUMNS, at),
                                    out.strip_h / shuffle, out.strip_w / shuffle);
    const float* weight = static_cast<const float*>(at.weight);
    if (in.bytes) s.words = words_of(p, at, *g.isa->bytes);
    else s.value = values_of(p, weight);
    const int64_t vectors = static_cast<int64_t>(kFlatVectors) * g.isa->lanes;
    if (p.block > 1) {
      if (blocks != p.block) return GC_BAD_ARGUMENT;
      const Plan whole = whole_image(p, out.h, out.w);
      g.packed = std::max(g.packed, (whole.packed_positions + p.packed_positions) * p.in_channels + 2 * (vectors + whole.pw));
      g.acc = std::max(g.acc, p.rows * p.block * lanes_pitch(p, whole));
    } else if (g.mode == GC_FLAT) {
      g.packed = std::max(g.packed, p.packed_positions * p.in_channels + vectors + p.pw);
      g.acc = std::max(g.acc, p.rows * blocks * vectors);
    } else {
      g.packed = std::max(g.packed, p.packed_positions * p.chunk * g.width);
      g.acc = std::max(g.acc, static_cast<int64_t>(p.rows) * blocks * p.th * p.gy * p.tw * p.gx * g.width);
    }
    g.planes = std::max<int64_t>(g.planes, planes);
    s.bias = copied(at.bias, static_cast<int64_t>(p.rows / p.rows_of_bias) * p.block);
    s.pre_slopes = copied(at.pre_slopes, channels);
    if (in.bytes) channels = p.rows / p.phases() * blocks;  // its factors are of the results
    s.shift = copied(at.shift, in.bytes ? static_cast<int64_t>(channels) * p.phases() : channels);
  } else {
    s.bias = copied(at.bias, channels);
  }
  s.scale = copied(at.scale, channels);
  s.at.weight = s.at.bias = s.at.scale = s.at.shift = s.at.pre_slopes = s.at.slopes = nullptr;
  s.at.sources = nullptr, s.at.add = nullptr, s.at.views = nullptr;
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
