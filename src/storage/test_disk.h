// SPDX-License-Identifier: Apache-2.0
// A disk in memory, for tests and fuzzing: completes at once, or when it is told to.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "image/disk.h"

namespace lodge {

class TestDisk : public Disk {
 public:
  explicit TestDisk(std::size_t bytes) : content(bytes) {}
  std::uint64_t sizeBytes() const override { return content.size(); }
  bool readOnly() const override { return isReadOnly; }
  void read(std::uint64_t offset, std::span<const iovec> to, Completion done) override {
    move(offset, to, true, std::move(done));
  }
  void write(std::uint64_t offset, std::span<const iovec> from, Completion done) override {
    move(offset, from, false, std::move(done));
  }
  void flush(Completion done) override {
    ++flushes;
    done(0);
  }
  void discard(std::uint64_t, std::uint64_t, Completion done) override { done(0); }
  void writeZeroes(std::uint64_t, std::uint64_t, bool, Completion done) override { done(0); }
  void completeHeld() {
    for (auto& done : std::exchange(held, {})) done(0);
  }

  std::vector<std::uint8_t> content;
  bool isReadOnly = false, hold = false;
  int fail = 0, flushes = 0;
  std::vector<Completion> held;

 private:
  void move(std::uint64_t offset, std::span<const iovec> vectors, bool reading, Completion done) {
    if (fail != 0) return done(fail);
    for (const iovec& v : vectors) {
      // The real one promises nothing beyond its end: whoever asks for that is wrong.
      if (offset > content.size() || v.iov_len > content.size() - offset) __builtin_trap();
      auto* at = content.data() + offset;
      reading ? std::memcpy(v.iov_base, at, v.iov_len) : std::memcpy(at, v.iov_base, v.iov_len);
      offset += v.iov_len;
    }
    if (hold) return held.push_back(std::move(done));
    done(0);
  }
};

}  // namespace lodge
