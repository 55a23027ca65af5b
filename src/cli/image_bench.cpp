// SPDX-License-Identifier: Apache-2.0
// bench: requests of one size through the library, as a machine's disk makes them.
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/layout.h"
#include "image/disk.h"

namespace lodge::cli {

namespace {

/// What is asked of the disk. Bytes, as they are given.
struct Load {
  std::uint64_t count = 75000, depth = 64, bytes = 4096, step = 0, offset = 0, pattern = 0;
  std::uint64_t flushEach = 0;  ///< writes; 0: no flushes
  bool writing = false, drains = true;
};

/// Starts a request whenever one ends; the caller's thread drives it, as a device's queue does.
class Runner {
 public:
  Runner(Disk& disk, const Load& load) : disk_(disk), load_(load) {
    std::size_t bytes = load.bytes;
    memory_.resize(bytes * load.depth, static_cast<char>(load.pattern));
    vectors_.reserve(load.depth);
    for (std::uint64_t i = 0; i < load.depth; ++i) {
      vectors_.push_back({memory_.data() + i * bytes, bytes});
      free_.push_back(&vectors_.back());
    }
  }

  /// 0, errno's value of a request that failed, or EINTR.
  int run() {
    std::uint64_t at = load_.offset;
    for (std::uint64_t i = 0; i < load_.count && error() == 0; ++i) {
      at %= disk_.sizeBytes();
      if (at > disk_.sizeBytes() - load_.bytes) at = 0;
      start(at);
      at += load_.step;
      if (load_.flushEach != 0 && (i + 1) % load_.flushEach == 0) {
        if (load_.drains) drain();
        flush();
      }
      if (ProgressBar::interrupted()) end(nullptr, EINTR);
    }
    drain();
    return error();
  }

 private:
  void start(std::uint64_t at) {
    iovec* vector = take();
    auto done = [this, vector](int error) { end(vector, error); };
    if (load_.writing)
      disk_.write(at, {vector, 1}, done);
    else
      disk_.read(at, {vector, 1}, done);
  }
  void flush() {
    iovec* place = take();
    disk_.flush([this, place](int error) { end(place, error); });
  }
  iovec* take() {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return !free_.empty(); });
    iovec* vector = free_.back();
    free_.pop_back();
    return vector;
  }
  void end(iovec* vector, int error) {
    std::lock_guard lock(mutex_);
    if (vector) free_.push_back(vector);
    if (error != 0) error_ = error;
    ended_.notify_one();
  }
  void drain() {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [&] { return free_.size() == vectors_.size(); });
  }
  int error() {
    std::lock_guard lock(mutex_);
    return error_;
  }

  Disk& disk_;
  const Load& load_;
  std::vector<char> memory_;
  std::vector<iovec> vectors_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::vector<iovec*> free_;
  int error_ = 0;
};

/// A number of an option, within its bounds; `otherwise` where it was not given.
Result<std::uint64_t> numberOf(const Invocation& invocation, const char* option, std::uint64_t otherwise,
                               std::uint64_t least, std::uint64_t most) {
  std::string text = invocation.value(option);
  if (text.empty()) return otherwise;
  auto number = imageSize(text);
  if (!number || *number < least || *number > most)
    return Error(ErrorKind::invalidArgument, fmt::format("--{} {}", option, inQuotes(text)))
        .withHint(fmt::format("use {} to {}", least, most));
  return *number;
}

Result<Load> readLoad(const Invocation& invocation) {
  constexpr std::uint64_t kMost = INT32_MAX, kMostDepth = 1024, kMostBytes = 16 << 20;
  Load load;
  struct {
    const char* option;
    std::uint64_t &value, least, most;
  } numbers[] = {{"count", load.count, 0, kMost},
                 {"depth", load.depth, 1, kMostDepth},
                 {"buffer-size", load.bytes, 1, kMostBytes},
                 {"step-size", load.step, 0, kMost},
                 {"offset", load.offset, 0, INT64_MAX},
                 {"pattern", load.pattern, 0, 255},
                 {"flush-interval", load.flushEach, 0, kMost}};
  for (auto& number : numbers) {
    auto given = numberOf(invocation, number.option, number.value, number.least, number.most);
    if (!given) return std::move(given).error();
    number.value = *given;
  }
  if (load.step == 0) load.step = load.bytes;
  load.writing = invocation.has("write");
  load.drains = !invocation.has("no-drain");
  if (load.flushEach != 0 && !load.writing)
    return Error(ErrorKind::invalidArgument, "--flush-interval is only available in write tests").withHint("add -w");
  if (load.flushEach != 0 && load.flushEach < load.depth)
    return Error(ErrorKind::invalidArgument, "Flush interval can't be smaller than depth");
  if (load.bytes * load.depth > 128 << 20)
    return Error(ErrorKind::invalidArgument, "the requests in flight would have more than 128 MiB")
        .withHint("use fewer (-d) or smaller ones (-s)");
  return load;
}

Result<double> runLoad(const Invocation& invocation, const Program& program, const Load& load) {
  auto cache = cacheMode(invocation.value("cache"));
  if (!cache) return std::move(cache).error();
  DiskOptions how{.path = invocation.arguments()[0],
                  .format = invocation.value("format"),
                  .readOnly = !load.writing,
                  .cache = *cache,
                  .allowedPaths = invocation.all("allow-path")};
  if (program.qemuImg) how.allowedPaths = {"/"};
  auto disk = openDisk(how);
  if (!disk) return std::move(disk).error();
  if ((*disk)->sizeBytes() < load.bytes) return Error(ErrorKind::invalidArgument, "the disk is smaller than a request");
  if (!invocation.has("quiet") && !wantsJson(invocation)) {
    print(fmt::format("Sending {} {} requests, {} bytes each, {} in parallel (starting at offset {}, step size {})\n",
                      load.count, load.writing ? "write" : "read", load.bytes, load.depth, load.offset, load.step));
    if (load.flushEach != 0)
      print(fmt::format("Sending {}flush every {} requests\n", load.drains ? "" : "draining ", load.flushEach));
  }
  ProgressBar signals(invocation, program);  // Ctrl-C ends it between two requests
  auto start = std::chrono::steady_clock::now();
  if (int error = Runner(**disk, load).run(); error != 0)
    return error == EINTR ? Error(ErrorKind::interrupted, "interrupted") : Error::fromErrno(error, "request");
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int run(const Invocation& invocation, const Program& program) {
  auto load = readLoad(invocation);
  if (!load) return imageFail(program, load.error());
  auto seconds = runLoad(invocation, program, *load);
  if (!seconds) return imageFail(program, seconds.error());
  if (wantsJson(invocation)) {
    return printJson({{"filename", invocation.arguments()[0]},
                      {"requests", load->count},
                      {"bytes", load->bytes},
                      {"depth", load->depth},
                      {"seconds", *seconds}});
  }
  if (!invocation.has("quiet")) print(fmt::format("Run completed in {:.3f} seconds.\n", *seconds));
  return exit_status::kSuccess;
}

}  // namespace

VerbSpec imageBench() {
  return {
      .name = "image bench",
      .summary = "time requests to a disk",
      .description =
          "Reads, or with -w overwrites, places of the disk that are STEP bytes apart, again from the beginning at the "
          "disk's end, many requests at a time, the way a machine's disk does it; and says how long that took.",
      .arguments = {{.name = "FILE", .complete = Complete::file}},
      .options = {image_option::format(),
                  {.name = "count", .letter = 'c', .value = "N", .help = "How many requests; 75000 if not given."},
                  {.name = "depth", .letter = 'd', .value = "N", .help = "How many at a time; 64 if not given."},
                  {.name = "buffer-size", .letter = 's', .value = "SIZE", .help = "Bytes of each; 4K if not given."},
                  {.name = "step-size",
                   .letter = 'S',
                   .value = "SIZE",
                   .help = "From one's beginning to the next one's; as many as a request has if not given."},
                  {.name = "offset", .letter = 'o', .value = "SIZE", .help = "Where the first one begins."},
                  {.name = "write", .letter = 'w', .help = "Write. What the disk has there is lost."},
                  {.name = "pattern", .value = "BYTE", .help = "What is written, 0 to 255."},
                  {.name = "flush-interval", .value = "N", .help = "Flush after each N writes."},
                  {.name = "no-drain", .help = "Do not wait for the writes in flight before a flush."},
                  {.name = "native", .letter = 'n', .help = "Accepted for qemu-img's sake."},
                  {.name = "aio",
                   .letter = 'i',
                   .value = "KIND",
                   .help = "Accepted for qemu-img's sake: what is fastest is taken.",
                   .choices = {"threads", "native", "io_uring"}},
                  image_option::cache("writeback"),
                  image_option::quiet(),
                  image_option::allowPath(),
                  image_option::output(),
                  image_option::json()},
      .examples = {{"lodge image bench -d 32 -S 1048577536 disk.qcow2", "Reads all over the disk, 32 at a time."}},
      .run = run,
  };
}

}  // namespace lodge::cli
