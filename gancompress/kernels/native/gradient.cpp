// The gradients of a layer towards its input and towards its kept weights.
//
// Of the weight gradient, every entry owns a vector of partial sums; it is added to by one thread at a time, block after
// block, tile after tile, and summed up once at the end, so the order of the additions is fixed whatever the number of
// threads.
#include <cstring>

#include "driver.h"

namespace gc {
namespace {

class WeightSums {
 public:
  WeightSums(const TileJob& base, const Loader& in, const Loader& out, int32_t threads)
      : plan_(*base.plan), in_(in), out_(out), axes_(plan_, in, out.height(), out.width()), base_(base), sums_(plan_.entries) {
    axes_.give(base_);
    base_.tile1 = static_cast<int32_t>(ceil_div(out.height(), plan_.th));
    // Every share packs its chunks of the input and its rows of the gradient: a few of both are the least to pack.
    const int64_t items = threads == 1 ? 1 : 2 * threads;
    for (chunks_ = 1; chunks_ < plan_.chunks && chunks_ * chunks_ < items;) chunks_++;
    rows_ = std::min<int64_t>(plan_.rows, ceil_div(items, chunks_));
    for (int32_t t = 0; t < threads; t++) buffers_.push_back(std::make_unique<Buffers>(plan_, 0));
    std::memset(sums_.data(), 0, plan_.entries * sizeof(float));
  }

  int64_t count() const { return chunks_ * rows_; }

  void run(int64_t block, int64_t item, const Place& input, const Place& gradient, int32_t thread) const {
    TileJob j = base_;
    const Buffers& own = *buffers_[thread];
    read_from(j, input, in_.height(), in_.width());
    write_to(j, gradient, out_.height(), out_.width());  // where the gradient lies; it is only read
    j.lanes = in_.lanes(block);
    const auto share = [](int64_t of, int64_t i, int64_t shares) { return static_cast<int32_t>(of * i / shares); };
    j.row0 = share(plan_.rows, item % rows_, rows_), j.row1 = share(plan_.rows, item % rows_ + 1, rows_);
    j.packed = own.packed.data(), j.acc = own.acc.data(), j.check = own.check.data();
    const int64_t of_chunks = item / rows_;
    plan_.isa->weight_gradient(j, gradient.data, share(plan_.chunks, of_chunks, chunks_), share(plan_.chunks, of_chunks + 1, chunks_), sums_.data());
  }

  void store(float* out) const {
    std::memset(out, 0, static_cast<int64_t>(plan_.dim0) * plan_.dim1 * plan_.kh * plan_.kw * sizeof(float));
    for (int64_t t = 0; t < plan_.entries; t++) out[plan_.src[t]] = sums_.data()[t];
  }

  bool finite() const {
    return std::all_of(buffers_.begin(), buffers_.end(), [](const auto& own) { return own->finite(); });
  }

 private:
  const Plan& plan_;
  Loader in_, out_;
  Axes axes_;
  TileJob base_;
  int64_t chunks_, rows_;  // shares of either
  Scratch sums_;
  std::vector<std::unique_ptr<Buffers>> buffers_;
};

}  // namespace

int32_t run_backward(const GcBackward& a) {
  const Plan& for_x = *static_cast<const Plan*>(a.plan_x);
  const Plan& direct = *static_cast<const Plan*>(a.plan_weight);
  if (for_x.kind != (a.transpose ? kDirect : kPhased) || direct.kind != kWeights || (a.transpose && a.pre_relu)) return GC_BAD_ARGUMENT;
  const Isa* isa = direct.isa;
  if (a.bf16 && isa->pairs() == nullptr) return GC_BAD_ARGUMENT;
  const Loader x(a.x, a.layout_x, a.batch, for_x.out_channels, a.hi, a.wi);
  const Loader g(a.gradient, a.layout_gradient, a.batch, for_x.in_channels * for_x.pairs, a.ho, a.wo);
  const Loader out(a.for_x, a.layout_x, a.batch, for_x.out_channels, a.hi, a.wi);
  const Loader& there = a.transpose ? x : g;  // the direct plan's output
  const int32_t threads = useful_threads(a.threads, direct, there.blocks(), there.height(), there.width());

  const bool reads_x = a.for_weight != nullptr || a.pre_relu;
  Scratch block_g(g.block_floats()), block_x(reads_x ? x.block_floats() : 0);
  Scratch value(a.for_x != nullptr ? for_x.entries : 0);
  std::unique_ptr<Stripes> stripes;
  std::unique_ptr<WeightSums> sums;
  if (a.for_x != nullptr) {
    take_values(for_x, a.weight, value.data());
    stripes = std::make_unique<Stripes>(job_of(for_x, value.data(), nullptr), g, out, threads, 1);
  }
  if (a.for_weight != nullptr) {
    TileJob base = job_of(direct, nullptr, nullptr);
    base.pre.kind = a.pre_relu ? kRelu : kNone;
    base.bf16 = a.bf16;
    sums = std::make_unique<WeightSums>(base, a.transpose ? g : x, a.transpose ? x : g, threads);
  }
  const auto parts_of = [&](const Loader& tensor) { return tensor.in_place() ? 0 : std::min<int64_t>(tensor.channels(), 4 * threads); };
  const int64_t parts_g = parts_of(g), parts_x = reads_x ? parts_of(x) : 0;
  const int64_t count_w = sums ? sums->count() : 0, count_x = stripes ? stripes->count() : 0;

  Team team(threads);
  team.run([&](int32_t thread) {
    for (int64_t block = 0; block < g.blocks(); block++) {
      team.each(parts_g + parts_x, [&](int64_t part) {
        const bool of_x = part >= parts_g;
        const Loader& tensor = of_x ? x : g;
        const int64_t i = of_x ? part - parts_g : part, parts = of_x ? parts_x : parts_g;
        tensor.load(isa, block, tensor.channels() * i / parts, tensor.channels() * (i + 1) / parts, (of_x ? block_x : block_g).data());
      });
      const Place here = x.place(block, block_x.data()), by = g.place(block, block_g.data());
      team.each(count_w + count_x, [&](int64_t item) {
        if (item < count_w) sums->run(block, item, a.transpose ? by : here, a.transpose ? here : by, thread);
        else stripes->run(block, item - count_w, by, a.pre_relu ? here : Place{}, thread);
      });
    }
  });

  if ((sums && !sums->finite()) || (stripes && !stripes->finite())) return GC_NOT_FINITE;
  if (sums) sums->store(a.for_weight);
  return GC_OK;
}

}  // namespace gc
