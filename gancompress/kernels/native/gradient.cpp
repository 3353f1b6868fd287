// The gradient towards the kept weights.
//
// Every entry owns a vector of partial sums; it is added to by one thread at a time, block after block, tile after
// tile, and folded once at the end, so the order of the additions is fixed whatever the number of threads.
#include <cstring>
#include <vector>

#include "driver.h"

namespace gc {

int32_t run_weight_gradient(const GcWeightGradient& a) {
  const Plan& p = *static_cast<const Plan*>(a.plan);
  const Isa* isa = p.isa;
  if (p.kind != kDirect || a.layout == GC_BLOCKED) return GC_BAD_ARGUMENT;
  const Loader in(a.x, a.layout, a.batch, p.in_channels, a.hi, a.wi);
  const Loader out(a.gradient, a.layout, a.batch, p.out_channels, a.ho, a.wo);
  const int32_t threads = std::max(a.threads, 1);
  const int64_t tile_rows = ceil_div(out.height(), p.th);
  const int64_t groups = p.chunks >= 2 * threads || threads == 1 ? 1 : std::min<int64_t>(p.out_channels, ceil_div(2 * threads, p.chunks));

  Scratch sums(p.entries * isa->lanes), input(in.block_floats()), gradient(out.block_floats());
  std::vector<std::unique_ptr<Scratch>> packed;
  for (int32_t t = 0; t < threads; t++) packed.push_back(std::make_unique<Scratch>(p.packed_positions * p.chunk * isa->lanes));
  std::vector<float> checks(threads, 0.0f);
  std::memset(sums.data(), 0, p.entries * isa->lanes * sizeof(float));

  TileJob base{};
  base.plan = &p;
  base.in = input.data();
  base.hi = in.height(), base.wi = in.width();
  base.in_x = kLanes, base.in_y = static_cast<int64_t>(base.wi) * kLanes, base.in_c = base.in_y * base.hi;
  base.ho = out.height(), base.wo = out.width();
  base.out_x = kLanes, base.out_y = static_cast<int64_t>(base.wo) * kLanes, base.out_c = base.out_y * base.ho;
  base.tile0 = 0, base.tile1 = static_cast<int32_t>(tile_rows);

  Team team(threads);
  team.run([&](int32_t thread) {
    const int64_t parts_in = std::min<int64_t>(p.in_channels, 4 * threads), parts_out = std::min<int64_t>(p.out_channels, 4 * threads);
    for (int64_t block = 0; block < in.blocks(); block++) {
      team.each(parts_in + parts_out, [&](int64_t part) {
        if (part < parts_in) {
          checks[thread] += in.load(isa, block, p.in_channels * part / parts_in, p.in_channels * (part + 1) / parts_in, input.data());
        } else {
          part -= parts_in;
          checks[thread] += out.load(isa, block, p.out_channels * part / parts_out, p.out_channels * (part + 1) / parts_out, gradient.data());
        }
      });
      team.each(p.chunks * groups, [&](int64_t item) {
        TileJob j = base;
        j.lanes = in.lanes(block);
        j.row0 = static_cast<int32_t>(p.rows * (item % groups) / groups);
        j.row1 = static_cast<int32_t>(p.rows * (item % groups + 1) / groups);
        j.packed = packed[thread]->data();
        isa->weight_gradient(j, gradient.data(), static_cast<int32_t>(item / groups), sums.data());
      });
    }
  });

  float check = 0.0f;
  for (float c : checks) check += c;
  if (check != 0.0f) return GC_NOT_FINITE;
  std::memset(a.out, 0, static_cast<int64_t>(p.dim0) * p.dim1 * p.kh * p.kw * sizeof(float));
  for (int64_t t = 0; t < p.entries; t++) {
    float total = 0.0f;
    for (int32_t lane = 0; lane < isa->lanes; lane++) total += sums.data()[t * isa->lanes + lane];
    a.out[p.src[t]] = total;
  }
  return GC_OK;
}

}  // namespace gc
