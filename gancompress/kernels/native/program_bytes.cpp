// Values in bytes in a program: the weights of their convolutions, and the bytes that steps write.
#include <algorithm>

#include "program.h"

namespace gc {
namespace {

// The sum of two products of bytes and weights fits 16 bits when the positive and the negative weights add up to no more.
constexpr int32_t kMostOfPair = 128;

// What the words of an entry add to each pair of products, at most: positive sums first, then negative ones.
class Halves {
 public:
  void add(int32_t word) {
    for (int32_t pair = 0; pair < 2; pair++) {
      int32_t up = 0, down = 0;
      for (int32_t i = 2 * pair; i < 2 * pair + 2; i++) {
        const int32_t w = static_cast<int8_t>(static_cast<uint32_t>(word) >> (8 * i));
        (w > 0 ? up : down) += std::abs(w);
      }
      sums_.push_back(up);
      sums_.push_back(down);
    }
  }
  bool fit() const {
    return std::all_of(sums_.begin(), sums_.end(), [](int32_t sum) { return sum <= kMostOfPair; });
  }
  bool fit(const Halves& other) const {
    for (size_t i = 0; i < sums_.size(); i++)
      if (sums_[i] + other.sums_[i] > kMostOfPair) return false;
    return true;
  }

 private:
  std::vector<int32_t> sums_;
};

struct Entry {
  int32_t off;
  std::vector<int32_t> words;  // of every row of the block
  Halves halves;
  Entry(int32_t at, std::vector<int32_t> all) : off(at), words(std::move(all)) {
    for (int32_t word : words) halves.add(word);
  }
};

// Words whose sums do not fit become two, of every other weight.
void split(const Entry& whole, std::vector<Entry>* to) {
  if (whole.halves.fit()) {
    to->push_back(whole);
    return;
  }
  for (uint32_t mask : {0x00ff00ffu, 0xff00ff00u}) {
    std::vector<int32_t> words;
    for (int32_t word : whole.words) words.push_back(static_cast<int32_t>(static_cast<uint32_t>(word) & mask));
    to->emplace_back(whole.off, std::move(words));
  }
}

// Brings pairs of entries whose sums fit together to the front; returns how many entries go in pairs.
int32_t pair_up(std::vector<Entry>* entries) {
  constexpr size_t kTries = 64;
  std::vector<Entry> pairs, rest;
  std::vector<bool> taken(entries->size(), false);
  for (size_t i = 0; i < entries->size(); i++) {
    if (taken[i]) continue;
    const Entry& one = (*entries)[i];
    size_t other = i + 1;
    const size_t end = std::min(entries->size(), i + kTries);
    while (other < end && (taken[other] || !one.halves.fit((*entries)[other].halves))) other++;
    if (other < end) {
      taken[other] = true;
      pairs.push_back(one);
      pairs.push_back((*entries)[other]);
    } else {
      rest.push_back(one);
    }
  }
  const int32_t count = static_cast<int32_t>(pairs.size());
  pairs.insert(pairs.end(), rest.begin(), rest.end());
  entries->swap(pairs);
  return count;
}

int32_t sum_of(int32_t word) {
  int32_t sum = 0;
  for (int32_t i = 0; i < kInWord; i++) sum += static_cast<int8_t>(static_cast<uint32_t>(word) >> (8 * i));
  return sum;
}

View view_of(const Program& g, const ViewOf& view, const Memory& own, const GcRun& a, int64_t n, int32_t lanes, float** scratch) {
  const GcValue& v = g.values[view.at.value];
  const Place at = place_of(g, own, view.at.value);
  View made{};
  made.data = reinterpret_cast<int32_t*>(at.data), made.c = at.c, made.y = at.y, made.x = at.x;
  made.inverse = view.at.inverse, made.zero = v.zero;
  made.act = activation(view.at.activation, view.slopes);
  if (!view.scale.empty()) made.scale = view.scale.data(), made.shift = view.shift.data();
  if (view.at.affine >= 0) {
    const int64_t both = 2 * static_cast<int64_t>(v.channels);
    const float* of_images = a.affines[view.at.affine] + n * both;
    const bool batch = g.mode == GC_BATCH;
    if (batch) g.isa->to_blocked(of_images, both, lanes, both, *scratch, kLanes, kLanes);
    made.scale = batch ? *scratch : of_images;
    made.shift = made.scale + v.channels * (batch ? kLanes : 1);
    made.per_image = batch;
    *scratch += both * kLanes;
  }
  return made;
}

}  // namespace

namespace {

// Sixteen rows with images in the lanes, for kernels that multiply matrices.
bool in_tiles(const Plan& p, const Words& w) { return w.blocks == kLanes && p.block == 1; }

// Adds entries in tiles of kLanes, [row][entry]; the last is filled with weights of 0.
void add_tiles(const std::vector<Entry>& entries, Words* w) {
  for (size_t t = 0; t < entries.size(); t += kLanes) {
    const size_t count = std::min<size_t>(kLanes, entries.size() - t);
    for (size_t e = 0; e < kLanes; e++) w->off.push_back(entries[e < count ? t + e : t].off);
    for (int32_t row = 0; row < kLanes; row++)
      for (size_t e = 0; e < kLanes; e++) w->words.push_back(e < count ? entries[t + e].words[row] : 0);
  }
}

}  // namespace

std::unique_ptr<const Words> words_of(const Plan& p, const GcStep& at, const ByteKernels& kernels) {
  auto made = std::make_unique<Words>();
  Words& w = *made;
  w.blocks = at.blocks, w.shuffle = at.shuffle;
  w.start.assign(static_cast<size_t>(p.rows) * w.blocks, 0);
  const int32_t* given = static_cast<const int32_t*>(at.weight);
  for (int32_t chunk = 0; chunk < p.chunks; chunk++) {
    const int32_t* ptr = p.ptr + static_cast<int64_t>(chunk) * (p.rows + 1);
    for (int32_t row = 0; row < p.rows; row++) {
      std::vector<Entry> entries;
      for (int32_t t = ptr[row]; t < ptr[row + 1]; t++) {
        const int32_t* from = given + static_cast<int64_t>(p.src[t]) * w.blocks;
        Entry entry(p.off[t], std::vector<int32_t>(from, from + w.blocks));
        for (int32_t b = 0; b < w.blocks; b++) w.start[row * w.blocks + b] += kernels.offset * sum_of(entry.words[b]);
        if (kernels.halves) split(entry, &entries);
        else entries.push_back(std::move(entry));
      }
      const int32_t begin = static_cast<int32_t>(w.off.size());
      w.ptr.push_back(begin);
      if (in_tiles(p, w)) {
        add_tiles(entries, &w);
        w.single.push_back(begin);
        continue;
      }
      w.single.push_back(begin + (kernels.halves ? pair_up(&entries) : 0));
      for (const Entry& entry : entries) {
        w.off.push_back(entry.off);
        w.words.insert(w.words.end(), entry.words.begin(), entry.words.end());
      }
    }
    w.ptr.push_back(static_cast<int32_t>(w.off.size()));
  }
  return made;
}

bool add_views(Program& g, Step& s) {
  if (s.at.view_count > kMostViews) return false;
  const GcValue& out = g.values[s.at.dst];
  int64_t affine = 0;
  for (int32_t i = 0; i < s.at.view_count; i++) {
    const GcView& at = s.at.views[i];
    if (at.value < 0 || at.value >= static_cast<int32_t>(g.values.size())) return false;
    const GcValue& v = g.values[at.value];
    if (!v.bytes || v.channels != out.channels || v.strip_h != out.strip_h || v.strip_w != out.strip_w || (at.affine >= 0 && at.scale != nullptr)) return false;
    s.views.push_back({at, copied(at.scale, v.channels), copied(at.shift, v.channels), copied(at.slopes, v.channels)});
    if (at.affine >= 0) {
      g.affines = std::max(g.affines, at.affine + 1);
      affine += 2 * static_cast<int64_t>(v.channels);
    }
  }
  g.affine = std::max(g.affine, affine);
  return true;
}

void run_conv_of_bytes(const Program& g, const Step& s, Memory& own, const GcRun& a, int64_t n, int32_t lanes) {
  const Plan& p = *s.plan;
  const Words& w = *s.words;
  ByteJob j{};
  static_cast<TileJob&>(j) = conv_job(g, s, own);
  j.blocks = w.blocks, j.so_y = p.so_y * w.shuffle, j.so_x = p.so_x * w.shuffle;
  j.ptr = w.ptr.data(), j.single = w.single.data(), j.off = w.off.data(), j.words = w.words.data(), j.start = w.start.data();
  j.factor = s.scale.data(), j.shifts = s.shift.data();
  j.fill = 0x01010101u * static_cast<uint32_t>(g.values[s.sources[0]].zero);
  float* scratch = own.affine.data();
  for (const ViewOf& view : s.views) j.views[j.view_count++] = view_of(g, view, own, a, n, lanes, &scratch);
  j.lanes = g.mode == GC_BATCH ? lanes : g.width;
  if (p.block > 1) g.isa->bytes->conv_lanes(j);
  else if (g.mode == GC_FLAT) g.isa->bytes->conv_flat(j);
  else g.isa->bytes->conv(j);
}

void run_quantize(const Program& g, const Step& s, Memory& own, const GcRun& a, int64_t n, int32_t lanes) {
  const GcValue& v = g.values[s.sources[0]];
  const Place from = place_of(g, own, s.sources[0]);
  float* scratch = own.affine.data();
  ByteMapJob j{};
  j.in = from.data, j.plane = from.c, j.row = from.y;
  j.channels = v.channels, j.h = v.strip_h, j.w = v.strip_w, j.width = g.width;
  j.view = view_of(g, s.views[0], own, a, n, lanes, &scratch);
  g.isa->bytes->quantize(j);
}

}  // namespace gc
