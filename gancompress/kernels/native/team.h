// Threads of one call, and the scratch memory that calls share.
//
// Threads are started per call (tens of microseconds against milliseconds of work): a pool kept between calls would not
// survive a fork, and data loaders fork. What an item computes never depends on which thread takes it.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#if !defined(GC_WEB)
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#endif

namespace gc {

#if defined(GC_WEB)  // where there are no threads, as in a page: the caller does it all
class Team {
 public:
  explicit Team(int32_t) {}
  template <class Work>
  void run(const Work& work) { work(0); }
  template <class Item>
  void each(int64_t count, const Item& item) {
    for (int64_t i = 0; i < count; i++) item(i);
  }
};
#else
class Team {
 public:
  explicit Team(int32_t size) : size_(size) {}

  // Calls work(thread) on every thread of the team; the caller is thread 0. `work` does not throw: all memory is taken
  // before. Throws std::system_error, having done nothing, when the threads cannot be had.
  template <class Work>
  void run(const Work& work) {
    std::vector<std::thread> others;
    others.reserve(size_ - 1);
    try {
      for (int32_t t = 1; t < size_; t++)
        others.emplace_back([this, &work, t] {
          if (starts()) work(t);
        });
    } catch (...) {
      start(-1);
      for (std::thread& t : others) t.join();
      throw;
    }
    start(1);
    work(0);
    for (std::thread& t : others) t.join();
  }

  // Hands out items 0..count-1 of one phase; every thread calls it, and all leave together.
  template <class Item>
  void each(int64_t count, const Item& item) {
    for (int64_t i; (i = next_.fetch_add(1)) < count;) item(i);
    wait();
  }

 private:
  // Nobody begins before all are there: a phase would wait for ever for a thread that could not be started.
  bool starts() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_.wait(lock, [&] { return go_ != 0; });
    return go_ > 0;
  }
  void start(int32_t go) {
    const std::lock_guard<std::mutex> lock(mutex_);
    go_ = go;
    all_.notify_all();
  }

  void wait() {
    if (size_ == 1) {
      next_ = 0;
      return;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    if (++arrived_ == size_) {
      arrived_ = 0;
      next_ = 0;
      generation_++;
      all_.notify_all();
    } else {
      const uint64_t now = generation_;
      all_.wait(lock, [&] { return generation_ != now; });
    }
  }

  const int32_t size_;
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  std::condition_variable all_;
  int32_t go_ = 0;
  int32_t arrived_ = 0;
  uint64_t generation_ = 0;
};
#endif

// A 64-byte aligned buffer of floats. Freed buffers are kept for the next call up to a limit: fresh pages cost more than
// the small layers that would use them.
class Scratch {
 public:
  explicit Scratch(int64_t floats);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() const { return data_; }

 private:
  float* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace gc
