// Threads of one call, and the scratch memory that calls share.
//
// Threads are started per call (tens of microseconds against milliseconds of work): a pool kept between calls would not
// survive a fork, and data loaders fork. What an item computes never depends on which thread takes it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace gc {

class Team {
 public:
  explicit Team(int32_t size) : size_(size) {}

  // Calls work(thread) on every thread of the team; the caller is thread 0. An exception of a thread is not expected:
  // all memory is taken before.
  template <class Work>
  void run(const Work& work) {
    std::vector<std::thread> others;
    others.reserve(size_ - 1);
    for (int32_t t = 1; t < size_; t++) others.emplace_back([&work, t] { work(t); });
    work(0);
    for (std::thread& t : others) t.join();
  }

  // Hands out items 0..count-1 of one phase; every thread calls it, and all leave together.
  template <class Item>
  void each(int64_t count, const Item& item) {
    for (int64_t i; (i = next_.fetch_add(1)) < count;) item(i);
    wait();
  }

  int32_t size() const { return size_; }

 private:
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
  int32_t arrived_ = 0;
  uint64_t generation_ = 0;
};

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
