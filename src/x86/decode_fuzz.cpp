// SPDX-License-Identifier: Apache-2.0
// Any bytes in any mode: the decoder must stay within them and report fields that are in range.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "x86/instruction.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge::x86;
  if (size == 0) return 0;
  constexpr CodeSize kSizes[] = {CodeSize::bits16, CodeSize::bits32, CodeSize::bits64};
  CodeSize codeSize = kSizes[data[0] % 3];
  unsigned available = static_cast<unsigned>(size - 1 < 64 ? size - 1 : 64);
  Instruction i;
  DecodeStatus status = decode(data + 1, available, codeSize, i);
  if (i.length > kMaxInstructionLength || i.length > available) std::abort();
  if (status != DecodeStatus::ok) return 0;
  if (!i.info || i.length == 0) std::abort();
  if (i.base != kNoRegister && i.base > 15) std::abort();
  if (i.index != kNoRegister && i.index > 15) std::abort();
  if (memoryOperand(i).bytes > 512) std::abort();
  FlagEffects effects = flagEffects(i);
  if ((effects.written & effects.undefined) != 0) std::abort();
  opcodeForFeatures(*i.info, data[0]);
  return 0;
}
