// SPDX-License-Identifier: Apache-2.0
#include "image/disk.h"

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "base/text.h"
#include "image/format.h"
#include "image/overlay.h"
#include "image/patience.h"
#include "image/uring.h"
#include "image/vectors.h"

namespace lodge {

namespace {

/// What needs no wait is done on the caller's thread: data in the page cache costs one system call. What lies in a file
/// as it is goes by io_uring, where that is allowed. The rest of a Store's calls, which block, run on a few threads
/// that start with the first of them.
class ThreadedDisk : public Disk {
 public:
  static constexpr unsigned kMaxThreads = 8;

  ThreadedDisk(std::unique_ptr<Store> store, bool readOnly) : store_(std::move(store)), readOnly_(readOnly) {}
  ~ThreadedDisk() override {
    ring_.reset();
    {
      std::lock_guard lock(mutex_);
      leaving_ = true;
    }
    wanted_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  std::uint64_t sizeBytes() const override { return store_->size(); }
  bool readOnly() const override { return readOnly_; }

  void read(std::uint64_t offset, std::span<const iovec> to, Completion done) override {
    if (store_->tryRead(offset, to) == 0) return done(0);
    if (viaRing(offset, to, false, done)) return;
    enqueue([this, offset, to] { return store_->read(offset, to); }, std::move(done));
  }
  void write(std::uint64_t offset, std::span<const iovec> from, Completion done) override {
    if (store_->tryWrite(offset, from) == 0) return done(0);
    if (viaRing(offset, from, true, done)) return;
    enqueue([this, offset, from] { return store_->write(offset, from); }, std::move(done));
  }
  void flush(Completion done) override {
    enqueue([this] { return store_->flush(); }, std::move(done));
  }
  void discard(std::uint64_t offset, std::uint64_t length, Completion done) override {
    enqueue([this, offset, length] { return store_->discard(offset, length); }, std::move(done));
  }
  void writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap, Completion done) override {
    enqueue([this, offset, length, mayUnmap] { return store_->writeZeroes(offset, length, mayUnmap); },
            std::move(done));
  }
  int settle() override {
    image::Impatience limited;
    return readOnly_ ? 0 : store_->settle();
  }

 private:
  /// By io_uring, where the range lies in a file as it is. Writes through the page cache gain nothing by that.
  bool viaRing(std::uint64_t offset, std::span<const iovec> vectors, bool writing, const Completion& done) {
    Store::Loan loan;
    if (!ring_ || vectors.empty() || !store_->lend(offset, vectors, writing, loan)) return false;
    std::uint64_t length = image::totalBytes(vectors);
    auto ended = [this, offset, vectors, writing, loan, length, done](int result) {
      store_->giveBack(loan);
      if (result >= 0 && static_cast<std::uint64_t>(result) == length) return done(0);
      // Short transfers and all errors: once more, in the ordinary way.
      enqueue([this, offset, vectors,
               writing] { return writing ? store_->write(offset, vectors) : store_->read(offset, vectors); },
              done);
    };
    if ((!writing || loan.direct) && ring_->submit(writing, loan.fd, loan.offset, vectors, std::move(ended)))
      return true;
    store_->giveBack(loan);
    return false;
  }

  struct Job {
    std::function<int()> work;
    Completion done;
  };

  void enqueue(std::function<int()> work, Completion done) {
    {
      std::lock_guard lock(mutex_);
      jobs_.push_back({std::move(work), std::move(done)});
      if (idle_ < jobs_.size() && threads_.size() < kMaxThreads) threads_.emplace_back([this] { serve(); });
    }
    wanted_.notify_one();
  }

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      ++idle_;
      wanted_.wait(lock, [&] { return leaving_ || !jobs_.empty(); });
      --idle_;
      if (jobs_.empty()) return;
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job.done(job.work());
      job = {};
      lock.lock();
    }
  }

  std::unique_ptr<Store> store_;
  std::unique_ptr<image::Uring> ring_ = image::Uring::create();
  bool readOnly_;
  std::mutex mutex_;
  std::condition_variable wanted_;
  std::deque<Job> jobs_;
  std::vector<std::thread> threads_;
  std::size_t idle_ = 0;
  bool leaving_ = false;
};

}  // namespace

Result<std::unique_ptr<Disk>> openDisk(const DiskOptions& options) {
  image::Impatience limited;
  image::OpenOptions how;
  how.file.readOnly = options.readOnly || options.snapshot;
  how.file.cache = options.cache;
  how.allowedPaths = options.allowedPaths;
  auto opened = image::openImage(options.path, options.format, how);
  if (!opened) return std::move(opened).error().context("disk");
  if ((*opened)->size() == 0)
    return Error(ErrorKind::invalidArgument, "open disk " + inQuotes(options.path) + ": empty")
        .withHint("give it a size: truncate -s 1G FILE");
  std::unique_ptr<Store> top = std::move(*opened);
  if (options.snapshot && !options.readOnly) {
    auto overlay = makeOverlay(std::move(top));
    if (!overlay) return std::move(overlay).error().context("snapshot of disk " + inQuotes(options.path));
    top = std::move(*overlay);
  }
  return std::unique_ptr<Disk>(std::make_unique<ThreadedDisk>(std::move(top), options.readOnly));
}

int Disk::settle() {
  if (readOnly()) return 0;
  std::promise<int> done;
  flush([&done](int error) { done.set_value(error); });
  return done.get_future().get();
}

}  // namespace lodge
