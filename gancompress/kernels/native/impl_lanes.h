// Part of impl.h: one image at a time, with kLanes outputs in the lanes, for weights that are kept in blocks of so many.
//
// An entry is one input at one tap for all outputs of a block: its weights are vectors, the pixel is a scalar that all
// lanes share. So small maps waste nothing, and no load crosses a line. The whole input is packed as for pixels in the
// lanes (impl_flat.h); from there, region after region is brought together in the first-level cache, where all blocks
// pass over it.

// The sums of a tile of one block, to sums [kLanes][pitch], rows `stride` apart.
template <int TH, int TW>
static void lanes_tile(const TileJob& j, int32_t row, const float* packed, float* sums, int64_t pitch, int64_t stride) {
  const Plan& p = *j.plan;
  const int64_t step = static_cast<int64_t>(p.nphx) * p.pw;
  vf a[TH][TW][kParts];
  GC_UNROLL for (int part = 0; part < kParts; part++) {
    const vf b = j.bias != nullptr ? load_any(j.bias + static_cast<int64_t>(row / p.rows_of_bias) * kLanes + part * VL) : zero();
    GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) a[i][k][part] = b;
  }
  const float* value = j.value + static_cast<int64_t>(p.ptr[row]) * kLanes;
  for (int32_t t = p.ptr[row]; t < p.ptr[row + 1]; t++, value += kLanes) {
    const float* at = packed + p.off[t];
    vf w[kParts];
    GC_UNROLL for (int part = 0; part < kParts; part++) w[part] = load_any(value + part * VL);
    GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < TW; k++) {
      const float x = at[i * step + k];
      GC_UNROLL for (int part = 0; part < kParts; part++) a[i][k][part] += x * w[part];
    }
  }
  GC_UNROLL for (int i = 0; i < TH; i++) {
    float turned[TW][kLanes];
    GC_UNROLL for (int k = 0; k < TW; k++) GC_UNROLL for (int part = 0; part < kParts; part++) store_any(turned[k] + part * VL, a[i][k][part]);
    for (int lane = 0; lane < kLanes; lane += 4) {
      v4 q = load4(turned[0] + lane), r = load4(turned[1] + lane), s = load4(turned[2] + lane), t = load4(turned[3] + lane);
      transpose4(q, r, s, t);
      float* to = sums + lane * pitch + i * stride;
      store4(to, q), store4(to + pitch, r), store4(to + 2 * pitch, s), store4(to + 3 * pitch, t);
    }
  }
}

// All regions, row after row of them, so that sums are still in the second-level cache when they are finished.
template <int TH, int TW>
static void lanes_regions(const TileJob& j, const TileJob& all) {
  const Plan &p = *j.plan, &whole = *all.plan;
  const int64_t stride = static_cast<int64_t>(whole.nphx) * whole.pw, pitch = lanes_pitch(p, whole);
  const int32_t phases = p.so_y * p.so_x;
  const int32_t high = TH * p.gy, wide = TW * p.gx;
  float* const region = j.packed + whole.packed_positions * p.in_channels + kFlatVectors * VL + whole.pw;
  for (int32_t y = 0; y < whole.th; y += high) {
    for (int32_t x = 0; x < whole.tw; x += wide) {
      gather_region(p, whole, j.packed, y, x, region);
      for (int32_t row = 0; row < p.rows; row++)
        for (int32_t ty = 0; ty < high; ty += TH)
          for (int32_t tx = 0; tx < wide; tx += TW)
            lanes_tile<TH, TW>(j, row, region + static_cast<int64_t>(ty) * p.nphx * p.pw + tx,
                               j.acc + row * kLanes * pitch + ty * stride + x + tx, pitch, stride);
    }
    for (int32_t row = 0; row < p.rows; row++)
      for (int32_t i = 0; i < kLanes; i++)
        finish_flat(all, (row / phases * kLanes + i) * phases + row % phases, static_cast<int32_t>(y * stride), static_cast<int32_t>(high * stride),
                    j.acc + (static_cast<int64_t>(row) * kLanes + i) * pitch);
  }
}

static void conv_lanes(const TileJob& j) {
  const Plan& p = *j.plan;
  const Plan whole = whole_image(p, j.ho, j.wo);
  TileJob all = j;
  all.plan = &whole;
  pack_flat(all);
  switch (p.th) {
    case 4: lanes_regions<4, 4>(j, all); break;
    case 3: lanes_regions<3, 4>(j, all); break;
    case 2: lanes_regions<2, 4>(j, all); break;
    default: lanes_regions<1, 4>(j, all); break;
  }
}
