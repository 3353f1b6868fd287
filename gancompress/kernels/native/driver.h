// Shared by the drivers: how a block of 16 images is found in the caller's memory.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "api.h"
#include "axis.h"
#include "isa.h"
#include "plan.h"
#include "team.h"

namespace gc {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Threads worth starting for a convolution onto `blocks` blocks of h x w pixels: none gets less than about 0.1 ms of work.
// Results do not depend on the number of threads, so this is free to choose.
inline int32_t useful_threads(int32_t asked, const Plan& plan, int64_t blocks, int64_t h, int64_t w) {
  const int64_t vectors = plan.entries * blocks * ceil_div(h, plan.so_y) * ceil_div(w, plan.so_x);
  return static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(asked, 1 + vectors / 250000)));
}

// Where one block of 16 images lies, [channel][y][x][16]: strides in floats.
struct Place {
  float* data;
  int64_t c, y, x;
};

// A tensor of any layout (see GcLayout), seen as blocks [C][height][width][16].
//
// Images: one block per 16 of them. Points: one block in all, whose columns are the groups of 16 points; so a linear
// layer is a 1x1 convolution over one row. Both are brought into a buffer block by block. Batch last, the images lie
// side by side already, and the kernels work where they lie.
class Loader {
 public:
  Loader(const float* data, int32_t layout, int64_t batch, int64_t channels, int32_t h, int32_t w)
      : data_(const_cast<float*>(data)), layout_(layout), batch_(batch), channels_(channels), h_(points() ? 1 : h),
        w_(points() ? static_cast<int32_t>(ceil_div(batch, kLanes)) : w) {}

  bool in_place() const { return layout_ == GC_BATCH_LAST; }
  int64_t blocks() const { return points() ? 1 : ceil_div(batch_, kLanes); }
  int64_t channels() const { return channels_; }
  int32_t height() const { return h_; }
  int32_t width() const { return w_; }
  int64_t block_floats() const { return in_place() ? 0 : channels_ * h_ * w_ * kLanes; }
  int32_t lanes(int64_t block) const {
    return static_cast<int32_t>(points() ? std::min<int64_t>(kLanes, batch_) : std::min<int64_t>(kLanes, batch_ - block * kLanes));
  }

  // The block, in the caller's memory or in the buffer that it was loaded to.
  Place place(int64_t block, float* buffer) const {
    const int64_t x = in_place() ? batch_ : kLanes, y = x * w_, c = y * h_;
    return {in_place() ? data_ + block * kLanes : buffer, c, y, x};
  }

  // Brings channels c0..c1 of a block to `to`, the start of the buffer.
  void load(const Isa* isa, int64_t block, int64_t c0, int64_t c1, float* to) const {
    if (!points()) {
      const int64_t plane = static_cast<int64_t>(h_) * w_;
      isa->to_blocked(image(block) + c0 * plane, channels_ * plane, lanes(block), (c1 - c0) * plane, to + c0 * plane * kLanes, kLanes, kLanes);
      return;
    }
    const int64_t column = static_cast<int64_t>(w_) * kLanes;
    for (int64_t g = 0; g < w_; g++)
      isa->to_blocked(data_ + g * kLanes * channels_ + c0, channels_, group(g), c1 - c0, to + c0 * column + g * kLanes, column, kLanes);
  }

  // Takes rows y0.. of channels c0..c1 from a stripe [C][..][W][16] whose channels lie stripe_c apart.
  void store(const Isa* isa, int64_t block, int64_t c0, int64_t c1, int32_t y0, int32_t rows, const float* from, int64_t stripe_c) const {
    if (!points()) {
      const int64_t plane = static_cast<int64_t>(h_) * w_;
      for (int64_t c = c0; c < c1; c++)
        isa->from_blocked(from + c * stripe_c, kLanes, static_cast<int64_t>(rows) * w_, image(block) + c * plane + static_cast<int64_t>(y0) * w_,
                          channels_ * plane, lanes(block));
      return;
    }
    for (int64_t g = 0; g < w_; g++)
      isa->from_blocked(from + c0 * stripe_c + g * kLanes, stripe_c, c1 - c0, data_ + g * kLanes * channels_ + c0, channels_, group(g));
  }

 private:
  bool points() const { return layout_ == GC_POINTS; }
  float* image(int64_t block) const { return data_ + block * kLanes * channels_ * h_ * w_; }
  int32_t group(int64_t g) const { return static_cast<int32_t>(std::min<int64_t>(kLanes, batch_ - g * kLanes)); }

  float* data_;
  int32_t layout_;
  int64_t batch_, channels_;
  int32_t h_, w_;
};

// What one thread needs to run tiles of a plan.
struct Buffers {
  Scratch packed, acc, stripe, check;
  Buffers(const Plan& plan, int64_t stripe_floats);
  bool finite() const;  // whether all that was packed so far is
};

// The axes of an image that a plan reads whole, and their tables for a job.
class Axes {
 public:
  Axes(const Plan& plan, const AxisShape& rows, const AxisShape& columns, int32_t ho, int32_t wo)
      : rows_(rows_of(plan, rows, ho)), columns_(columns_of(plan, columns, wo)) {}
  Axes(const Plan& plan, const Loader& in, int32_t ho, int32_t wo)
      : Axes(plan, {in.height(), in.height(), 1, 0, kZeros}, {in.width(), in.width(), 1, 0, kZeros}, ho, wo) {}
  void give(TileJob& job) const { job.rows = rows_.lines(), job.columns = columns_.lines(); }

 private:
  Axis rows_, columns_;
};

// A job on the whole of a plan; sizes, places and tiles are left to be set.
TileJob job_of(const Plan& plan, const float* value, const float* bias);
// The value of every entry, from the dense weight. In pairs, whatever is off the mask must be 0 there.
void take_values(const Plan& plan, const float* weight, float* value);
void read_from(TileJob& job, const Place& place, int32_t h, int32_t w);
void write_to(TileJob& job, const Place& place, int32_t h, int32_t w);

// A convolution from blocks to the caller's memory, in items that threads may take in any order.
class Stripes {
 public:
  // `base` holds the plan, the values and what is fused; `together` blocks are worked on at the same time.
  Stripes(const TileJob& base, const Loader& in, const Loader& out, int32_t threads, int64_t together);
  int64_t count() const { return tiles_ * groups_; }
  // `gate` is of this block, or has no data.
  void run(int64_t block, int64_t item, const Place& input, const Place& gate, int32_t thread) const;
  bool finite() const;

 private:
  Loader in_, out_;
  Axes axes_;
  TileJob base_;
  int64_t tiles_, groups_;  // tile rows first, then rows of the plan where there are few of those
  std::vector<std::unique_ptr<Buffers>> buffers_;
};

struct Program;
Program* new_program(const GcProgram& shape, const Isa* isa);
void free_program(Program* program);
int32_t add_step(Program& program, const GcStep& step);
int32_t run_program(const Program& program, const GcRun& args);

int32_t run_conv(const GcConv& args);
int32_t run_backward(const GcBackward& args);
int32_t run_boxes(const GcBoxes& args);
int32_t run_filter(const GcFilter& args, const Isa& isa);
int32_t run_style(const GcStyle& args, const Isa& isa, bool gradient);
// The sums over [images][channels][count] of every channel.
int32_t run_totals(const float* x, int64_t images, int64_t channels, int64_t count, float* out, int32_t threads, const Isa& isa);

}  // namespace gc
