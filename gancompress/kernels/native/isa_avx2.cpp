#if defined(__x86_64__) || defined(__i386__)
#include <stdint.h>
#include <string.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define GC_ISA avx2
#define GC_VL 8
#define GC_REGISTERS 16
#define GC_SUPPORTED (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#include "impl.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
