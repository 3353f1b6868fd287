// The exported C functions. None lets an exception pass.
#include "api.h"

#include <cstring>
#include <new>
#include <system_error>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "driver.h"
#include "isa_bytes.h"

namespace {

gc::Isa with(gc::Isa isa, const gc::ByteKernels& bytes, const char* name = nullptr, bool (*supported)() = nullptr) {
  isa.bytes = &bytes;
  if (name != nullptr) isa.name = name, isa.supported = supported;
  return isa;
}

#if defined(GC_EMULATED)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif
#if defined(__x86_64__) || defined(__i386__)
bool has_avx512vnni() { return kEmulated || (gc::isa_avx512.supported() && __builtin_cpu_supports("avx512vnni")); }
#if defined(GC_HAS_AVXVNNI)
bool has_avxvnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return kEmulated || (gc::isa_avx2.supported() && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 4 & 1) != 0);
}
#endif
#endif

#if defined(GC_HAS_AMX)
// The processor has tiles of bytes, and the system saves them and lets this process have them.
bool has_amx() {
  if (kEmulated) return true;
  constexpr uint32_t kTiles = 1u << 24, kOfBytes = 1u << 25, kXsave = 1u << 27, kTileState = 3u << 17;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!has_avx512vnni() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kTiles) == 0 || (d & kOfBytes) == 0) return false;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kXsave) == 0) return false;
  asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
  constexpr long kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM of the kernel's interface
  return (a & kTileState) == kTileState && syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
}
#endif

#if defined(GC_HAS_DOTPROD)
bool has_dotprod() {
#if defined(__ARM_FEATURE_DOTPROD)
  return true;
#elif defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return false;
#endif
}
#endif

// Best first.
const std::vector<gc::Isa>& isas() {
  static const std::vector<gc::Isa> all = {
#if defined(__x86_64__) || defined(__i386__)
#if defined(GC_HAS_AMX)
      with(gc::isa_avx512, gc::bytes_amx, "amx", has_amx),
#endif
      with(gc::isa_avx512, gc::bytes_avx512vnni, "avx512vnni", has_avx512vnni),
      with(gc::isa_avx512, gc::bytes_avx512),
#if defined(GC_HAS_AVXVNNI)
      with(gc::isa_avx2, gc::bytes_avxvnni, "avxvnni", has_avxvnni),
#endif
      with(gc::isa_avx2, gc::bytes_avx2),
#endif
#if defined(GC_HAS_DOTPROD)
      with(gc::isa_baseline, gc::bytes_dotprod, "dotprod", has_dotprod),
#endif
      with(gc::isa_baseline, gc::bytes_baseline),
  };
  return all;
}

const gc::Isa* isa_at(int32_t i) { return i >= 0 && i < static_cast<int32_t>(isas().size()) ? &isas()[i] : nullptr; }

template <class Call>
int32_t guarded(const Call& call) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return GC_NO_MEMORY;
  } catch (const std::system_error&) {  // no more threads to be had
    return GC_NO_MEMORY;
  }
}

}  // namespace

GC_EXPORT int32_t gc_abi() { return GC_ABI; }

// The i-th instruction set this library was built for, best first; null past the end.
GC_EXPORT const char* gc_isa_name(int32_t i) { return isa_at(i) == nullptr ? nullptr : isa_at(i)->name; }
GC_EXPORT int32_t gc_isa_lanes(int32_t i) { return isa_at(i)->lanes; }
// What multiplies bytes.
GC_EXPORT const char* gc_isa_bytes(int32_t i) { return isa_at(i)->bytes->instructions; }
// What multiplies pairs of bf16: an instruction or "shifts"; null where pairs cannot run.
GC_EXPORT const char* gc_isa_pairs(int32_t i) { return isa_at(i)->pairs(); }
// Rows that convolutions of bytes take together, at most; of one image with its pixels in the lanes.
GC_EXPORT int32_t gc_isa_blocks(int32_t i) { return isa_at(i)->bytes->blocks; }
GC_EXPORT int32_t gc_isa_flat_blocks(int32_t i) { return isa_at(i)->bytes->flat_blocks; }
GC_EXPORT int32_t gc_isa_supported(int32_t i) { return isa_at(i) != nullptr && isa_at(i)->supported() ? 1 : 0; }

GC_EXPORT void* gc_plan_new(const uint8_t* mask, const gc::PlanShape* shape, int32_t isa) {
  if (!gc_isa_supported(isa)) return nullptr;
  try {
    return gc::make_plan(mask, *shape, isa_at(isa));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
GC_EXPORT void gc_plan_free(void* plan) { gc::free_plan(static_cast<gc::Plan*>(plan)); }

GC_EXPORT int32_t gc_conv(const GcConv* args) {
  return guarded([&] { return gc::run_conv(*args); });
}
GC_EXPORT int32_t gc_backward(const GcBackward* args) {
  return guarded([&] { return gc::run_backward(*args); });
}

GC_EXPORT int32_t gc_boxes(const GcBoxes* args) {
  return guarded([&] { return gc::run_boxes(*args); });
}

GC_EXPORT int32_t gc_filter(const GcFilter* args) {
  if (!gc_isa_supported(args->isa)) return GC_BAD_ARGUMENT;
  return guarded([&] { return gc::run_filter(*args, *isa_at(args->isa)); });
}
GC_EXPORT int32_t gc_style(const GcStyle* args) {
  if (!gc_isa_supported(args->isa)) return GC_BAD_ARGUMENT;
  return guarded([&] { return gc::run_style(*args, *isa_at(args->isa), false); });
}
GC_EXPORT int32_t gc_style_gradient(const GcStyle* args) {
  if (!gc_isa_supported(args->isa)) return GC_BAD_ARGUMENT;
  return guarded([&] { return gc::run_style(*args, *isa_at(args->isa), true); });
}
// out[c]: the sum of x [images][channels][count] over all but c.
GC_EXPORT int32_t gc_totals(const float* x, int64_t images, int64_t channels, int64_t count, float* out, int32_t threads, int32_t isa) {
  if (!gc_isa_supported(isa)) return GC_BAD_ARGUMENT;
  return guarded([&] { return gc::run_totals(x, images, channels, count, out, threads, *isa_at(isa)); });
}

// A linear layer and a tanh that are the same numbers on every instruction set; the layer as gc::LinearJob says.
GC_EXPORT int32_t gc_linear(const gc::LinearJob* job, int32_t isa) {
  if (!gc_isa_supported(isa)) return GC_BAD_ARGUMENT;
  isa_at(isa)->bytes->linear(*job);
  return GC_OK;
}
GC_EXPORT int32_t gc_tanh(const float* x, int64_t count, float* out, int32_t isa) {
  if (!gc_isa_supported(isa)) return GC_BAD_ARGUMENT;
  isa_at(isa)->bytes->tanh(x, count, out);
  return GC_OK;
}

GC_EXPORT void* gc_program_new(const GcProgram* shape, int32_t isa) {
  if (!gc_isa_supported(isa)) return nullptr;
  try {
    return gc::new_program(*shape, isa_at(isa));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
GC_EXPORT void gc_program_free(void* program) { gc::free_program(static_cast<gc::Program*>(program)); }
GC_EXPORT int32_t gc_program_add(void* program, const GcStep* step) {
  return guarded([&] { return gc::add_step(*static_cast<gc::Program*>(program), *step); });
}
GC_EXPORT int32_t gc_program_run(const void* program, const GcRun* args) {
  return guarded([&] { return gc::run_program(*static_cast<const gc::Program*>(program), *args); });
}

// [N][count] <-> [count][N], N a multiple of 16.
GC_EXPORT int32_t gc_to_batch_last(const float* src, int64_t batch, int64_t count, float* dst) {
  for (int64_t n = 0; n < batch; n += gc::kLanes) gc::isa_baseline.to_blocked(src + n * count, count, gc::kLanes, count, dst + n, batch, gc::kLanes);
  return GC_OK;
}
GC_EXPORT int32_t gc_from_batch_last(const float* src, int64_t batch, int64_t count, float* dst) {
  for (int64_t n = 0; n < batch; n += gc::kLanes) gc::isa_baseline.from_blocked(src + n, batch, count, dst + n * count, count, gc::kLanes);
  return GC_OK;
}
