#include "isa_bytes.h"
#if defined(GC_HAS_AMX)
#include <immintrin.h>

#include "dots.h"
#include "plan.h"
#if defined(GC_EMULATED)  // for tests on machines without it
#pragma GCC target("avx2")
#define GC_DOT GC_PORTABLE
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2"))), apply_to = function)
#pragma clang fp contract(off)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx512vnni,avx2")
#pragma GCC optimize("fp-contract=off")
#endif
#define GC_ISA amx
#define GC_VL 16
#if !defined(GC_DOT)
#define GC_DOT GC_VNNI
#endif
#define GC_MATRICES
#define GC_INSTRUCTIONS "tdpbsud"
#include "impl_bytes.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
