// What every machine of the architecture has; on arm64 with the dot product instructions where the compiler may use them.
#include "isa_bytes.h"
#include "dots.h"
#include "plan.h"
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif
#define GC_ISA baseline
#define GC_VL 4
#if defined(__x86_64__)
#include <emmintrin.h>
#define GC_DOT GC_SSE2
#define GC_INSTRUCTIONS "pmaddwd"
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#define GC_DOT GC_WASM
#define GC_INSTRUCTIONS "i32x4.dot_i16x8_s"
#else
#define GC_DOT GC_PORTABLE
#define GC_INSTRUCTIONS "shifts and products"
#endif
#include "impl_bytes.h"
