// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/translation.h"

namespace lodge::translate {

const Record* Translation::recordAt(std::uint64_t pc) const {
  bool inHot = pc - hot < hotSize;
  const Record* first = inHot ? records : records + hotRecords;
  unsigned count = inHot ? hotRecords : coldRecords;
  auto offset = static_cast<std::uint32_t>(pc - (inHot ? hot : cold));
  unsigned low = 0;
  unsigned high = count;
  while (low < high) {
    unsigned middle = (low + high) / 2;
    if (first[middle].offset <= offset) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low == 0 ? nullptr : &first[low - 1];
}

std::uint64_t Translation::entryFor(unsigned offset) const {
  if (offset < pageOffset || offset >= unsigned{pageOffset} + guestBytes) return 0;
  if (offset == pageOffset && records[0].isEntry()) return hot + records[0].offset;
  // Entries are in the order of the guest's instructions.
  for (unsigned i = 0; i < hotRecords; ++i) {
    if (!records[i].isEntry() || records[i].value < offset) continue;
    return records[i].value == offset ? hot + records[i].offset : 0;
  }
  return 0;
}

}  // namespace lodge::translate
