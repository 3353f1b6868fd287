// Part of impl_bytes.h: sixteen rows together, by the instructions for matrices (AMX).
//
// A tile of weights is [16 rows][16 entries] words, one of bytes [16 entries][16 lanes] words, and their product
// [16 rows][16 lanes] sums. The hardware reads rows of a tile at equal distances only, so the words of bytes that the
// entries ask for are brought together first: sixteen vectors are copied for every tile that is multiplied.

constexpr int kTileRows = 16;
constexpr int kTileWords = kTileRows * kTileRows;
constexpr int kBeside = 4;  // positions of a tile row that are multiplied by the same weights

// Sums of kBeside positions.
#if defined(GC_EMULATED)
struct Sums16 {
  int32_t a[kBeside][kTileWords];
  void clear() { memset(a, 0, sizeof a); }
  void store(int32_t* to, int64_t stride) const {
    for (int k = 0; k < kBeside; k++) for (int r = 0; r < kTileRows; r++) memcpy(to + r * stride + k * VL, a[k] + r * kTileRows, VL * 4);
  }
  void add(const int32_t* weights, const int32_t* bytes) {
    for (int k = 0; k < kBeside; k++)
      for (int r = 0; r < kTileRows; r++)
        for (int e = 0; e < kTileRows; e++) {
          int32_t* to = a[k] + r * kTileRows;
          gc::GC_INSIDE::store(to, dot(gc::GC_INSIDE::load(to), gc::GC_INSIDE::load(bytes + k * kTileWords + e * VL), splat(weights[r * kTileRows + e])));
        }
  }
};
struct Matrices {};
#else
// Tiles are registers that the compiler does not know: 0 to 3 hold sums, 4 weights, 5 and 6 bytes.
#define GC_TILE_LOAD(n, from, bytes) asm volatile("tileloadd (%0,%1,1), %%tmm" #n : : "r"(from), "r"(bytes) : "memory")
#define GC_TILE_STORE(n, to, bytes) asm volatile("tilestored %%tmm" #n ", (%0,%1,1)" : : "r"(to), "r"(bytes) : "memory")
#define GC_TILE_CLEAR(n) asm volatile("tilezero %%tmm" #n ::)
#define GC_TILE_ADD(sum, weights, bytes) asm volatile("tdpbsud %%tmm" #bytes ", %%tmm" #weights ", %%tmm" #sum ::)
struct Sums16 {
  void clear() { GC_TILE_CLEAR(0); GC_TILE_CLEAR(1); GC_TILE_CLEAR(2); GC_TILE_CLEAR(3); }
  void store(int32_t* to, int64_t stride) const {
    const int64_t apart = stride * 4;
    GC_TILE_STORE(0, to, apart); GC_TILE_STORE(1, to + VL, apart); GC_TILE_STORE(2, to + 2 * VL, apart); GC_TILE_STORE(3, to + 3 * VL, apart);
  }
  void add(const int32_t* weights, const int32_t* bytes) {
    const int64_t apart = kTileRows * 4;
    GC_TILE_LOAD(4, weights, apart);
    GC_TILE_LOAD(5, bytes, apart); GC_TILE_ADD(0, 4, 5);
    GC_TILE_LOAD(6, bytes + kTileWords, apart); GC_TILE_ADD(1, 4, 6);
    GC_TILE_LOAD(5, bytes + 2 * kTileWords, apart); GC_TILE_ADD(2, 4, 5);
    GC_TILE_LOAD(6, bytes + 3 * kTileWords, apart); GC_TILE_ADD(3, 4, 6);
  }
};
// Tiles of 16 rows of 64 bytes, for as long as it lives: of the thread.
struct Matrices {
  Matrices() {
    alignas(64) uint8_t shape[64] = {1};
    for (int i = 0; i < 8; i++) shape[16 + 2 * i] = 64, shape[48 + i] = kTileRows;
    asm volatile("ldtilecfg (%0)" : : "r"(shape) : "memory");
  }
  ~Matrices() { asm volatile("tilerelease" ::); }
};
#endif

// One tile product: a row of the plan, kBeside vectors of positions, and entries from `t` on.
struct Turn {
  int32_t row, group, t;
};

// The sums of all rows for `groups` of kBeside vectors. The first vector of a group is read from from(group) on; the sums
// of a row go to to(row), `pitch` apart, and done(row) takes them from there. All inputs are one chunk.
template <class From, class To, class Done>
GC_INLINE void multiply(const ByteJob& j, int32_t groups, int64_t pitch, const From& from, const To& to, const Done& done) {
  const int32_t* ptr = j.ptr;
  alignas(64) int32_t bytes[2][kBeside * kTileWords];
  const auto bring = [&](const Turn& turn, int32_t* where) {
    const int32_t *first = from(turn.group), *off = j.off + turn.t;
    GC_UNROLL for (int e = 0; e < kTileRows; e++) {
      const int32_t* at = first + off[e];
      GC_UNROLL for (int b = 0; b < kBeside; b++) store(where + b * kTileWords + e * VL, load_any(at + b * VL));
    }
  };
  const auto next_of = [&](Turn turn) {
    turn.t += kTileRows;
    if (turn.t < ptr[turn.row + 1]) return turn;
    if (++turn.group == groups) {
      turn.group = 0;
      do turn.row++;
      while (turn.row < j.row1 && ptr[turn.row] == ptr[turn.row + 1]);
    }
    turn.t = turn.row < j.row1 ? ptr[turn.row] : 0;
    return turn;
  };
  Turn next = next_of({j.row0 - 1, groups - 1, ptr[j.row0]});
  int32_t filled = 0;
  if (next.row < j.row1) bring(next, bytes[0]);
  for (int32_t row = j.row0; row < j.row1; row++) {
    for (int32_t group = 0; group < groups; group++) {
      Sums16 sum;
      sum.clear();
      for (int32_t t = ptr[row]; t < ptr[row + 1]; t += kTileRows, filled ^= 1) {
        // What is multiplied next is brought before what is multiplied now, whose words have arrived in the cache by then.
        next = next_of(next);
        if (next.row < j.row1) bring(next, bytes[filled ^ 1]);
        sum.add(j.words + static_cast<int64_t>(t) * kTileRows, bytes[filled]);
      }
      sum.store(to(row) + group * kBeside * VL, pitch);
    }
    done(row);
  }
}

template <int TH, int TW>
static void tiles_region(const ByteJob& j, int32_t lane0, int32_t y0, int32_t x0, int32_t ty, int32_t tx) {
  constexpr int64_t kRow = TH * TW * VL;
  constexpr int32_t kAcross = TW / kBeside;
  const int64_t step = static_cast<int64_t>(j.plan->nphx) * j.plan->pw * VL;
  const int32_t* packed = words_of(j.packed) + ty * step + tx * VL;
  const bool words = in_words(j);
  alignas(64) int32_t sums[kTileRows * kRow];
  multiply(
      j, TH * kAcross, kRow, [&](int32_t group) { return packed + group / kAcross * step + group % kAcross * kBeside * VL; },
      [&](int32_t) { return sums; },
      [&](int32_t row) {
        if (words) for (int32_t b = 0; b < kTileRows; b += kInWord) finish_word(j, TH, TW, sums + b * kRow, kRow, row, b, lane0, y0, x0);
        else for (int32_t b = 0; b < kTileRows; b++) finish(j, TH, TW, sums + b * kRow, row, b, lane0, y0, x0);
      });
}
