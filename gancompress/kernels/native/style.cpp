// The drivers of the filter [1, 3, 3, 1], of what stands between the convolutions of networks with styles, and of sums.
#include "api.h"
#include "driver.h"

namespace gc {
namespace {

// Calls work(plane, rows, thread) for every plane, `floats` being what all of them hold; none gets less than about 0.1 ms.
template <class Work>
void each_plane(int64_t planes, int64_t floats, int64_t row_floats, int32_t threads, const Work& work) {
  const int64_t worth = std::min(planes, 1 + floats / 500000);
  const int32_t size = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(threads, worth)));
  std::vector<std::unique_ptr<Scratch>> rows;
  for (int32_t t = 0; t < size; t++) rows.push_back(std::make_unique<Scratch>(row_floats));
  Team team(size);
  team.run([&](int32_t thread) { team.each(planes, [&](int64_t plane) { work(plane, rows[thread]->data()); }); });
}

bool is_padding(int32_t padding) { return padding == 1 || padding == 2; }

}  // namespace

int32_t run_filter(const GcFilter& a, const Isa& isa) {
  if (a.height < 1 || a.width < 1 || a.inner < 1 || a.threads < 1) return GC_BAD_ARGUMENT;
  const int64_t here = a.height * a.width * a.inner, grown = 2 * a.padding - 3;
  int64_t there = 0;
  switch (a.kind) {
    case kSame:
      if (!is_padding(a.padding) || a.height + grown < 1 || a.width + grown < 1) return GC_BAD_ARGUMENT;
      there = (a.height + grown) * (a.width + grown) * a.inner;
      break;
    case kUp: there = 4 * here; break;
    case kDown:
      if (a.height % 2 != 0 || a.width % 2 != 0) return GC_BAD_ARGUMENT;
      there = here / 4;
      break;
    default: return GC_BAD_ARGUMENT;
  }
  each_plane(a.planes, a.planes * here, filter_rows(a.width, a.inner), a.threads, [&](int64_t plane, float* rows) {
    isa.filter({a.x + plane * here, a.out + plane * there, a.height, a.width, a.inner, a.kind, a.padding, a.scale, rows});
  });
  return GC_OK;
}

int32_t run_style(const GcStyle& a, const Isa& isa, bool gradient) {
  if (a.height < 1 || a.width < 1 || a.batch < 1 || a.batch % kLanes != 0 || a.threads < 1) return GC_BAD_ARGUMENT;
  if ((a.before != 0 && !is_padding(a.before)) || (a.after != 0 && !is_padding(a.after)) || (a.before != 0 && a.after != 0)) return GC_BAD_ARGUMENT;
  const int64_t padding = a.before + a.after, grown = padding != 0 ? 2 * padding - 3 : 0;
  if (a.height + grown < 1 || a.width + grown < 1) return GC_BAD_ARGUMENT;
  if (gradient && (a.gradient == nullptr || a.beside != nullptr || (a.slope != 1.0f && a.gate == nullptr))) return GC_BAD_ARGUMENT;
  const int64_t here = a.height * a.width * a.batch, there = (a.height + grown) * (a.width + grown) * a.batch;
  const int64_t gated = a.after != 0 ? here : there;  // where the ReLU is
  // a row of doubles for the sums of every lane comes before the rows of floats
  const int64_t sums = (2 * (a.batch + 2) + kLanes) / kLanes * kLanes;
  each_plane(a.channels, a.channels * here, sums + filter_rows(a.width + 1, a.batch), a.threads, [&](int64_t c, float* memory) {
    const auto of = [c](const float* data, int64_t apart) { return data == nullptr ? nullptr : data + c * apart; };
    double* const own = reinterpret_cast<double*>(memory);
    StyleJob j{};
    j.x = a.x + c * here, j.noise = a.noise, j.gain = of(a.gain, a.batch), j.bias = a.bias == nullptr ? 0.0f : a.bias[c];
    j.strength = a.strength, j.slope = a.slope, j.before = a.before, j.after = a.after;
    j.h = a.height, j.w = a.width, j.n = a.batch, j.rows = memory + sums;
    if (!gradient) {
      j.beside = of(a.beside, there), j.out = a.out + c * there;
      isa.style(j);
      return;
    }
    j.gate = of(a.gate, gated), j.gradient = a.gradient + c * there, j.out = a.out + c * here;
    j.for_gain = own, j.sums = own + a.batch;
    for (int64_t k = 0; k < a.batch + 2; k++) own[k] = 0.0;
    isa.style_gradient(j);
    for (int64_t k = 0; a.for_gain != nullptr && k < a.batch; k++) a.for_gain[c * a.batch + k] = static_cast<float>(own[k]);
    for (int64_t k = 0; a.sums != nullptr && k < 2; k++) a.sums[2 * c + k] = static_cast<float>(j.sums[k]);
  });
  return GC_OK;
}

int32_t run_totals(const float* x, int64_t images, int64_t channels, int64_t count, float* out, int32_t threads, const Isa& isa) {
  if (threads < 1) return GC_BAD_ARGUMENT;
  each_plane(channels, images * channels * count, 1, threads, [&](int64_t c, float*) {
    double sum = 0.0;
    for (int64_t n = 0; n < images; n++) sum += isa.total(x + (n * channels + c) * count, count);
    out[c] = static_cast<float>(sum);
  });
  return GC_OK;
}

}  // namespace gc
