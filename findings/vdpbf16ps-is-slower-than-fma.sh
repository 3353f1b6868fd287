#!/usr/bin/env bash
# Intel Xeon, family 6, model 207 (fifth generation, with AMX): the dot product of pairs of bf16 does half of the work of
# a float32 multiply-add in a second.
#
# Guess before looking: vdpbf16ps multiplies 32 pairs where vfmadd231ps multiplies 16 numbers and both start twice a
# cycle, as vpdpbusd (64 pairs of bytes) does beside it; so twice as many products a second, as with bytes four times.
# Seen (2026-11-29): vfmadd231ps 0.183 ns, vpdpbusd 0.178 ns, vdpbf16ps 0.74 ns, all on registers, 12 independent sums,
# one thread: 88, 360 and 43 thousand million products a second. An instruction takes four times as long, so bf16 by it
# is 0.49 times float32, which only AMX's tiles turn round. What is chosen by the presence of the flag avx512_bf16 gets
# slower there. Another processor may well differ: on a Zen 4 (family 25, model 17, 2026-11-29) all three take equally
# long, and pairs of bf16 are 2.00 times float32. The script then says so and stops.
set -euo pipefail
if ! grep -q avx512_bf16 /proc/cpuinfo || ! grep -q avx512_vnni /proc/cpuinfo; then
  echo "not this processor: it has no vdpbf16ps"
  exit 0
fi
if [[ "$(awk '/^model\t/ { print $3; exit }' /proc/cpuinfo)" != 207 ]]; then
  echo "not this processor: another model"
  exit 0
fi
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "ziglang==0.13.0" # a C compiler from a package
cd "$work"
cat > look.c <<'C'
#include <stdio.h>
#include <time.h>

typedef float vector __attribute__((vector_size(64)));

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

/* Nanoseconds of one instruction: the least of five turns, each over twelve sums that do not depend on each other. */
#define TIMED(instruction)                                                                             \
  ({                                                                                                   \
    vector a[12] = {0}, x = {0}, y = {0};                                                              \
    double least = 1e9;                                                                                \
    for (int turn = 0; turn < 5; turn++) {                                                             \
      double begin = seconds();                                                                        \
      for (long i = 0; i < 5000000; i++) {                                                             \
        _Pragma("unroll") for (int k = 0; k < 12; k++) asm volatile(instruction " %1, %2, %0" : "+v"(a[k]) : "v"(x), "v"(y)); \
      }                                                                                                \
      double each = 1e9 * (seconds() - begin) / 5000000 / 12;                                          \
      if (each < least) least = each;                                                                  \
    }                                                                                                  \
    least;                                                                                             \
  })

int main(void) {
  double fma = TIMED("vfmadd231ps"), bytes = TIMED("vpdpbusd"), pairs = TIMED("vdpbf16ps");
  printf("vfmadd231ps %.3f ns, vpdpbusd %.3f ns, vdpbf16ps %.3f ns\n", fma, bytes, pairs);
  printf("products a second over float32's: bytes %.2f, pairs of bf16 %.2f\n", 4 * fma / bytes, 2 * fma / pairs);
  return bytes < 1.3 * fma && pairs > 3 * fma && pairs < 5 * fma ? 0 : 1;
}
C
"$work/venv/bin/python" -m ziglang cc -O2 -mcpu=x86_64_v4+avx512vnni+avx512bf16 look.c -o look
if ./look; then
  echo "seen as described"
else
  echo "this has changed"
  exit 1
fi
