// SPDX-License-Identifier: Apache-2.0
// Translations as text, for people: guest bytes beside the host's, with what the records say of them.
#include <cstdio>
#include <string>

#include "engine/translate/translation_store.h"
#include "x86/instruction.h"

namespace lodge::translate {

namespace {
using Number = unsigned long long;

std::string hex(const std::uint8_t* bytes, std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    char two[4];
    std::snprintf(two, sizeof two, "%02x", bytes[i]);
    text += two;
  }
  return text;
}

const char* nameOf(RecordKind kind) {
  switch (kind) {
    case RecordKind::instruction:
    case RecordKind::entry:
      return "instruction";
    case RecordKind::flagsSaved:
      return "flags-saved";
    case RecordKind::committing:
      return "committing";
    case RecordKind::dynamic:
      return "dynamic";
    case RecordKind::movedDestination:
      return "moved-rdi";
    case RecordKind::movedBoth:
      return "moved-rdi-rsi";
  }
  return "?";
}

/// One region's records of the guest instruction at `offset`.
void addHost(std::string& text, const Translation& t, CodeCache& cache, bool isHot, unsigned offset) {
  const Record* records = isHot ? t.records : t.records + t.hotRecords;
  unsigned count = isHot ? t.hotRecords : t.coldRecords;
  std::uint64_t start = isHot ? t.hot : t.cold;
  std::uint32_t size = isHot ? t.hotSize : t.coldSize;
  for (unsigned i = 0; i < count; ++i) {
    const Record& r = records[i];
    unsigned next = i + 1;  // an entry may have no code of its own
    while (r.isEntry() && next < count && records[next].offset == r.offset) ++next;
    std::uint32_t end = next < count ? records[next].offset : size;
    if (r.value != offset || end <= r.offset) continue;
    std::uint64_t from = start + r.offset;
    char line[96];
    std::snprintf(line, sizeof line, "  %s %llx %s%s: ", isHot ? "hot" : "cold", static_cast<Number>(from),
                  nameOf(static_cast<RecordKind>(r.kind)), r.isEntry() ? ",entry" : "");
    text += line + hex(cache.writable(start + r.offset), end - r.offset) + "\n";
  }
}
}  // namespace

std::string TranslationStore::describe(std::uint64_t linear) const {
  std::scoped_lock lock(mutex_);
  std::string text;
  for (std::uint32_t id = 0; id < unitCount_; ++id) {
    const PageUnit& unit = *units_[id];
    if (unit.page != (linear & ~kPageMask)) continue;
    for (Translation* t = unit.translations.load(std::memory_order_acquire); t; t = t->next.load()) {
      unsigned offset = linear & kPageMask;
      if (offset < t->pageOffset || offset >= unsigned{t->pageOffset} + t->guestBytes) continue;
      ModeKey key{unit.key};
      std::uint64_t first = unit.page + t->pageOffset;
      char line[200];
      std::snprintf(
          line, sizeof line,
          "translation of %llx: %s%s, key %x, RAM page %llx, %u instructions, %u guest bytes, %u hot, %u cold%s\n",
          static_cast<Number>(first), key.has(ModeKey::user) ? "user" : "kernel",
          key.has(ModeKey::code64) ? "64" : "32", unit.key, static_cast<Number>(unit.ramPage), t->instructions,
          t->guestBytes, t->hotSize, t->coldSize, t->ungrouped ? ", without groups" : "");
      text += line;
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(memory_.deviceView() + (unit.ramPage << 12));
      auto size = key.has(ModeKey::code64) ? x86::CodeSize::bits64 : x86::CodeSize::bits32;
      for (unsigned at = t->pageOffset, n = 0; n < t->instructions && at < kPageSize; ++n) {
        std::uint64_t here = unit.page + at;
        x86::Instruction i;
        unsigned rest = static_cast<unsigned>(kPageSize) - at;
        if (x86::decode(bytes + at, rest < 15 ? rest : 15, size, i) != x86::DecodeStatus::ok) break;
        std::snprintf(line, sizeof line, "guest %llx: ", static_cast<Number>(here));
        text += line + hex(bytes + at, i.length) + "\n";
        addHost(text, *t, *cache_, true, at);
        addHost(text, *t, *cache_, false, at);
        at += i.length;
      }
    }
  }
  return text;
}

}  // namespace lodge::translate
