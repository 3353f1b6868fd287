#include "isa_bytes.h"
#if defined(GC_HAS_AVXVNNI)
#include <immintrin.h>

#include "dots.h"
#include "plan.h"
#if defined(GC_EMULATED)  // for tests on machines without it
#pragma GCC target("avx2")
#define GC_DOT GC_PORTABLE
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
#pragma clang fp contract(off)
#else
#pragma GCC target("avx2,avxvnni")
#pragma GCC optimize("fp-contract=off")
#endif
#define GC_ISA avxvnni
#define GC_VL 8
#if !defined(GC_DOT)
#define GC_DOT GC_VNNI
#endif
#define GC_INSTRUCTIONS "vpdpbusd"
#include "impl_bytes.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
