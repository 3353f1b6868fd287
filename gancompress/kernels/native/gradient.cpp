// The gradients of a layer towards its input and towards its kept weights.
//
// Of the weight gradient, every entry owns a vector of partial sums; it is added to by one thread at a time, block after
// block, tile after tile, and folded once at the end, so the order of the additions is fixed whatever the number of
// threads.
#include <cstring>

#include "driver.h"

namespace gc {
namespace {

class WeightSums {
 public:
  WeightSums(const Plan& p, const Loader& in, const Loader& out, int32_t threads)
      : plan_(p),
        in_(in),
        base_(blocked_job(p, nullptr, nullptr, {in.height(), in.width(), out.height(), out.width()})),
        groups_(threads == 1 || p.chunks >= 2 * threads ? 1 : std::min<int64_t>(p.out_channels, ceil_div(2 * threads, p.chunks))),
        sums_(p.entries * p.isa->lanes) {
    base_.tile1 = static_cast<int32_t>(ceil_div(out.height(), p.th));
    for (int32_t t = 0; t < threads; t++) packed_.push_back(std::make_unique<Scratch>(p.packed_positions * p.chunk * p.isa->lanes));
    std::memset(sums_.data(), 0, p.entries * p.isa->lanes * sizeof(float));
  }

  int64_t count() const { return plan_.chunks * groups_; }

  void run(int64_t block, int64_t item, const float* input, const float* gradient, int32_t thread) {
    TileJob j = base_;
    j.in = input;
    j.lanes = in_.lanes(block);
    j.row0 = static_cast<int32_t>(plan_.rows * (item % groups_) / groups_);
    j.row1 = static_cast<int32_t>(plan_.rows * (item % groups_ + 1) / groups_);
    j.packed = packed_[thread]->data();
    plan_.isa->weight_gradient(j, gradient, static_cast<int32_t>(item / groups_), sums_.data());
  }

  void fold(float* out) const {
    const int32_t lanes = plan_.isa->lanes;
    std::memset(out, 0, static_cast<int64_t>(plan_.dim0) * plan_.dim1 * plan_.kh * plan_.kw * sizeof(float));
    for (int64_t t = 0; t < plan_.entries; t++) {
      float total = 0.0f;
      for (int32_t lane = 0; lane < lanes; lane++) total += sums_.data()[t * lanes + lane];
      out[plan_.src[t]] = total;
    }
  }

 private:
  const Plan& plan_;
  Loader in_;
  TileJob base_;
  int64_t groups_;
  Scratch sums_;
  std::vector<std::unique_ptr<Scratch>> packed_;
};

}  // namespace

int32_t run_backward(const GcBackward& a) {
  const Plan& direct = *static_cast<const Plan*>(a.direct);
  const Plan& for_x = a.transpose ? direct : *static_cast<const Plan*>(a.phased);
  if (direct.kind != kDirect || a.layout == GC_BLOCKED) return GC_BAD_ARGUMENT;
  const Isa* isa = direct.isa;
  const int64_t channels_x = for_x.out_channels, channels_g = for_x.in_channels;
  const Loader x(a.x, a.layout, a.batch, channels_x, a.hi, a.wi);
  const Loader g(a.gradient, a.layout, a.batch, channels_g, a.ho, a.wo);
  const Loader out(a.for_x, a.layout, a.batch, channels_x, a.hi, a.wi);
  const Loader& there = a.transpose ? x : g;  // the direct plan's output
  const int32_t threads = useful_threads(a.threads, direct, there.blocks(), there.height(), there.width());

  Scratch block_g(g.block_floats()), block_x(a.for_weight != nullptr ? x.block_floats() : 0);
  Scratch value(a.for_x != nullptr ? for_x.entries : 0);
  std::unique_ptr<Stripes> stripes;
  std::unique_ptr<WeightSums> sums;
  if (a.for_x != nullptr) {
    for (int64_t t = 0; t < for_x.entries; t++) value.data()[t] = a.weight[for_x.src[t]];
    stripes = std::make_unique<Stripes>(for_x, value.data(), nullptr, g, out, threads, threads == 1);
  }
  if (a.for_weight != nullptr) sums = std::make_unique<WeightSums>(direct, a.transpose ? g : x, a.transpose ? x : g, threads);
  const int64_t parts_g = std::min<int64_t>(channels_g, 4 * threads);
  const int64_t parts_x = sums ? std::min<int64_t>(channels_x, 4 * threads) : 0;
  const int64_t count_w = sums ? sums->count() : 0, count_x = stripes ? stripes->count() : 0;
  std::vector<float> checks(threads, 0.0f);

  Team team(threads);
  team.run([&](int32_t thread) {
    for (int64_t block = 0; block < g.blocks(); block++) {
      team.each(parts_g + parts_x, [&](int64_t part) {
        const bool of_x = part >= parts_g;
        const int64_t i = of_x ? part - parts_g : part, parts = of_x ? parts_x : parts_g, channels = of_x ? channels_x : channels_g;
        checks[thread] += (of_x ? x : g).load(isa, block, channels * i / parts, channels * (i + 1) / parts, (of_x ? block_x : block_g).data());
      });
      const float *in = a.transpose ? block_g.data() : block_x.data(), *by = a.transpose ? block_x.data() : block_g.data();
      team.each(count_w + count_x, [&](int64_t item) {
        if (item < count_w) sums->run(block, item, in, by, thread);
        else stripes->run(block, item - count_w, block_g.data(), thread);
      });
    }
  });

  float check = 0.0f;
  for (float c : checks) check += c;
  if (check != 0.0f) return GC_NOT_FINITE;
  if (sums) sums->fold(a.for_weight);
  return GC_OK;
}

}  // namespace gc
