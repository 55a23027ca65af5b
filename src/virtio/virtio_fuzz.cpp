// SPDX-License-Identifier: Apache-2.0
// Input: a program of register and guest-memory writes against a block, entropy, balloon, console, tablet or GPU
// device. Nothing may crash, hang, or write outside guest memory.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "memory/guest_memory.h"
#include "net/offload.h"
#include "virtio/balloon.h"
#include "virtio/block.h"
#include "virtio/console.h"
#include "virtio/driver_kit.h"
#include "virtio/entropy.h"
#include "virtio/gpu.h"
#include "virtio/input.h"

namespace {

using namespace lodge;
using namespace lodge::virtio;

class NullDisk : public Disk {
 public:
  std::uint64_t sizeBytes() const override { return 1_MiB; }
  bool readOnly() const override { return false; }
  void read(std::uint64_t, std::span<const iovec> to, Completion done) override {
    for (const iovec& v : to) std::memset(v.iov_base, 0x5a, v.iov_len);
    done(0);
  }
  void write(std::uint64_t, std::span<const iovec>, Completion done) override { done(0); }
  void flush(Completion done) override { done(0); }
  void discard(std::uint64_t, std::uint64_t, Completion done) override { done(0); }
  void writeZeroes(std::uint64_t, std::uint64_t, bool, Completion done) override { done(0); }
};

std::unique_ptr<Device> makeDevice(unsigned kind, GuestMemory& memory) {
  if ((kind & 0x88) == 0x88) return std::make_unique<GpuDevice>(memory, 640, 480);
  if ((kind & 0x80) != 0) return std::make_unique<TabletDevice>(memory);
  switch (kind % 4) {
    case 0:
      return std::make_unique<BlockDevice>(memory, std::make_unique<NullDisk>(), "fuzz", 1);
    case 1:
      return std::make_unique<EntropyDevice>(memory);
    case 2:
      return std::make_unique<BalloonDevice>(memory);
    default:
      return std::make_unique<ConsoleDevice>(memory, [](const char*, std::size_t) {});
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  if (size < 16) return 0;
  FrameOffload offload{
      true, static_cast<std::uint16_t>(data[2] * 3), data[3], static_cast<std::uint8_t>(data[4] & 0x87), data[5], 0};
  finishOffload({data + 6, size - 6}, offload, [](auto) {});
  std::vector<std::uint8_t> whole(data + 6, data + size);
  finishWhole(whole, offload);
  SegmentJoiner joiner([](auto, const FrameOffload&) {});
  std::size_t half = (size - 6) / 2;
  for (std::size_t part : {half, half, size - 6}) joiner.add({data + 6, part});
  joiner.flush();

  virtio::testing::CountingTransport transport;
  std::unique_ptr<Device> device = makeDevice(data[0], *memory);
  device->attach(transport);
  auto* gpu = dynamic_cast<GpuDevice*>(device.get());
  auto* tablet = dynamic_cast<TabletDevice*>(device.get());
  bool packed = (data[0] & 0x10) != 0;
  QueueSetup setup{static_cast<std::uint16_t>(packed ? 1 + data[1] % 16 : 1 << (data[1] % 5)),
                   0x1000,
                   0x2000,
                   0x3000,
                   packed,
                   (data[0] & 0x20) != 0,
                   (data[0] & 0x40) != 0};
  // The input is the rings' content, and what they point to.
  std::size_t at = 6;
  for (std::uint64_t gpa : {0x1000u, 0x2000u, 0x3000u, 0x4000u}) {
    std::size_t part = std::min<std::size_t>(size - at, 256);
    (void)memory->write(Gpa{gpa}, std::as_bytes(std::span(data + at, part)));
    at += part;
  }
  bool accepted = false;
  for (unsigned q = 0; q < device->queueCount(); ++q) device->enableQueue(q, setup, accepted);
  device->activate(device->features());
  for (unsigned q = 0; q < device->queueCount(); ++q) device->notify(q);
  for (; at + 8 <= size; at += 8) {
    std::uint64_t word;
    std::memcpy(&word, data + at, 8);
    (void)memory->writeObject(Gpa{0x1000 + (word >> 48) % 0x3ff8}, static_cast<std::uint32_t>(word));
    device->notify(static_cast<unsigned>(word >> 32) % device->queueCount());
    device->writeConfig(word >> 40 & 3, 2, static_cast<std::uint32_t>(word >> 32));
    (void)device->readConfig(word & 0xff, 4);
    if (gpu && word % 16 == 0) {
      std::vector<std::uint32_t> pixels;
      std::uint32_t width = 0, height = 0;
      (void)gpu->draw({pixels, width, height});
      if (pixels.size() < std::size_t{width} * height) __builtin_trap();
      auto pointer = gpu->takePointer();
      if (pointer && pointer->pixels.size() != std::size_t{pointer->width} * pointer->height) __builtin_trap();
      gpu->requestSize(64 + (word >> 8 & 0xff), 64 + (word >> 16 & 0xff));
    }
    if (tablet)
      (void)tablet->move(word & 0xffff, word >> 16 & 0xffff, word >> 32 & 7, static_cast<int>(word >> 35 & 3) - 1);
  }
  device->reset();
  return 0;
}
