// The few functions of the C++ library that the kernels call: linked alone, the module imports nothing and stays small.
// Where memory ends, or a length is impossible, the module stops, which the page sees as an error.
#include <cstddef>
#include <cstdlib>
#include <new>

void* operator new(std::size_t bytes) {
  void* p = std::malloc(bytes);
  if (p == nullptr) __builtin_trap();
  return p;
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

_LIBCPP_BEGIN_NAMESPACE_STD
[[noreturn]] void __libcpp_verbose_abort(const char*, ...) { __builtin_trap(); }
_LIBCPP_END_NAMESPACE_STD
