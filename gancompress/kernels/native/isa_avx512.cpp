#if defined(__x86_64__) || defined(__i386__)
#include <stdint.h>
#include <string.h>
#if defined(GC_EMULATED)  // for tests on machines without it
#pragma GCC target("avx2,fma")
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")
#endif
#define GC_ISA avx512
#define GC_VL 16
#define GC_REGISTERS 32
#if defined(GC_EMULATED)
#define GC_SUPPORTED true
#else
#define GC_SUPPORTED                                                                                        \
  (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && \
   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma"))
#endif
#include "impl.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
