// SPDX-License-Identifier: Apache-2.0
#include "firmware/image_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "memory/huge_window.h"

namespace lodge::firmware {

namespace {
constexpr std::uint64_t kPipeLimit = 1_GiB;
constexpr std::uint64_t kLoadPiece = 256_KiB;
}  // namespace

Result<std::shared_ptr<const ImageFile>> ImageFile::open(const std::string& path) {
  // Not O_NONBLOCK alone: a pipe's writer may come later, and is waited for by readFile().
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return Error::fromErrno(errno, "open '" + path + "'");
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return Error::fromErrno(errno, "stat '" + path + "'");
  if (S_ISDIR(info.st_mode)) return Error::fromErrno(EISDIR, "read '" + path + "'");
  if (S_ISREG(info.st_mode)) {
    return std::shared_ptr<const ImageFile>(
        new ImageFile(path, std::move(fd), static_cast<std::uint64_t>(info.st_size)));
  }
  auto bytes = readFile(path, kPipeLimit);
  if (!bytes) return std::move(bytes).error();
  return fromBytes(path, *std::move(bytes));
}

std::shared_ptr<const ImageFile> ImageFile::fromBytes(std::string name, std::vector<std::byte> bytes) {
  std::shared_ptr<ImageFile> file(new ImageFile(std::move(name), UniqueFd(), bytes.size()));
  file->bytes_ = std::move(bytes);
  return file;
}

Status ImageFile::read(std::uint64_t offset, std::span<std::byte> to) const {
  if (offset > size_ || to.size() > size_ - offset) {
    return Error(ErrorKind::corrupt, fmt::format("'{}' is truncated: it has {} bytes, {} are needed from offset {}",
                                                 name_, size_, to.size(), offset))
        .withHint("get the file again: its copy is not complete");
  }
  if (!fd_) {
    if (!to.empty()) std::memcpy(to.data(), bytes_.data() + offset, to.size());
    return {};
  }
  while (!to.empty()) {
    ssize_t n = ::pread(fd_.get(), to.data(), to.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error::fromErrno(errno, "read '" + name_ + "'");
    if (n == 0) return Error(ErrorKind::corrupt, "'" + name_ + "' became shorter while it was in use");
    to = to.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

Result<std::vector<std::byte>> ImageFile::head(std::uint64_t limit) const {
  std::vector<std::byte> bytes(std::min(limit, size_));
  if (Status status = read(0, bytes); !status) return std::move(status).error();
  return bytes;
}

Status ImageFile::load(std::uint64_t offset, std::uint64_t length, GuestMemory& memory, Gpa to) const {
  if (length == 0) return {};
  if (!memory.span(to, length)) {
    return Error(ErrorKind::invalidArgument,
                 fmt::format("'{}': no guest RAM for {} bytes at 0x{:x}", name_, length, raw(to)));
  }
  // By way of a buffer that stays in the cache: reading straight into RAM that nobody has touched costs a fault a page.
  // Where the host gives RAM in huge pages there is but one.
  std::vector<std::byte> buffer;
  HugeWindow huge;
  for (std::uint64_t done = 0, part; done < length; done += part) {
    auto place = static_cast<std::uint64_t>(memory.span(to + done, length - done) - memory.deviceView());
    std::uint64_t toBoundary = HugeWindow::kBytes - place % HugeWindow::kBytes;
    if (toBoundary == HugeWindow::kBytes && length - done >= toBoundary) {
      if (std::span<std::byte> window = huge.at(memory.fd(), place); !window.empty()) {
        part = window.size();
        if (Status status = read(offset + done, window); !status) return status;
        memory.written(to + done, part);
        continue;
      }
    }
    buffer.resize(std::min(length, kLoadPiece));
    part = std::min({std::uint64_t{buffer.size()}, length - done, toBoundary});
    std::span<std::byte> piece(buffer.data(), part);
    if (Status status = read(offset + done, piece); !status) return status;
    if (!memory.write(to + done, piece)) return Error(ErrorKind::internal, "guest RAM that was there is gone");
  }
  return {};
}

bool zeroGuest(GuestMemory& memory, Gpa gpa, std::uint64_t length) {
  if (length == 0) return true;
  if (!memory.span(gpa, length)) return false;
  std::uint64_t wholeStart = alignUp(raw(gpa), kPageSize);
  std::uint64_t wholeEnd = alignDown(raw(gpa) + length, kPageSize);
  if (wholeStart >= wholeEnd) return memory.fill(gpa, std::byte{0}, length);
  memory.discard(Gpa{wholeStart}, wholeEnd - wholeStart);
  return memory.fill(gpa, std::byte{0}, wholeStart - raw(gpa)) &&
         memory.fill(Gpa{wholeEnd}, std::byte{0}, raw(gpa) + length - wholeEnd);
}

}  // namespace lodge::firmware
