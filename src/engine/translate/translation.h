// SPDX-License-Identifier: Apache-2.0
// The data that describes translated code. All of it lives in CodeCache::allocate() memory, until the cache is reset.
#pragma once

#include <atomic>
#include <cstdint>

namespace lodge::translate {

struct PageUnit;
struct Translation;

/// What is true of the guest's state when the host is about to execute the code at a Record's offset and after it.
enum class RecordKind : std::uint8_t {
  instruction,  ///< state of the start of the guest instruction at page offset `value`: going back there is right
  entry,        ///< same, and other code may enter here to execute it
  flagsSaved,   ///< same, but guest RAX is in Frame::savedRax and RAX holds the flags (LAHF in AH, SETO in AL)
  committing,   ///< inside the instruction at `value`, which has changed guest state: must run on to the next Record
  dynamic,      ///< between instructions, RIP is r13 (an indirect branch on its way)
  movedDestination,  ///< inside a string instruction: as `instruction`, but RDI is a host address, of the entry in r13
  movedBoth,         ///< and RSI, of the entry in r14
};

/// Records of a translation are sorted by offset; one holds until the next.
struct Record {
  std::uint16_t offset;  ///< from the start of the translation's hot or cold code
  std::uint16_t kind : 3;
  std::uint16_t value : 13;
  bool isEntry() const { return static_cast<RecordKind>(kind) == RecordKind::entry; }
};
static_assert(sizeof(Record) == 4);

/// A direct branch out of a translation to the same page, that can be led to other code. (Code lies below 4 GiB.)
struct Link {
  Translation* linkedTo;       ///< null while unlinked
  std::uint32_t rel32;         ///< host address of the jump's rel32
  std::uint32_t stub;          ///< where the jump leads while unlinked
  std::uint32_t key;           ///< of the code that it leads to
  std::uint16_t targetOffset;  ///< guest target in the page
  bool ungrouped;              ///< to code without groups only
};

/// One superblock of guest code and its host code.
struct Translation {
  PageUnit* unit;
  std::atomic<Translation*> next;  ///< in PageUnit::translations
  std::uint64_t hot, cold;         ///< host addresses
  std::uint32_t hotSize, coldSize;
  std::uint16_t pageOffset;  ///< of the first guest instruction
  std::uint16_t guestBytes;
  std::uint8_t instructions;
  std::uint8_t linkCount;
  bool ungrouped;          ///< translated without groups, for when one crosses a page's end
  bool crossesPage;        ///< its last instruction goes on in the next page
  std::atomic<bool> dead;  ///< its guest bytes changed; nothing enters it any more
  std::uint16_t hotRecords, coldRecords;
  Record* records;  ///< hot ones, then cold ones
  Link* links;

  /// The record that holds at a host address of this translation.
  const Record* recordAt(std::uint64_t pc) const;
  /// Host address where the guest instruction at `pageOffset` can be entered; 0 if nowhere here.
  std::uint64_t entryFor(unsigned offset) const;
};

/// Which part of its page a translation is of, and where it is (CodeCache::dataAt()): what is looked for is found, or
/// is known not to be there, without a look at translations, which lie all over memory.
struct TranslationRange {
  std::uint32_t where;
  std::uint16_t offset;
  std::uint16_t length : 15;  ///< 0: it was dropped
  std::uint16_t ungrouped : 1;

  bool covers(unsigned at) const { return at - offset < length; }
};
static_assert(sizeof(TranslationRange) == 8);

/// Those of a page. It only grows, and is replaced when it is full; readers need no lock.
struct RangeList {
  std::atomic<std::uint32_t> count;
  std::uint32_t capacity;
  TranslationRange* all() { return reinterpret_cast<TranslationRange*>(this + 1); }
};

/// All translations of one guest page in one mode: as seen at one linear address, or (user code) at any: then code
/// takes its page from Frame::page.
struct PageUnit {
  std::uint64_t ramPage;  ///< offset in guest RAM >> 12
  std::uint64_t page;     ///< linear page address (low 12 bits zero); where it was seen last, if shared
  std::uint32_t key;      ///< ModeKey
  bool isShared;          ///< by all linear addresses
  std::uint32_t id;
  std::uint8_t tablePages;  ///< host pages of the entry table that are in use, a bit each
  bool isFilled;            ///< the entry table was full of the miss thunk from the start
  std::uint64_t granules;   ///< which 64-byte pieces of the page are translated here
  PageUnit* nextByKey;      ///< in PageUnits' hash chains
  PageUnit* nextByRamPage;
  std::atomic<Translation*> translations;
  std::atomic<RangeList*> ranges;  ///< of the same translations
  /// The unit that followed when an instruction which goes on there was executed. Translated code compares.
  PageUnit* nextPage;
  std::uint64_t* misaligned;  ///< Block::misaligned
  PageUnit* joinedBy;         ///< the units whose nextPage this is
  PageUnit* nextJoined;       ///< in such a list
  std::uint8_t joins;         ///< how often nextPage was set
  std::uint8_t* entryTable;   ///< host addresses of instructions that are branched to, by page offset; see code_map.h

  /// Whether this may be the unit of the page that `linear` is in.
  bool covers(std::uint64_t linear) const {
    return isShared ? linear >> 47 == 0 : page == (linear & ~std::uint64_t{4095});
  }
  /// The linear page of the code that runs; `shared`: Frame::page.
  std::uint64_t pageNow(std::uint64_t shared) const { return isShared ? shared << 12 : page; }
  /// 0 or the miss thunk where there is none.
  std::uint32_t entry(unsigned offset) const { return __atomic_load_n(entryWord(offset), __ATOMIC_ACQUIRE); }
  std::uint32_t* entryWord(unsigned offset) const { return reinterpret_cast<std::uint32_t*>(entryTable + offset * 5); }
};

}  // namespace lodge::translate
