// SPDX-License-Identifier: Apache-2.0
// Arbitrary files as kernels of every kind, with and without modules, in machines of several sizes.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "firmware/loader.h"
#include "x86/state.h"

using namespace lodge;
using namespace lodge::firmware;

// Input: a byte of choices, then the kernel file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t length) {
  static std::unique_ptr<GuestMemory> machines[] = {*GuestMemory::create(1_MiB), *GuestMemory::create(32_MiB),
                                                    *GuestMemory::create(128_MiB), *GuestMemory::create(5_GiB)};
  static auto state = std::make_unique<x86::CpuState>();
  if (length < 1) return 0;
  std::uint8_t choices = data[0];
  GuestMemory& memory = *machines[choices & 3];
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  BootRequest request;
  request.kernel = ImageFile::fromBytes("kernel", {bytes + 1, bytes + length});
  for (unsigned i = 0; i < ((choices >> 2) & 3u); ++i) {
    request.modules.push_back({ImageFile::fromBytes("module", std::vector<std::byte>(4097)), "module a"});
  }
  request.commandLine = std::string((choices >> 4) * 200u, 'x');
  auto boot = loadKernel(memory, request);
  if (boot) {
    applyBootState(*boot, *state);
    if (!memory.isRam(Gpa{boot->rip}) || !memory.isRam(Gpa{boot->gdtr.base})) std::abort();
  } else if (boot.error().message().empty() || boot.error().kind() == ErrorKind::internal) {
    std::abort();
  }
  memory.discard(Gpa{0}, memory.lowSize());
  if (memory.highSize() != 0) memory.discard(Gpa{4_GiB}, memory.highSize());
  return 0;
}
