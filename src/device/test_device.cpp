// SPDX-License-Identifier: Apache-2.0
#include "device/test_device.h"

namespace lodge {

TestDevice::TestDevice(std::vector<InterruptLine*> lines) : lines_(std::move(lines)) {}

Status TestDevice::plug(IoBus& ports, IoBus& memory) {
  if (Status s = ports.add(kEchoPort, 4, echo_, "test device (echo)"); !s) return s;
  if (Status s = ports.add(kFlushPort, 4, flush_, "test device (flush)"); !s) return s;
  if (Status s = ports.add(kEcho2Port, 4, echo2_, "test device (echo 2)"); !s) return s;
  if (lines_.count() != 0) {
    if (Status s = ports.add(kLinePort, lines_.count(), lines_, "test device (interrupt lines)"); !s) return s;
  }
  return memory.add(kWindowBase, kWindowBytes, window_, "test device (window)");
}

std::uint64_t TestDevice::Bytes::read(std::uint64_t offset, unsigned size) {
  std::uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= std::uint64_t{bytes_[offset + i].load()} << (8 * i);
  return value;
}

void TestDevice::Bytes::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  for (unsigned i = 0; i < size; ++i) bytes_[offset + i] = static_cast<std::uint8_t>(value >> (8 * i));
}

void TestDevice::Lines::write(std::uint64_t offset, unsigned, std::uint64_t value) {
  if (offset < lines_.size() && lines_[offset]) lines_[offset]->set((value & 0xff) != 0);
}

}  // namespace lodge
