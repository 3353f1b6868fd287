// The exported C functions. None lets an exception pass.
#include "api.h"

#include <cstring>
#include <new>
#include <system_error>

#include "driver.h"

namespace {

const gc::Isa* const kIsas[] = {
#if defined(__x86_64__) || defined(__i386__)
    &gc::isa_avx512,
    &gc::isa_avx2,
#endif
    &gc::isa_baseline,
};
constexpr int32_t kIsaCount = sizeof(kIsas) / sizeof(kIsas[0]);

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
GC_EXPORT const char* gc_isa_name(int32_t i) { return i >= 0 && i < kIsaCount ? kIsas[i]->name : nullptr; }
GC_EXPORT int32_t gc_isa_lanes(int32_t i) { return kIsas[i]->lanes; }
GC_EXPORT int32_t gc_isa_supported(int32_t i) { return i >= 0 && i < kIsaCount && kIsas[i]->supported() ? 1 : 0; }

GC_EXPORT void* gc_plan_new(const uint8_t* mask, const gc::PlanShape* shape, int32_t isa) {
  if (!gc_isa_supported(isa)) return nullptr;
  try {
    return gc::make_plan(mask, *shape, kIsas[isa]);
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

GC_EXPORT void* gc_program_new(const GcProgram* shape, int32_t isa) {
  if (!gc_isa_supported(isa)) return nullptr;
  try {
    return gc::new_program(*shape, kIsas[isa]);
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
