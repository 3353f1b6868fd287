// Part of impl_bytes.h: one image at a time, with kLanes outputs in the lanes; see impl_lanes.h.
//
// An entry is a word of four inputs at one tap, which all lanes share, and a word of weights for each of them.

constexpr int kParts = kLanes / VL;
constexpr int kWide = 4;  // pixels of a tile beside each other

#define GC_PIXELS GC_UNROLL for (int i = 0; i < TH; i++) GC_UNROLL for (int k = 0; k < kWide; k++)
#define GC_PARTS GC_UNROLL for (int part = 0; part < kParts; part++)

// The sums of a tile of one block, to sums [kLanes][pitch], rows `stride` apart.
template <int TH>
static void lanes_tile(const ByteJob& j, int32_t row, const int32_t* packed, int32_t* sums, int64_t pitch, int64_t stride) {
  const Plan& p = *j.plan;
  const int64_t step = static_cast<int64_t>(p.nphx) * p.pw;
  vi a[TH][kWide][kParts];
  GC_PIXELS GC_PARTS a[i][k][part] = load_any(j.start + row * kLanes + part * VL);
  const int32_t *words = j.words + static_cast<int64_t>(j.ptr[row]) * kLanes, *off = j.off + j.ptr[row], *const end = j.off + j.ptr[row + 1];
#if GC_DOT == GC_HALVES
  for (const int32_t* const pairs = j.off + j.single[row]; off < pairs; off += 2, words += 2 * kLanes) {
    const int32_t *at = packed + off[0], *next = packed + off[1];
    vi w[kParts], u[kParts];
    GC_PARTS w[part] = load_any(words + part * VL), u[part] = load_any(words + kLanes + part * VL);
    GC_PIXELS {
      const vi x = splat(at[i * step + k]), z = splat(next[i * step + k]);
      GC_PARTS a[i][k][part] += whole(both(halves(x, w[part]), halves(z, u[part])));
    }
  }
#endif
  for (; off < end; off++, words += kLanes) {
    const int32_t* at = packed + off[0];
    vi w[kParts];
    GC_PARTS w[part] = load_any(words + part * VL);
    GC_PIXELS {
      const vi x = splat(at[i * step + k]);
      GC_PARTS a[i][k][part] = dot(a[i][k][part], x, w[part]);
    }
  }
  for (int i = 0; i < TH; i++) {
    alignas(64) int32_t lanes[kWide][kLanes], pairs[2][2 * kLanes], turned[kLanes][kWide];
    GC_UNROLL for (int k = 0; k < kWide; k++) GC_PARTS store_any(lanes[k] + part * VL, a[i][k][part]);
    zip(lanes[0], lanes[2], kLanes, pairs[0]);
    zip(lanes[1], lanes[3], kLanes, pairs[1]);
    zip(pairs[0], pairs[1], 2 * kLanes, turned[0]);
    for (int lane = 0; lane < kLanes; lane++) memcpy(sums + lane * pitch + i * stride, turned[lane], sizeof turned[lane]);
  }
}
#undef GC_PIXELS
#undef GC_PARTS

// All regions, row after row of them, so that sums are still in the second-level cache when they are finished.
template <int TH>
static void lanes_regions(const ByteJob& j, const ByteJob& all) {
  const Plan &p = *j.plan, &whole = *all.plan;
  const int64_t stride = static_cast<int64_t>(whole.nphx) * whole.pw, pitch = lanes_pitch(p, whole);
  const int32_t phases = p.phases(), high = TH * p.gy, wide = kWide * p.gx;
  int32_t* const region = reinterpret_cast<int32_t*>(j.packed) + whole.packed_positions * p.in_channels + kFlatVectors * VL + whole.pw;
  int32_t* const sums = reinterpret_cast<int32_t*>(j.acc);
  Piece piece;
  for (int32_t y = 0; y < whole.th; y += high) {
    for (int32_t x = 0; x < whole.tw; x += wide) {
      gather_region(p, whole, words_of(j.packed), y, x, region);
      for (int32_t row = 0; row < p.rows; row++)
        for (int32_t ty = 0; ty < high; ty += TH)
          for (int32_t tx = 0; tx < wide; tx += kWide)
            lanes_tile<TH>(j, row, region + static_cast<int64_t>(ty) * p.nphx * p.pw + tx, sums + row * kLanes * pitch + ty * stride + x + tx, pitch, stride);
    }
    const int32_t from = static_cast<int32_t>(y * stride), count = static_cast<int32_t>(high * stride);
    for (int32_t begin = 0; begin < count; begin += kPiece) {
      cut_piece(all, from + begin, count - begin < kPiece ? count - begin : kPiece, &piece);
      for (int32_t row = 0; row < p.rows; row += phases)
        for (int32_t lane = 0; lane < kLanes; lane += kInWord)
          finish_flat(all, row / phases * kLanes + lane, kInWord, piece,
                      {sums + (static_cast<int64_t>(row) * kLanes + lane) * pitch + begin, pitch, kLanes * pitch});
    }
  }
}

static void conv_lanes(const ByteJob& j) {
  const Plan& p = *j.plan;
  const Plan whole = whole_image(p, j.ho, j.wo);
  ByteJob all = j;
  all.plan = &whole;
  pack_flat(all);
  switch (p.th) {
    case 4: lanes_regions<4>(j, all); break;
    case 3: lanes_regions<3>(j, all); break;
    case 2: lanes_regions<2>(j, all); break;
    default: lanes_regions<1>(j, all); break;
  }
}
