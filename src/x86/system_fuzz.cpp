// SPDX-License-Identifier: Apache-2.0
// A hostile guest at the system architecture: no bytes may crash or hang it, or break an invariant of the state.
#include "x86/system_fuzz.h"

namespace lodge::x86 {
__attribute__((weak)) void Cpu::parkFpu() {}
__attribute__((weak)) void Cpu::unparkFpu() {}
}  // namespace lodge::x86

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static lodge::x86::SystemFuzzer fuzzer;
  fuzzer.run(data, size);
  return 0;
}
