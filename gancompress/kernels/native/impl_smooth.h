// Part of impl.h and impl_bytes.h: tanh, sigmoid and x * sigmoid(x), to a few units in the last place.
//
// Polynomials are fitted by us at Chebyshev nodes: that of exp to 1e-8 within half a power of two, that of tanh to 2e-8
// up to kFlat, below which 1 - exp(-2x) would cancel. What is not a number stays so, and infinities are the limits.

typedef unsigned bits __attribute__((vector_size(VL * 4), aligned(VL * 4), may_alias));

constexpr float kFlat = 0.625f;

// exp(v): at least 1e-38, from 2^128 on infinite.
GC_INLINE vf exponential(vf v) {
  v = v < -87.3f ? zero() - 87.3f : v;
  v = v > 89.0f ? zero() + 89.0f : v;
  const float round = 12582912.0f;  // 1.5 * 2^23: added, it leaves a whole number in the lowest bits
  const vf shifted = v * 1.44269504f + round, n = shifted - round;
  const vf r = (v - n * 0.693145752f) - n * 1.42860677e-6f;
  const vf p = (((0.00139339f * r + 0.00836335f) * r + 0.04166646f) * r + 0.16666576f) * r + 0.5f;
  const bits power = (reinterpret_cast<bits>(shifted) << 23) + (127u << 23);
  return (p * r * r + r + 1.0f) * reinterpret_cast<vf>(power);
}

GC_INLINE vf hyperbolic(vf v) {
  const bits sign = reinterpret_cast<bits>(v) & (1u << 31);
  const vf x = reinterpret_cast<vf>(reinterpret_cast<bits>(v) ^ sign), u = x * x;
  const vf flat = x + x * u * ((((-0.00610495f * u + 0.02100364f) * u - 0.0538525f) * u + 0.13332782f) * u - 0.33333329f);
  const vf e = exponential(-2.0f * x), steep = (1.0f - e) / (1.0f + e);
  return reinterpret_cast<vf>(reinterpret_cast<bits>(x < kFlat ? flat : steep) | sign);
}

GC_INLINE vf smoothed(vf v, int32_t kind) {
  if (kind == kTanh) return hyperbolic(v);
  return (kind == kSilu ? v : zero() + 1.0f) / (1.0f + exponential(-v));
}

// Out of the way of the loops of convolutions, which have no registers to spare for it.
static __attribute__((noinline)) void smooth(vf* v, int64_t count, int32_t kind) {
  switch (kind) {
    case kTanh: for (int64_t k = 0; k < count; k++) v[k] = smoothed(v[k], kTanh); break;
    case kSigmoid: for (int64_t k = 0; k < count; k++) v[k] = smoothed(v[k], kSigmoid); break;
    default: for (int64_t k = 0; k < count; k++) v[k] = smoothed(v[k], kSilu);
  }
}

static void smooth_floats(float* v, int64_t count, int32_t kind) {
  vf part[8];
  for (int64_t k = 0; k < count; k += 8 * VL) {
    const int64_t here = count - k < 8 * VL ? count - k : 8 * VL;
    part[(here - 1) / VL] = zero();
    memcpy(part, v + k, here * sizeof(float));
    smooth(part, (here + VL - 1) / VL, kind);
    memcpy(v + k, part, here * sizeof(float));
  }
}
