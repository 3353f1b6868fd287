#include <algorithm>

#include "team.h"

#if defined(_WIN32)
#include <malloc.h>
#endif

namespace gc {
namespace {

#if defined(GC_WEB)
struct Lock {  // nobody to be locked out
  bool owns_lock() const { return true; }
};
struct Mutex {};
Lock try_lock(Mutex&) { return {}; }
#else
using Mutex = std::mutex;
// A lock that another thread held when the process forked is never released in the child: try, do not wait.
std::unique_lock<std::mutex> try_lock(Mutex& mutex) { return std::unique_lock<std::mutex>(mutex, std::try_to_lock); }
#endif

constexpr size_t kKeepBytes = size_t{128} << 20;
constexpr size_t kKeepCount = 16;

struct Free {
  float* data;
  size_t bytes;
};

struct Store {
  Mutex mutex;
  std::vector<Free> free;
  size_t bytes = 0;
};

Store& store() {
  static Store* const s = new Store;  // never destroyed: calls may outlive static destruction
  return *s;
}

float* allocate(size_t bytes) {
#if defined(_WIN32)
  void* p = _aligned_malloc(bytes, 64);
#else
  void* p = nullptr;
  if (posix_memalign(&p, 64, bytes) != 0) p = nullptr;
#endif
#if defined(GC_WEB)
  if (p == nullptr) __builtin_trap();  // without exceptions: the page is told
#else
  if (p == nullptr) throw std::bad_alloc();
#endif
  return static_cast<float*>(p);
}

void release(float* p) {
#if defined(_WIN32)
  _aligned_free(p);
#else
  free(p);
#endif
}

}  // namespace

Scratch::Scratch(int64_t floats) : bytes_((static_cast<size_t>(std::max<int64_t>(floats, 1)) * 4 + 4095) / 4096 * 4096) {
  Store& s = store();
  {
    const auto lock = try_lock(s.mutex);
    if (lock.owns_lock()) {
      auto best = s.free.end();
      for (auto it = s.free.begin(); it != s.free.end(); ++it)
        if (it->bytes >= bytes_ && it->bytes <= 2 * bytes_ && (best == s.free.end() || it->bytes < best->bytes)) best = it;
      if (best != s.free.end()) {
        data_ = best->data;
        bytes_ = best->bytes;
        s.bytes -= bytes_;
        s.free.erase(best);
        return;
      }
    }
  }
  data_ = allocate(bytes_);
}

Scratch::~Scratch() {
  Store& s = store();
  std::vector<float*> drop;
  {
    const auto lock = try_lock(s.mutex);
    if (lock.owns_lock() && bytes_ <= kKeepBytes / 2) {
      while (!s.free.empty() && (s.free.size() >= kKeepCount || s.bytes + bytes_ > kKeepBytes)) {
        drop.push_back(s.free.front().data);
        s.bytes -= s.free.front().bytes;
        s.free.erase(s.free.begin());
      }
      s.free.push_back({data_, bytes_});
      s.bytes += bytes_;
    } else {
      drop.push_back(data_);
    }
  }
  for (float* p : drop) release(p);
}

}  // namespace gc
