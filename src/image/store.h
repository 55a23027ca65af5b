// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>

namespace lodge {

/// Blocking storage under a Disk: calls return 0 or a positive errno value and may come from several threads at once.
/// Ranges lie within size(); the iovecs' lengths add up to the transfer's.
class Store {
 public:
  virtual ~Store() = default;
  virtual std::uint64_t size() const = 0;
  virtual int read(std::uint64_t offset, std::span<const iovec> to) = 0;
  virtual int write(std::uint64_t offset, std::span<const iovec> from) = 0;
  /// As read()/write() if that needs no wait for storage; EAGAIN otherwise (nothing was done that read()/write() would
  /// not do again).
  virtual int tryRead(std::uint64_t, std::span<const iovec>) { return 11 /* EAGAIN */; }
  virtual int tryWrite(std::uint64_t, std::span<const iovec>) { return 11 /* EAGAIN */; }
  /// Where a range lies as it is, for requests made elsewhere (io_uring). Until giveBack() nothing else comes to lie
  /// there.
  struct Loan {
    int fd = -1;
    std::uint64_t offset = 0;
    bool direct = false;  ///< past the page cache: a request really waits for the storage, and no thread has to
    unsigned ticket = 0;
  };
  virtual bool lend(std::uint64_t, std::span<const iovec>, bool, Loan&) { return false; }
  virtual void giveBack(const Loan&) {}
  virtual int flush() = 0;
  /// As flush(), and the files are what closing would leave, until something is written again. No other call at once.
  virtual int settle() { return flush(); }
  virtual int discard(std::uint64_t offset, std::uint64_t length) = 0;
  virtual int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) = 0;
};

/// preadv/pwritev of the whole of `vectors` at `offset`, through short transfers and signals. `zeroFill`: bytes beyond
/// the end of the file read as zero (else EIO).
int readFully(int fd, std::uint64_t offset, std::span<const iovec> vectors, bool zeroFill);
int writeFully(int fd, std::uint64_t offset, std::span<const iovec> vectors);

}  // namespace lodge
