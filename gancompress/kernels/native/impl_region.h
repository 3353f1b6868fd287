// Part of impl.h and of impl_bytes.h: what convolutions of single images with outputs in the lanes read, numbers or words.

// Brings the region of what is packed that begins with position (y, x) of the grid together.
template <class Word>
static void gather_region(const Plan& p, const Plan& whole, const Word* packed, int32_t y, int32_t x, Word* to) {
  constexpr int32_t kTogether = 16 / sizeof(Word);
  const int64_t line = static_cast<int64_t>(whole.nphx) * whole.pw;
  for (int32_t c = 0; c < p.in_channels; c++)
    for (int32_t phase = 0; phase < p.nphy; phase++)
      for (int32_t q = 0; q < p.ph; q++)
        for (int32_t across = 0; across < p.nphx; across++, to += p.pw) {
          const Word* from = packed + c * whole.packed_positions + (phase * whole.ph + y + q) * line + across * whole.pw + x;
          for (int32_t k = 0; k < p.pw; k += kTogether) memcpy(to + k, from + k, 16);  // what is too much is written over
        }
}
