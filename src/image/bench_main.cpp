// SPDX-License-Identifier: Apache-2.0
// image_bench FILE COUNT DEPTH reads|writes: random accesses of 4 KiB through openDisk(), that many in flight.
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <vector>

#include "image/disk.h"

namespace {

/// Starts a request whenever one ends; the caller's thread drives it, as a device's queue does.
class Load {
 public:
  Load(lodge::Disk& disk, std::uint64_t count, unsigned depth, bool writing)
      : disk_(disk), count_(count), writing_(writing), buffers_(depth, std::vector<char>(4096, 'x')) {
    for (auto& buffer : buffers_) free_.push_back(buffer.data());
  }
  int run() {
    for (std::uint64_t i = 0; i < count_ && error_ == 0; ++i) start();
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return free_.size() == buffers_.size(); });
    return error_;
  }

 private:
  void start() {
    char* buffer = nullptr;
    {
      std::unique_lock lock(mutex_);
      ended_.wait(lock, [&] { return !free_.empty(); });
      buffer = free_.back();
      free_.pop_back();
    }
    std::uint64_t at = random_() % (disk_.sizeBytes() / 4096) * 4096;
    // Few requests are on their way at once, so their vectors may be kept by the buffers' side.
    auto* v = new iovec{buffer, 4096};
    auto done = [this, v](int error) {
      std::lock_guard lock(mutex_);
      free_.push_back(static_cast<char*>(v->iov_base));
      delete v;
      if (error != 0) error_ = error;
      ended_.notify_one();
    };
    if (writing_)
      disk_.write(at, {v, 1}, done);
    else
      disk_.read(at, {v, 1}, done);
  }

  lodge::Disk& disk_;
  std::uint64_t count_;
  bool writing_;
  std::mt19937_64 random_{1};
  std::mutex mutex_;
  std::condition_variable ended_;
  std::vector<std::vector<char>> buffers_;
  std::vector<char*> free_;
  std::atomic<int> error_{0};
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  auto disk = lodge::openDisk({.path = argv[1]});
  if (!disk) {
    std::fprintf(stderr, "%s\n", disk.error().message().c_str());
    return 1;
  }
  Load load(**disk, std::strtoull(argv[2], nullptr, 10), static_cast<unsigned>(std::atoi(argv[3])), argv[4][0] == 'w');
  return load.run();
}
