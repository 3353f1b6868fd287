// The driver of a convolution: layouts, stripes and threads around the tile kernels.
#include <algorithm>
#include <vector>

#include "driver.h"

namespace gc {

TileJob blocked_job(const Plan& p, const float* value, const float* bias, const Grid& grid) {
  TileJob j{};
  j.plan = &p;
  j.value = value;
  j.hi = grid.hi, j.wi = grid.wi;
  j.in_x = kLanes, j.in_y = static_cast<int64_t>(grid.wi) * kLanes, j.in_c = j.in_y * grid.hi;
  j.ho = grid.ho, j.wo = grid.wo;
  j.out_x = kLanes, j.out_y = static_cast<int64_t>(grid.wo) * kLanes, j.out_c = j.out_y * grid.ho;
  j.bias = bias;
  j.lanes = kLanes;
  j.row0 = 0, j.row1 = p.rows;
  return j;
}

Buffers::Buffers(const Plan& p, int64_t stripe_floats)
    : packed(p.packed_positions * p.chunk * p.isa->lanes),
      acc(p.chunks > 1 ? static_cast<int64_t>(p.rows) * p.th * p.tw * p.isa->lanes : 0),
      stripe(stripe_floats) {}

Split::Split(int64_t tile_rows, int64_t channels, int32_t threads)
    : tiles(tile_rows),
      groups(threads == 1 || tile_rows >= 2 * threads ? 1 : std::min<int64_t>(channels, ceil_div(2 * threads, tile_rows))) {}

void Split::set_rows(TileJob& j, int64_t group) const {
  const Plan& p = *j.plan;
  const int32_t phases = p.so * p.so;
  j.row0 = static_cast<int32_t>(p.out_channels * group / groups) * phases;
  j.row1 = static_cast<int32_t>(p.out_channels * (group + 1) / groups) * phases;
}

Stripes::Stripes(const Plan& p, const float* value, const float* bias, const Loader& in, const Loader& out, int32_t threads, bool whole_blocks)
    : in_(in),
      out_(out),
      base_(blocked_job(p, value, bias, {in.height(), in.width(), out.height(), out.width()})),
      split_(ceil_div(ceil_div(out.height(), p.so), p.th), p.out_channels, whole_blocks ? 1 : threads) {
  const int64_t floats = static_cast<int64_t>(p.out_channels) * p.th * p.so * out.width() * kLanes;
  for (int32_t t = 0; t < threads; t++) buffers_.push_back(std::make_unique<Buffers>(p, floats));
}

void Stripes::run(int64_t block, int64_t item, const float* input, int32_t thread) const {
  TileJob j = base_;
  const Plan& p = *j.plan;
  const int32_t stripe_rows = p.th * p.so, phases = p.so * p.so;
  j.in = input;
  j.tile0 = static_cast<int32_t>(item / split_.groups), j.tile1 = j.tile0 + 1;
  split_.set_rows(j, item % split_.groups);
  j.out = buffers_[thread]->stripe.data();
  j.out_y0 = j.tile0 * stripe_rows;
  j.out_c = j.out_y * stripe_rows;
  j.lanes = in_.lanes(block);
  j.packed = buffers_[thread]->packed.data(), j.acc = buffers_[thread]->acc.data();
  p.isa->conv(j);
  out_.store(p.isa, block, j.row0 / phases, j.row1 / phases, j.out_y0, std::min(stripe_rows, j.ho - j.out_y0), j.out, j.out_c);
}

namespace {

int32_t conv_blocked(const GcConv& a, const Plan& p, const float* value) {
  const Grid grid{a.hi, a.wi, a.ho, a.wo};
  const int64_t tile_rows = ceil_div(ceil_div(a.ho, p.so), p.th), blocks = ceil_div(a.batch, kLanes);
  const int32_t threads = useful_threads(a.threads, p, blocks, a.ho, a.wo);
  const Split split(tile_rows * blocks, p.out_channels, threads);
  std::vector<std::unique_ptr<Buffers>> buffers;
  for (int32_t t = 0; t < threads; t++) buffers.push_back(std::make_unique<Buffers>(p, 0));
  Team team(threads);
  team.run([&](int32_t thread) {
    team.each(split.tiles * split.groups, [&](int64_t item) {
      const int64_t tile = item / split.groups % tile_rows, block = item / split.groups / tile_rows;
      TileJob j = blocked_job(p, value, a.bias, grid);
      j.up = a.up, j.scale = a.scale, j.shift = a.shift, j.pre_relu = a.pre_relu, j.relu = a.relu;
      j.in = a.x + block * p.in_channels * j.in_c;
      j.out = a.out + block * p.out_channels * j.out_c;
      if (a.add != nullptr) {
        j.add_up = a.add_up;
        j.add_x = kLanes, j.add_y = static_cast<int64_t>(a.wo >> a.add_up) * kLanes, j.add_c = j.add_y * (a.ho >> a.add_up);
        j.add = a.add + block * p.out_channels * j.add_c;
      }
      j.lanes = static_cast<int32_t>(std::min<int64_t>(kLanes, a.batch - block * kLanes));
      j.tile0 = static_cast<int32_t>(tile), j.tile1 = j.tile0 + 1;
      split.set_rows(j, item % split.groups);
      j.packed = buffers[thread]->packed.data(), j.acc = buffers[thread]->acc.data();
      p.isa->conv(j);
    });
  });
  return GC_OK;
}

// Images and points are brought into blocked memory 16 at a time, while they are in the cache, and the result leaves it
// one stripe of tiles at a time: the tensors outside keep their layout and no blocked copy of them ever exists.
int32_t conv_converting(const GcConv& a, const Plan& p, const float* value) {
  const Loader in(a.x, a.layout, a.batch, p.in_channels, a.hi, a.wi);
  const Loader out(a.out, a.layout, a.batch, p.out_channels, a.ho, a.wo);
  const int32_t threads = useful_threads(a.threads, p, out.blocks(), out.height(), out.width());
  const bool whole_blocks = threads == 1 || in.blocks() >= threads;  // a block per thread, else threads share a block
  const Stripes stripes(p, value, a.bias, in, out, threads, whole_blocks);
  std::vector<std::unique_ptr<Scratch>> inputs;
  for (int32_t t = 0; t < (whole_blocks ? threads : 1); t++) inputs.push_back(std::make_unique<Scratch>(in.block_floats()));
  std::vector<float> checks(threads, 0.0f);

  Team team(threads);
  team.run([&](int32_t thread) {
    if (whole_blocks) {
      team.each(in.blocks(), [&](int64_t block) {
        float* input = inputs[thread]->data();
        checks[thread] += in.load(p.isa, block, 0, p.in_channels, input);
        for (int64_t item = 0; item < stripes.count(); item++) stripes.run(block, item, input, thread);
      });
    } else {
      float* input = inputs[0]->data();
      const int64_t parts = std::min<int64_t>(p.in_channels, 4 * threads);
      for (int64_t block = 0; block < in.blocks(); block++) {
        team.each(parts, [&](int64_t part) {
          checks[thread] += in.load(p.isa, block, p.in_channels * part / parts, p.in_channels * (part + 1) / parts, input);
        });
        team.each(stripes.count(), [&](int64_t item) { stripes.run(block, item, input, thread); });
      }
    }
  });
  float check = 0.0f;
  for (float c : checks) check += c;
  return check == 0.0f ? GC_OK : GC_NOT_FINITE;
}

}  // namespace

int32_t run_conv(const GcConv& a) {
  const Plan& p = *static_cast<const Plan*>(a.plan);
  Scratch value(p.entries);
  for (int64_t t = 0; t < p.entries; t++) value.data()[t] = a.weight[p.src[t]];
  return a.layout == GC_BLOCKED ? conv_blocked(a, p, value.data()) : conv_converting(a, p, value.data());
}

}  // namespace gc
