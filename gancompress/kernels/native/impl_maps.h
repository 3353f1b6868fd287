// Part of impl.h: steps of programs beside convolutions, on maps [channel][y][x][lane].

// Sums of scaled maps, then an activation.
static void sum(const MapJob& j) {
  for (int32_t c = 0; c < j.channels; c++) {
    float* const out = j.out + c * j.plane;
    for (int32_t m = 0; m < j.added; m++) {
      const Added& add = j.add[m];
      const float* from = add.data + c * add.c;
      const bool first = j.first && m == 0;
      for (int32_t y = 0; y < j.h; y++) {
        float* to = out + y * j.row;
        const float* line = from + (y / add.up) * add.y;
        const int32_t count = add.up == 1 ? static_cast<int32_t>(j.row) : j.width;
        for (int32_t x = 0; x < (add.up == 1 ? 1 : j.w); x++, to += count) {
          const float* at = line + (x / add.up) * add.x;
          if (first)
            for (int32_t k = 0; k < count; k++) to[k] = add.factor * at[k];
          else
            for (int32_t k = 0; k < count; k++) to[k] += add.factor * at[k];
        }
      }
    }
    if (j.act.kind != kNone) {
      const vf slope = zero() + (j.act.kind == kSlopes ? j.act.slopes[c] : 0.0f);
      for (int32_t y = 0; y < j.h; y++) activate_floats(out + y * j.row, static_cast<int32_t>(j.row), j.act.kind, slope);
    }
  }
}

// Adds, lane by lane, (v - mean) or its square over one channel, row by row so that long sums stay exact.
template <bool SQUARES>
static void add_up(const MapJob& j, const float* plane, const double* mean, double* sums) {
  for (int32_t y = 0; y < j.h; y++) {
    float row[kLanes] = {}, centre[kLanes];
    for (int32_t lane = 0; lane < j.width; lane++) centre[lane] = static_cast<float>(mean[lane]);
    if (j.width == 1) {  // pixels side by side
      float part[VL] = {};
      vf total = zero();
      int32_t x = 0;
      for (; x + VL <= j.w; x += VL) {
        const vf v = load_any(plane + y * j.row + x) - centre[0];
        total += SQUARES ? v * v : v;
      }
      store_any(part, total);
      for (int lane = 0; lane < VL; lane++) row[0] += part[lane];
      for (; x < j.w; x++) {
        const float v = plane[y * j.row + x] - centre[0];
        row[0] += SQUARES ? v * v : v;
      }
      sums[0] += row[0];
      continue;
    }
    for (int32_t lane0 = 0; lane0 < j.width; lane0 += VL) {
      vf total = zero();
      const vf middle = load_any(centre + lane0);
      for (int32_t x = 0; x < j.w; x++) {
        vf v = load(plane + y * j.row + x * j.width + lane0) - middle;
        if (j.one_image)
          for (int lane = 0; lane < VL; lane++)
            if ((lane0 + lane) * j.strip_y + y >= j.whole_h || (lane0 + lane) * j.strip_x + x >= j.whole_w) v[lane] = 0.0f;
        total += SQUARES ? v * v : v;
      }
      store_any(row + lane0, total);
    }
    for (int32_t lane = 0; lane < j.width; lane++) sums[lane] += row[lane];
  }
}

// Every group of channels of an image to mean 0 and variance 1, then gain and bias.
static void norm(const MapJob& j) {
  const int32_t size = j.channels / j.groups;
  const double count = static_cast<double>(size) * j.whole_h * j.whole_w;
  for (int32_t group = 0; group < j.groups; group++) {
    double mean[kLanes] = {}, variance[kLanes] = {};
    const auto all = [&](double* sums, bool squares) {
      double zeros_[kLanes] = {};
      for (int32_t c = group * size; c < (group + 1) * size; c++)
        if (squares) add_up<true>(j, j.in + c * j.plane, mean, sums);
        else add_up<false>(j, j.in + c * j.plane, zeros_, sums);
      double whole = 0.0;
      for (int32_t lane = 0; lane < j.width; lane++) whole += sums[lane];
      for (int32_t lane = 0; lane < j.width; lane++) sums[lane] = (j.one_image ? whole : sums[lane]) / count;
    };
    double total[kLanes] = {};
    all(total, false);
    memcpy(mean, total, sizeof total);
    all(variance, true);
    for (int32_t c = group * size; c < (group + 1) * size; c++) {
      float scale[kLanes], centre[kLanes];
      const float shift = j.bias != nullptr ? j.bias[c] : 0.0f;
      for (int32_t lane = 0; lane < j.width; lane++) {
        scale[lane] = static_cast<float>((j.gain != nullptr ? j.gain[c] : 1.0) / __builtin_sqrt(variance[lane] + j.eps));
        centre[lane] = static_cast<float>(mean[lane]);
      }
      const float* from = j.in + c * j.plane;
      float* to = j.out + c * j.plane;
      const int64_t floats = static_cast<int64_t>(j.h) * j.row;
      if (j.width == 1)
        for (int64_t k = 0; k < floats; k++) to[k] = (from[k] - centre[0]) * scale[0] + shift;
      else
        for (int32_t lane0 = 0; lane0 < j.width; lane0 += VL) {
          const vf s = load_any(scale + lane0), m = load_any(centre + lane0);
          for (int64_t k = lane0; k < floats; k += j.width) store(to + k, (load(from + k) - m) * s + shift);
        }
    }
  }
}
