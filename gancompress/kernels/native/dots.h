// How a word of four bytes is multiplied by a word of four int8 weights.
#pragma once

#define GC_PORTABLE 0  // shifts and 32-bit products
#define GC_SSE2 1      // pmaddwd on the even and the odd bytes
#define GC_HALVES 2    // pmaddubsw, whose sums of two products have 16 bits: words of weights are chosen so that they fit
#define GC_VNNI 3      // vpdpbusd
#define GC_SDOT 4      // sdot of NEON, on bytes made signed
#define GC_WASM 5     // i32x4.dot_i16x8_s on the even and the odd bytes
