#!/bin/sh
# Runs the kernel tests against a library built with AddressSanitizer and UndefinedBehaviorSanitizer.
#   sh tests/kernels/sanitize.sh [pytest arguments]
# Needs gcc or clang with the sanitizer libraries. The build goes to a temporary folder; the installed one is not touched.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
GANCOMPRESS_SANITIZE=1 "$python" setup.py -q build_ext --build-lib "$build/lib" --build-temp "$build/tmp"
GANCOMPRESS_KERNELS_LIBRARY=$(ls "$build"/lib/gancompress/kernels/native/_sparse*.so)
export GANCOMPRESS_KERNELS_LIBRARY
# Python itself is not instrumented: the runtime has to be there first, and its leaks are not ours.
compiler=${CXX:-g++}
LD_PRELOAD="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  "$python" -m pytest tests/kernels -n 0 -p no:cacheprovider "$@"
