// SPDX-License-Identifier: Apache-2.0
#include "x86/mmio.h"

#include "x86/tlb.h"

namespace lodge::x86 {

namespace {

// The largest naturally aligned access at `gpa` of at most `left` bytes.
unsigned pieceSize(std::uint64_t gpa, unsigned left) {
  unsigned size = 8;
  while (size > left || (gpa & (size - 1)) != 0) size /= 2;
  return size;
}

}  // namespace

void readMmio(Cpu& cpu, Gpa gpa, std::byte* to, unsigned size) {
  WorkMark mark(cpu, Work::device);
  while (size != 0) {
    unsigned piece = pieceSize(raw(gpa), size);
    std::uint64_t value = 0;
    if (!cpu.environment->readMmioLive(gpa, piece, value)) {
      cpu.parkFpu();
      value = cpu.environment->readMmio(gpa, piece);
    }
    storeHost(to, piece, value);
    gpa = gpa + piece;
    to += piece;
    size -= piece;
  }
}

void writeMmio(Cpu& cpu, Gpa gpa, const std::byte* from, unsigned size) {
  WorkMark mark(cpu, Work::device);
  while (size != 0) {
    unsigned piece = pieceSize(raw(gpa), size);
    std::uint64_t value = loadHost(from, piece);
    if (!cpu.environment->writeMmioLive(gpa, piece, value)) {
      cpu.parkFpu();
      cpu.environment->writeMmio(gpa, piece, value);
    }
    gpa = gpa + piece;
    from += piece;
    size -= piece;
  }
}

void copyBytes(std::byte* to, const std::byte* from, unsigned size) {
  for (; size >= 8; size -= 8, to += 8, from += 8) storeHost(to, 8, loadHost(from, 8));
  for (; size > 0; --size, ++to, ++from) storeHost(to, 1, loadHost(from, 1));
}

}  // namespace lodge::x86
