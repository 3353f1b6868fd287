// What every machine of the architecture has: SSE2 on x86-64, NEON on arm64; in a web page SIMD128.
#define GC_ISA baseline
#define GC_VL 4
#if defined(__aarch64__)
#define GC_REGISTERS 32
#else
#define GC_REGISTERS 16
#endif
#define GC_SUPPORTED true
#include "impl.h"
