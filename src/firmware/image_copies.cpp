// SPDX-License-Identifier: Apache-2.0
#include "firmware/image_copies.h"

#include <algorithm>
#include <utility>

#include "memory/huge_window.h"

namespace lodge::firmware {

namespace {
constexpr std::uint64_t kPiece = HugeWindow::kBytes;
}

ImageCopies::~ImageCopies() {
  next_ = pieces_.size();
  if (thread_.joinable()) thread_.join();
}

void ImageCopies::add(const ImageFile& file, std::uint64_t offset, std::uint64_t length, GuestMemory& memory, Gpa to) {
  for (std::uint64_t at = 0, part; at < length; at += part) {
    part = std::min(kPiece - raw(to + at) % kPiece, length - at);
    pieces_.push_back({&file, offset + at, part, &memory, to + at});
  }
}

void ImageCopies::begin() {
  if (!pieces_.empty()) thread_ = std::thread([this] { byThread_ = copyPieces(); });
}

Status ImageCopies::finish() {
  Status here = copyPieces();
  if (thread_.joinable()) thread_.join();
  pieces_.clear();
  next_ = 0;
  Status there = std::exchange(byThread_, Status{});
  return there ? std::move(here) : std::move(there);
}

Status ImageCopies::copyPieces() {
  for (std::size_t index; (index = next_.fetch_add(1)) < pieces_.size();) {
    const Piece& piece = pieces_[index];
    Status copied = piece.file->load(piece.offset, piece.length, *piece.memory, piece.to);
    if (copied) continue;
    next_ = pieces_.size();
    return copied;
  }
  return {};
}

}  // namespace lodge::firmware
