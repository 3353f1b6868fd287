// What one core can do at most: multiply-adds from registers, and multiply-adds that each load an operand, as the sparse
// kernels' innermost loop does, from a buffer of a given size. Built and called by peaks.py.
#include <stdint.h>

#if defined(__AVX512F__)
constexpr int VL = 16;
#elif defined(__AVX__)
constexpr int VL = 8;
#else
constexpr int VL = 4;
#endif
#if defined(__AVX512F__)
constexpr int N = 16;  // independent sums: more than latency times throughput
#else
constexpr int N = 12;
#endif
#if defined(__x86_64__) || defined(__i386__)
#define OPAQUE(v) asm volatile("" : "+v"(v))
#else
#define OPAQUE(v) asm volatile("" : "+w"(v))
#endif
typedef float vf __attribute__((vector_size(VL * 4), may_alias));

// Each returns the multiply-adds done; `out` takes a result, so that none is left out.
extern "C" int64_t registers(int64_t turns, float* out) {
  vf a[N], b = {}, w = {};
  for (int i = 0; i < N; i++) a[i] = b;
  b += out[0], w += out[1];
  for (int64_t t = 0; t < turns; t++) {
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) a[i] += w * b;
    OPAQUE(b);  // the products are not known from the turn before
  }
  for (int i = 1; i < N; i++) a[0] += a[i];
  out[2] = a[0][0];
  return turns * N * VL;
}

extern "C" int64_t loads(int64_t turns, const float* from, int64_t floats, float* out) {
  vf a[N], w = {};
  for (int i = 0; i < N; i++) a[i] = w;
  w += out[1];
  const int64_t steps = floats / (N * VL);
  for (int64_t t = 0; t < turns; t++) {
    const float* p = from;
    for (int64_t s = 0; s < steps; s++, p += N * VL) {
#pragma GCC unroll 16
      for (int i = 0; i < N; i++) a[i] += w * *reinterpret_cast<const vf*>(p + i * VL);
    }
  }
  for (int i = 1; i < N; i++) a[0] += a[i];
  out[2] = a[0][0];
  return turns * steps * N * VL;
}
