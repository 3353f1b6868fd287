// arm64 with the dot product instructions.
#include "isa_bytes.h"
#if defined(GC_HAS_DOTPROD)
#include "dots.h"
#include "plan.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#pragma clang fp contract(off)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#pragma GCC optimize("fp-contract=off")
#endif
#include <arm_neon.h>
#define GC_ISA dotprod
#define GC_VL 4
#define GC_DOT GC_SDOT
#define GC_INSTRUCTIONS "sdot"
#include "impl_bytes.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
