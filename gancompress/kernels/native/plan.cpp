#include "plan.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "isa.h"

namespace gc {
namespace {

// Bytes of packed tile that should stay in the first-level cache beside the entries and the accumulators. With 32 kB of
// such a cache (Zen 4) 20, 24 and 32 kB are within 2 % of it: loads of the next rows are in flight either way.
constexpr int64_t kTileBytes = 40 << 10;
// With few kept weights a larger tile pays, up to what the second level holds: every visit of a row fetches and puts back
// its accumulators, and should find this many entries to use them for.
constexpr int64_t kMostTileBytes = 192 << 10;
constexpr double kEntriesPerVisit = 12.0;
// Of a weight gradient: positions of a region times rows; and how much larger its tile is: it reads far more per visit.
constexpr int32_t kGradientVectors = 1 << 14;
constexpr int64_t kWeightTileBytes = 80 << 10, kMostWeightTileBytes = 160 << 10;
// Bytes of a packed region and its sums that should stay in the second-level cache, and the most tiles along an axis.
constexpr int64_t kRegionBytes = 192 << 10;
constexpr int32_t kMostTiles = 16;
// Bytes of a packed region of one image with outputs in the lanes: all blocks pass over it.
constexpr int64_t kImageRegionBytes = 24 << 10;

// What beginning a packed row costs, in positions: 4x4 tiles were 3 to 25 % slower than 2x8 or 1x16.
constexpr int32_t kRowStart = 8;

// From so many entries of a row on, two rows that take every word together are worth half as many positions of a tile:
// 1.05 times as fast at 115 entries, 1.18 at 345, slower at 29.
constexpr int64_t kEntriesOfTwins = 64;

struct Tile {
  int32_t h, w;
};
// Must be the list in impl.h.
constexpr Tile kTiles[] = {{2, 8}, {4, 4}, {1, 16}, {1, 8}, {2, 4}, {2, 2}, {1, 4}, {1, 2}, {1, 1}};

struct OwnedPlan : Plan {
  std::vector<int32_t> ptrs, offs, srcs, group_rows, first_groups;
};

int32_t ceil_div(int32_t a, int32_t b) { return (a + b - 1) / b; }

// Positions beyond a tile, of one phase, that its taps read.
int32_t around(const PlanShape& s, int32_t taps, int32_t stride) {
  return s.kind == kPhased ? ceil_div(taps, stride) - 1 : (taps - 1) / stride;
}

// Whether output channels 2i and 2i+1 keep the same, as in blocks of 2x2.
bool rows_are_twins(const uint8_t* mask, const PlanShape& s) {
  const bool phased = s.kind == kPhased;
  const int64_t taps = static_cast<int64_t>(s.kh) * s.kw, inner = (phased ? 1 : s.dim1) * taps, outer = phased ? s.dim0 : 1;
  const int64_t rows = phased ? s.dim1 : s.dim0;
  if (s.groups > 1 || s.shuffle > 1 || rows % 2 != 0) return false;  // of a shuffle, the next dense row is another phase
  for (int64_t first = 0; first < outer * rows; first += 2)
    if (!std::equal(mask + first * inner, mask + (first + 1) * inner, mask + (first + 1) * inner)) return false;
  return true;
}

Tile choose_tile(const PlanShape& s, const Isa& isa, bool twins) {
  if (s.in_lanes) return isa.lanes == kLanes ? Tile{std::min(4, s.grid_h), 4} : Tile{1, 4};
  Tile best{1, 1};
  double cost_of_best = 1e300;
  const bool point = s.kh == 1 && s.kw == 1;
  for (const Tile& t : kTiles) {
    const int32_t positions = t.h * t.w;
    if (s.blocks < kLanes ? positions * s.blocks * (twins ? 2 : 1) > isa.registers / 2 : t.w % 4 != 0) continue;  // matrices have registers of their own
    const double covered = static_cast<double>(ceil_div(s.grid_h, t.h)) * t.h * ceil_div(s.grid_w, t.w) * t.w;
    // Two loads and a broadcast per entry are shared by the positions of a tile, and so is what is packed: with its halo, and
    // with as much again as kRowStart positions for every row that is begun, in each phase of a stride.
    const int32_t strided = s.kind == kPhased ? 1 : s.stride_y * s.stride_x, halo_y = around(s, s.kh, s.stride_y), halo_x = around(s, s.kw, s.stride_x);
    const double halo = point ? 1.0 : s.blocks > 1 ? static_cast<double>((t.h + 2) * (t.w + 2)) / positions
                      : static_cast<double>(strided * (t.h + halo_y) * (t.w + halo_x + kRowStart)) / positions;
    const double cost = covered * (1.0 + 3.0 / positions + 0.1 * halo);
    if (cost < cost_of_best) {
      cost_of_best = cost;
      best = t;
    }
  }
  return best;
}

// The region of a weight gradient: whole rows, whose memory is visited page after page, of so many positions that the
// sums pay. Its part of the gradient, all rows of it, is read once per chunk.
Tile choose_weight_region(const PlanShape& s) {
  const int32_t positions = std::clamp(kGradientVectors / s.dim0, 16, 128);
  const int32_t wide = std::min({s.grid_w, positions, 32}), high = std::clamp(positions / wide, 1, s.grid_h);
  return {ceil_div(s.grid_h, ceil_div(s.grid_h, high)), ceil_div(s.grid_w, ceil_div(s.grid_w, wide))};  // even regions
}

// The region that packs the fewest pixels of those whose pixels and sums stay in the second-level cache. What two regions
// both read is packed twice; beyond the first level, one tile after the other brings its part there.
void choose_region(const PlanShape& s, int32_t span_y, int32_t span_x, Plan* p) {
  const int32_t tiles_y = ceil_div(s.grid_h, p->th), tiles_x = ceil_div(s.grid_w, p->tw);
  double cost_of_best = 1e300;
  for (int32_t gy = 1; gy <= kMostTiles; gy *= 2)
    for (int32_t gx = 1; gx <= kMostTiles; gx *= 2) {
      const int64_t pixels = static_cast<int64_t>(gy * p->th + span_y) * (gx * p->tw + span_x) * p->nphy * p->nphx;
      const int64_t sums = p->chunks > 1 ? static_cast<int64_t>(p->rows) * s.blocks * gy * p->th * gx * p->tw : 0;
      const int64_t bytes = (pixels * p->chunk + sums) * 4 * p->unit, most = s.in_lanes ? kImageRegionBytes : kRegionBytes;
      if (gy * gx > 1 && (bytes > most || (gy > 1 && gy / 2 >= tiles_y) || (gx > 1 && gx / 2 >= tiles_x))) continue;
      const double packed = static_cast<double>(pixels) * ceil_div(tiles_y, gy) * ceil_div(tiles_x, gx);
      const double cost = packed * (1.0 + static_cast<double>(bytes) / (4 * most));
      if (cost < cost_of_best) cost_of_best = cost, p->gy = gy, p->gx = gx;
    }
}

// Puts the entries of a chunk, which begin at ptrs[from] row after row, into groups (see plan.h).
void group_entries(OwnedPlan* p, size_t from) {
  const std::vector<int32_t> ptr(p->ptrs.begin() + from, p->ptrs.end()), off(p->offs.begin() + ptr[0], p->offs.end()), src(p->srcs.begin() + ptr[0], p->srcs.end());
  p->ptrs.resize(from), p->offs.resize(ptr[0]), p->srcs.resize(ptr[0]);
  p->first_groups.push_back(static_cast<int32_t>(p->group_rows.size()));
  for (int32_t size = kGroup; size > 0; size--) {
    p->ptrs.push_back(static_cast<int32_t>(p->offs.size()));
    for (int32_t row = 0; row < p->rows; row++) {
      const int32_t begin = ptr[row] - ptr[0], end = ptr[row + 1] - ptr[0], whole = (end - begin) / kGroup * kGroup;
      const int32_t t0 = size == kGroup ? begin : begin + whole, t1 = size == kGroup ? begin + whole : end;
      if (size < kGroup && t1 - t0 != size) continue;
      for (int32_t t = t0; t < t1; t += size) p->group_rows.push_back(row);
      p->offs.insert(p->offs.end(), off.begin() + t0, off.begin() + t1);
      p->srcs.insert(p->srcs.end(), src.begin() + t0, src.begin() + t1);
    }
  }
  p->ptrs.push_back(static_cast<int32_t>(p->offs.size()));
}

bool exact_div(int32_t a, int32_t b, int32_t* q) {
  if (a % b != 0) return false;
  *q = a / b;
  return true;
}

}  // namespace

Plan* make_plan(const uint8_t* mask, const PlanShape& s, const Isa* isa) {
  if (std::min({s.dim0, s.dim1, s.kh, s.kw, s.stride_y, s.stride_x, s.dilation_y, s.dilation_x, s.groups, s.shuffle, s.grid_h, s.grid_w, s.blocks}) < 1) return nullptr;
  if (std::max(s.stride_y, s.stride_x) > kLargestStride || std::min(s.top, s.left) < 0 || (s.shuffle > 1 && s.kind != kDirect)) return nullptr;
  if (s.pairs < 1 || s.pairs > 2 || (s.pairs == 2 && (s.flat || s.in_lanes || s.blocks > 1 || s.kind == kWeights))) return nullptr;
  if (s.pairs == 2 && isa->pairs() == nullptr) return nullptr;
  if (!kTrains && (s.kind == kWeights || s.in_lanes)) return nullptr;
  if (s.in_lanes && (s.flat || s.shuffle > 1 || s.blocks > 1)) return nullptr;
  if (static_cast<int64_t>(s.dim0) * s.dim1 * s.kh * s.kw > INT32_MAX) return nullptr;
  auto plan = std::make_unique<OwnedPlan>();
  OwnedPlan& p = *plan;
  p.isa = isa;
  p.kind = static_cast<Kind>(s.kind);
  p.dim0 = s.dim0, p.dim1 = s.dim1, p.kh = s.kh, p.kw = s.kw, p.block = s.in_lanes ? kLanes : 1;
  const bool direct = p.kind != kPhased;
  const int32_t dense_out = direct ? s.dim0 : s.dim1 * s.groups;
  p.in_channels = direct ? s.dim1 * s.groups : s.dim0;
  p.out_channels = dense_out / (s.shuffle * s.shuffle);
  p.so_y = direct ? s.shuffle : s.stride_y, p.so_x = direct ? s.shuffle : s.stride_x;
  p.si_y = direct ? s.stride_y : 1, p.si_x = direct ? s.stride_x : 1;
  p.rows = p.out_channels * p.phases();
  p.rows_of_bias = direct ? 1 : p.phases();
  if (dense_out % s.groups != 0 || p.in_channels % s.groups != 0 || p.rows != dense_out * p.rows_of_bias) return nullptr;
  p.pairs = s.pairs;
  const int64_t dense = static_cast<int64_t>(s.dim0) * s.dim1 * s.kh * s.kw, kept = std::count_if(mask, mask + dense, [](uint8_t m) { return m != 0; });
  // Flat, loads cross cache lines: sharing them pays with any number of entries. Pages do without, for their size.
  p.twins = (s.flat ? kTrains && s.blocks == 1 : s.pairs == 2 && kept >= kEntriesOfTwins * p.rows) && rows_are_twins(mask, s);
  p.unit = s.flat || s.in_lanes ? 1 : isa->lanes;
  const Tile tile = s.flat ? Tile{s.grid_h, s.grid_w} : s.tile_h > 0 ? Tile{s.tile_h, s.tile_w} : p.kind == kWeights ? choose_weight_region(s) : choose_tile(s, *isa, p.twins);
  p.th = tile.h, p.tw = tile.w;

  // Offsets of the taps, per output phase; tap k takes part in phase o when the division is exact.
  auto offset = [&](int32_t k, int32_t o, int32_t stride, int32_t padding, int32_t* d) {
    if (!direct) return exact_div(o + padding - k, stride, d);
    *d = k - padding;
    return true;
  };
  auto offset_y = [&](int32_t k, int32_t o, int32_t* d) { return offset(k * s.dilation_y, o, s.stride_y, s.top, d); };
  auto offset_x = [&](int32_t k, int32_t o, int32_t* d) { return offset(k * s.dilation_x, o, s.stride_x, s.left, d); };
  auto range = [&](int32_t taps, int32_t phases, const auto& of, int32_t* low, int32_t* high) {
    *low = INT32_MAX, *high = INT32_MIN;
    for (int32_t o = 0; o < phases; o++)
      for (int32_t k = 0, d; k < taps; k++)
        if (of(k, o, &d)) *low = std::min(*low, d), *high = std::max(*high, d);
  };
  int32_t dy1, dx1;
  range(s.kh, p.so_y, offset_y, &p.dy0, &dy1);
  range(s.kw, p.so_x, offset_x, &p.dx0, &dx1);
  p.nphy = std::min(p.si_y, dy1 - p.dy0 + 1);
  p.nphx = std::min(p.si_x, dx1 - p.dx0 + 1);
  const int32_t span_y = (dy1 - p.dy0) / p.si_y, span_x = (dx1 - p.dx0) / p.si_x;

  // Positions of one channel that a tile reads. Flat: the first-level cache holds what one run of accumulators needs.
  const int64_t tile_positions = static_cast<int64_t>(p.nphy) * (p.th + span_y) * p.nphx * (p.tw + span_x);
  const int64_t window = kFlatVectors * isa->lanes + static_cast<int64_t>(span_y) * p.nphx * (p.tw + span_x) + p.tw + span_x;
  const int64_t channel_floats = s.flat ? std::min(window, tile_positions) * p.nphy : tile_positions * isa->lanes;
  const double per_channel = std::max(1e-3, static_cast<double>(kept) / p.rows / p.in_channels);  // entries of a row
  const bool weights = p.kind == kWeights;
  const int64_t fits = (weights ? kWeightTileBytes : kTileBytes) / (channel_floats * 4);
  const int64_t most = (weights ? kMostWeightTileBytes : kMostTileBytes) / (channel_floats * 4);
  const int64_t worthwhile = std::min<int64_t>(most, static_cast<int64_t>(kEntriesPerVisit / per_channel));
  const bool matrices = s.blocks == kLanes;  // take sixteen entries at a time, and have no sums to be put by
  p.chunk = matrices || s.in_lanes ? p.in_channels : s.chunk > 0 ? s.chunk : static_cast<int32_t>(std::max<int64_t>({8, fits / 4 * 4, worthwhile}));
  p.chunks = ceil_div(p.in_channels, std::min(p.chunk, p.in_channels));
  p.chunk = ceil_div(p.in_channels, p.chunks);  // even chunks
  if (s.tiles_y > 0) p.gy = s.tiles_y, p.gx = s.tiles_x;
  else if (!s.flat && p.kind != kWeights) choose_region(s, span_y, span_x, &p);
  p.ph = p.th * p.gy + span_y, p.pw = p.tw * p.gx + span_x;
  p.packed_positions = static_cast<int64_t>(p.nphy) * p.ph * p.nphx * p.pw;

  // What a tap reads in a phase, and where that lies in the packed tile of a channel; taps that take no part are left out.
  struct Tap {
    int32_t at;
    int64_t position;
  };
  const int32_t phases = direct ? 1 : p.rows_of_bias;
  std::vector<std::vector<Tap>> of_phase(phases);
  for (int32_t phase = 0; phase < phases; phase++)
    for (int32_t ky = 0, dy, dx; ky < s.kh; ky++)
      for (int32_t kx = 0; kx < s.kw; kx++) {
        if (!offset_y(ky, phase / p.so_x, &dy) || !offset_x(kx, phase % p.so_x, &dx)) continue;
        const int32_t ry = dy - p.dy0, rx = dx - p.dx0;
        of_phase[phase].push_back({ky * s.kw + kx, ((static_cast<int64_t>(ry % p.si_y) * p.ph + ry / p.si_y) * p.nphx + rx % p.si_x) * p.pw + rx / p.si_x});
      }

  const int64_t taps = static_cast<int64_t>(s.kh) * s.kw;
  p.offs.reserve(kept);
  p.srcs.reserve(kept);
  p.ptrs.reserve(static_cast<int64_t>(p.chunks) * (p.rows + 1));
  for (int32_t k = 0; k < p.chunks; k++) {
    const size_t from = p.ptrs.size();
    const int32_t c0 = k * p.chunk, c1 = std::min(p.in_channels, c0 + p.chunk);
    for (int32_t row = 0; row < p.rows; row++) {
      p.ptrs.push_back(static_cast<int32_t>(p.offs.size()));
      const int32_t r = row / p.rows_of_bias;
      const int32_t group = r / (dense_out / s.groups), of_group = p.in_channels / s.groups;
      for (int32_t c = std::max(c0, group * of_group); c < std::min(c1, (group + 1) * of_group); c++) {
        const int64_t base = (direct ? static_cast<int64_t>(r) * s.dim1 + c - group * of_group : static_cast<int64_t>(c) * s.dim1 + r - group * s.dim1) * taps;
        for (const Tap& tap : of_phase[row % phases]) {
          if (mask[base + tap.at] == 0) continue;
          p.offs.push_back(static_cast<int32_t>(((c - c0) * p.packed_positions + tap.position) * p.unit));
          p.srcs.push_back(static_cast<int32_t>(base + tap.at));
        }
      }
    }
    p.ptrs.push_back(static_cast<int32_t>(p.offs.size()));
    if (kTrains && p.kind == kWeights) group_entries(&p, from);
  }
  p.entries = kept;
  p.ptr = p.ptrs.data(), p.off = p.offs.data(), p.src = p.srcs.data();
  p.group_row = p.group_rows.data(), p.first_group = p.first_groups.data();
  return plan.release();
}

void free_plan(Plan* plan) { delete static_cast<OwnedPlan*>(plan); }

}  // namespace gc
