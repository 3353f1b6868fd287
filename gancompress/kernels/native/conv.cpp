// The driver of a convolution: layouts, stripes and threads around the tile kernels.
#include "driver.h"

#include <cstring>

namespace gc {

TileJob job_of(const Plan& p, const float* value, const float* bias) {
  TileJob j{};
  j.plan = &p;
  j.value = value;
  j.bias = bias;
  j.lanes = kLanes;
  j.row1 = p.rows;
  return j;
}

namespace {

uint32_t to_bf16(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

}  // namespace

void take_values(const Plan& p, const float* weight, float* value) {
  if (p.pairs == 1) {
    for (int64_t t = 0; t < p.entries; t++) value[t] = weight[p.src[t]];
    return;
  }
  // The two channels of a pair lie `apart`; so do the pairs, in the dense weight twice as far as in the plan's.
  const int64_t taps = static_cast<int64_t>(p.kh) * p.kw, apart = p.kind == kPhased ? p.dim1 * taps : taps;
  for (int64_t t = 0; t < p.entries; t++) {
    const int64_t first = p.src[t] / apart * 2 * apart + p.src[t] % apart;
    const uint32_t word = to_bf16(weight[first]) | to_bf16(weight[first + apart]) << 16;
    std::memcpy(value + t, &word, sizeof word);
  }
}

void read_from(TileJob& j, const Place& place, int32_t h, int32_t w) {
  j.in = place.data, j.in_c = place.c, j.in_y = place.y, j.in_x = place.x;
  j.hi = h, j.wi = w;
}

void write_to(TileJob& j, const Place& place, int32_t h, int32_t w) {
  j.out = place.data, j.out_c = place.c, j.out_y = place.y, j.out_x = place.x;
  j.ho = h, j.wo = w;
}

Buffers::Buffers(const Plan& p, int64_t stripe_floats)
    : packed(p.packed_positions * p.chunk * p.pairs * kLanes),
      acc(p.chunks > 1 || p.kind == kWeights ? static_cast<int64_t>(p.rows) * p.th * p.gy * p.tw * p.gx * kLanes : 0),
      stripe(stripe_floats),
      check(kLanes) {
  std::memset(check.data(), 0, kLanes * sizeof(float));
}

bool Buffers::finite() const {
  float sum = 0.0f;
  for (int32_t lane = 0; lane < kLanes; lane++) sum += check.data()[lane];
  return sum == 0.0f;
}

Stripes::Stripes(const TileJob& base, const Loader& in, const Loader& out, int32_t threads, int64_t together)
    : in_(in), out_(out), axes_(*base.plan, in, out.height(), out.width()), base_(base) {
  const Plan& p = *base.plan;
  axes_.give(base_);
  tiles_ = ceil_div(ceil_div(out.height(), p.so_y), p.th * p.gy);
  const int64_t items = tiles_ * together;
  groups_ = threads == 1 || items >= 2 * threads ? 1 : std::min<int64_t>(p.out_channels, ceil_div(2 * threads, items));
  const int64_t floats = out.in_place() ? 0 : static_cast<int64_t>(p.out_channels) * p.th * p.gy * p.so_y * out.width() * kLanes;
  for (int32_t t = 0; t < threads; t++) buffers_.push_back(std::make_unique<Buffers>(p, floats));
}

bool Stripes::finite() const {
  return std::all_of(buffers_.begin(), buffers_.end(), [](const auto& own) { return own->finite(); });
}

void Stripes::run(int64_t block, int64_t item, const Place& input, const Place& gate, int32_t thread) const {
  TileJob j = base_;
  const Plan& p = *j.plan;
  const Buffers& own = *buffers_[thread];
  const int32_t stripe_rows = p.th * p.gy * p.so_y, phases = p.phases();
  j.tile0 = static_cast<int32_t>(item / groups_), j.tile1 = j.tile0 + 1;
  const int64_t group = item % groups_;
  j.row0 = static_cast<int32_t>(p.out_channels * group / groups_) * phases;
  j.row1 = static_cast<int32_t>(p.out_channels * (group + 1) / groups_) * phases;
  read_from(j, input, in_.height(), in_.width());
  write_to(j, out_.place(block, own.stripe.data()), out_.height(), out_.width());
  if (!out_.in_place()) {
    j.out_y0 = j.tile0 * stripe_rows;
    j.out_c = j.out_y * stripe_rows;
  }
  j.gate = gate.data, j.gate_c = gate.c, j.gate_y = gate.y, j.gate_x = gate.x;
  j.lanes = in_.lanes(block);
  j.packed = own.packed.data(), j.acc = own.acc.data(), j.check = own.check.data();
  p.isa->conv(j);
  if (!out_.in_place())
    out_.store(p.isa, block, j.row0 / phases, j.row1 / phases, j.out_y0, std::min(stripe_rows, j.ho - j.out_y0), j.out, j.out_c);
}

namespace {

// All items of all blocks at once: nothing has to be loaded before.
void conv_in_place(const Stripes& stripes, const Loader& in, int32_t threads) {
  Team team(threads);
  team.run([&](int32_t thread) {
    team.each(in.blocks() * stripes.count(), [&](int64_t item) {
      const int64_t block = item / stripes.count();
      stripes.run(block, item % stripes.count(), in.place(block, nullptr), {}, thread);
    });
  });
}

// Images and points are brought into blocked memory 16 at a time, while they are in the cache, and the result leaves it
// one stripe of tiles at a time: tensors outside keep their layout and no blocked copy of them ever exists.
void conv_converting(const Plan& p, const Stripes& stripes, const Loader& in, bool whole_blocks, int32_t threads) {
  std::vector<std::unique_ptr<Scratch>> inputs;
  for (int32_t t = 0; t < (whole_blocks ? threads : 1); t++) inputs.push_back(std::make_unique<Scratch>(in.block_floats()));
  Team team(threads);
  team.run([&](int32_t thread) {
    if (whole_blocks) {
      float* const input = inputs[thread]->data();
      team.each(in.blocks(), [&](int64_t block) {
        in.load(p.isa, block, 0, in.channels(), input);
        for (int64_t item = 0; item < stripes.count(); item++) stripes.run(block, item, in.place(block, input), {}, thread);
      });
    } else {
      float* const input = inputs[0]->data();
      const int64_t parts = std::min<int64_t>(in.channels(), 4 * threads);
      for (int64_t block = 0; block < in.blocks(); block++) {
        team.each(parts, [&](int64_t part) {
          in.load(p.isa, block, in.channels() * part / parts, in.channels() * (part + 1) / parts, input);
        });
        team.each(stripes.count(), [&](int64_t item) { stripes.run(block, item, in.place(block, input), {}, thread); });
      }
    }
  });
}

}  // namespace

int32_t run_conv(const GcConv& a) {
  const Plan& p = *static_cast<const Plan*>(a.plan);
  const Loader in(a.x, a.layout_x, a.batch, p.in_channels * p.pairs, a.hi, a.wi), out(a.out, a.layout_out, a.batch, p.out_channels, a.ho, a.wo);
  Scratch value(p.entries);
  take_values(p, a.weight, value.data());
  TileJob base = job_of(p, value.data(), a.bias);
  base.pre.kind = a.pre_relu ? kRelu : kNone;
  const int32_t threads = useful_threads(a.threads, p, out.blocks(), out.height(), out.width());
  const bool whole_blocks = threads == 1 || in.blocks() >= threads;  // a block per thread, else threads share a block
  const Stripes stripes(base, in, out, threads, in.in_place() ? in.blocks() : whole_blocks ? threads : 1);
  if (in.in_place()) conv_in_place(stripes, in, threads);
  else conv_converting(p, stripes, in, whole_blocks, threads);
  return stripes.finite() ? GC_OK : GC_NOT_FINITE;
}

}  // namespace gc
