// SPDX-License-Identifier: Apache-2.0
// A server that falls silent, or is slow.
#include "image/nbd_client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "base/text.h"
#include "image/format.h"
#include "image/nbd_server.h"
#include "image/patience.h"

namespace lodge::image {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

/// What the server's calls wait for.
struct Gate {
  std::mutex mutex{};
  std::condition_variable opened{};
  bool isOpen = false, holdsReads = false;
  std::atomic<unsigned> writes{0};

  void pass() {
    std::unique_lock lock(mutex);
    opened.wait(lock, [this] { return isOpen; });
  }
  void open() {
    std::lock_guard lock(mutex);
    isOpen = true;
    opened.notify_all();
  }
};

/// Holds flushes and the first write until the gate is open, and reads if it says so.
class GatedFile : public BlockFile {
 public:
  GatedFile(std::shared_ptr<BlockFile> file, Gate& gate) : file_(std::move(file)), gate_(gate) {}
  const std::string& name() const override { return file_->name(); }
  bool readOnly() const override { return false; }
  std::uint64_t size() const override { return file_->size(); }
  int readv(std::uint64_t offset, std::span<const iovec> to) override {
    if (gate_.holdsReads) gate_.pass();
    return file_->readv(offset, to);
  }
  int writev(std::uint64_t offset, std::span<const iovec> from) override {
    if (gate_.writes++ == 0) gate_.pass();
    return file_->writev(offset, from);
  }
  int flush() override {
    gate_.pass();
    return file_->flush();
  }
  int truncate(std::uint64_t bytes) override { return file_->truncate(bytes); }
  int discard(std::uint64_t, std::uint64_t) override { return 0; }
  int writeZeroes(std::uint64_t, std::uint64_t, bool) override { return ENOTSUP; }

 private:
  std::shared_ptr<BlockFile> file_;
  Gate& gate_;
};

class GatedFiles : public FileSpace {
 public:
  explicit GatedFiles(Gate& gate) : gate_(gate) {}
  Result<std::shared_ptr<BlockFile>> open(const std::string& path, const FileMode&) override {
    std::shared_ptr<BlockFile> file = makeMemoryFile(path);
    EXPECT_EQ(file->truncate(1 << 20), 0);
    return std::shared_ptr<BlockFile>(std::make_shared<GatedFile>(std::move(file), gate_));
  }
  Result<std::shared_ptr<BlockFile>> create(const std::string& path, bool) override { return open(path, {}); }
  Result<std::string> canonical(const std::string& path) override { return path; }

 private:
  Gate& gate_;
};

struct Pair {
  UniqueFd server, client;
  Pair() {
    int pair[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    server.reset(pair[0]);
    client.reset(pair[1]);
  }
};

/// A server on a thread of its own, and its client.
struct Served {
  Gate gate{};
  GatedFiles files{gate};
  Pair pair{};
  std::unique_ptr<Image> image{};
  std::thread server{};
  std::shared_ptr<BlockFile> file{};

  explicit Served(bool holdsReads) {
    OpenOptions options;
    options.file.readOnly = false;
    auto opened = openImage("a", "raw", options, files);
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message());
    image = std::move(*opened);
    server = std::thread([this] { serveNbdClient(pair.server.get(), *image, {.exportName = "x", .readOnly = false}); });
    auto connected = openNbd(std::move(pair.client), "x", "nbd://test", false);
    EXPECT_TRUE(connected) << (connected ? "" : connected.error().message());
    file = std::move(*connected);
    gate.holdsReads = holdsReads;
  }
  ~Served() {
    gate.open();
    file.reset();
    server.join();
  }
};

int writeLetter(BlockFile& file, char letter) {
  std::string bytes(4096, letter);
  return file.write(8192, bytes.data(), bytes.size());
}

char letterIn(BlockFile& file) {
  char letter = 0;
  EXPECT_EQ(file.read(8192, &letter, 1), 0);
  return letter;
}

void isGivenUpAndNotOvertaken() {
  Served served(true);
  auto began = Clock::now();
  {
    Impatience limited;
    EXPECT_EQ(writeLetter(*served.file, 'a'), ETIMEDOUT);
  }
  EXPECT_GE(Clock::now() - began, kServerPatience);
  EXPECT_EQ(served.gate.writes, 1u);
  std::promise<int> written;
  std::future<int> later = written.get_future();
  std::thread writer([&] { written.set_value(writeLetter(*served.file, 'b')); });
  // The server has threads to do it at once, and the first one's would come after it.
  EXPECT_EQ(later.wait_for(std::chrono::milliseconds(300)), std::future_status::timeout);
  EXPECT_EQ(served.gate.writes, 1u);
  served.gate.open();
  EXPECT_EQ(later.get(), 0);
  writer.join();
  EXPECT_EQ(letterIn(*served.file), 'b');
  EXPECT_EQ(served.gate.writes, 2u);
  Impatience limited;
  EXPECT_EQ(served.file->flush(), 0) << "as usable as before";
}

void isWaitedForWhileItAnswersOthers() {
  Served served(false);
  std::thread opener([&] {
    std::this_thread::sleep_for(kServerPatience + seconds(3));
    served.gate.open();
  });
  {
    Impatience limited;
    EXPECT_EQ(served.file->flush(), 0);
  }
  opener.join();
}

void isNotOpened() {
  Pair pair;
  auto opened = openNbd(std::move(pair.client), "x", "nbd://test", true);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message().find("'nbd://test'"), std::string::npos) << opened.error().message();
  EXPECT_NE(opened.error().message().find("has not answered for 10 s"), std::string::npos) << opened.error().message();
}

// All of it is waiting: at once.
TEST(NbdClient, EndsItsWaitForASilentServer) {
  std::thread others[] = {std::thread(isWaitedForWhileItAnswersOthers), std::thread(isNotOpened)};
  isGivenUpAndNotOvertaken();
  for (std::thread& t : others) t.join();
}

TEST(NbdClient, ReadsAndWritesAsEverWhereWaitsAreLimited) {
  Served served(false);
  served.gate.open();
  Impatience limited;
  EXPECT_EQ(writeLetter(*served.file, 'c'), 0);
  EXPECT_EQ(served.file->flush(), 0);
  EXPECT_EQ(letterIn(*served.file), 'c');
  std::vector<std::byte> bytes(3 << 20, std::byte{1});
  iovec two[] = {{bytes.data(), 700}, {bytes.data() + 700, bytes.size() - 700}};
  EXPECT_EQ(served.file->readv(0, two), 0);
  EXPECT_EQ(bytes[8192], std::byte{'c'});
  EXPECT_EQ(bytes[8191], std::byte{0});
  EXPECT_EQ(bytes[bytes.size() - 1], std::byte{0});
  EXPECT_EQ(served.file->readv(served.file->size(), two), 0) << "zeroes behind the end";
}

}  // namespace
}  // namespace lodge::image
