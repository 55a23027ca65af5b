// SPDX-License-Identifier: Apache-2.0
#include "firmware/elf.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/bytes.h"
#include "firmware/load_context.h"

namespace lodge::firmware {

namespace {
// XEN_ELFNOTE_GUEST_OS and XEN_ELFNOTE_PHYS32_ENTRY, Xen public/elfnote.h.
constexpr std::uint32_t kNoteGuestOs = 6, kNotePhys32Entry = 18;
constexpr std::uint64_t kMaxNoteBytes = 1_MiB;
constexpr unsigned kMaxProgramHeaders = 1024;

struct Elf32 {
  using Header = Elf32_Ehdr;
  using ProgramHeader = Elf32_Phdr;
};
struct Elf64 {
  using Header = Elf64_Ehdr;
  using ProgramHeader = Elf64_Phdr;
};

Error broken(const ImageFile& file, const std::string& why) {
  return Error(ErrorKind::corrupt, fmt::format("'{}' is a broken ELF file: {}", file.name(), why));
}

// One segment of notes: namesz, descsz, type, then name and description, each padded.
void scanNotes(std::span<const std::byte> notes, std::uint64_t alignment, ElfImage& elf) {
  constexpr std::uint64_t kNoteHeader = 12;
  std::uint64_t at = 0;
  while (notes.size() >= kNoteHeader && at <= notes.size() - kNoteHeader) {
    std::uint64_t nameSize = loadLe<std::uint32_t>(notes.data() + at);
    std::uint64_t descSize = loadLe<std::uint32_t>(notes.data() + at + 4);
    auto type = loadLe<std::uint32_t>(notes.data() + at + 8);
    std::uint64_t nameAt = at + kNoteHeader;
    std::uint64_t descAt = alignUp(nameAt + nameSize, alignment);
    if (descAt + descSize > notes.size()) return;
    std::string_view name(reinterpret_cast<const char*>(notes.data() + nameAt), nameSize);
    if (name == std::string_view("Linux\0", 6)) elf.isLinux = true;
    if (name == std::string_view("Xen\0", 4) && type == kNoteGuestOs) {
      std::string_view system(reinterpret_cast<const char*>(notes.data() + descAt), descSize);
      if (system.starts_with("linux")) elf.isLinux = true;
    }
    if (name == std::string_view("Xen\0", 4) && type == kNotePhys32Entry) {
      if (descSize == 4) elf.pvhEntry = loadLe<std::uint32_t>(notes.data() + descAt);
      if (descSize == 8) elf.pvhEntry = loadLe<std::uint64_t>(notes.data() + descAt);
    }
    at = alignUp(descAt + descSize, alignment);
  }
}

template <class Class>
Status addProgramHeader(const ImageFile& file, const typename Class::ProgramHeader& header, ElfImage& elf) {
  if (header.p_type != PT_LOAD && header.p_type != PT_NOTE) return {};
  std::uint64_t offset = header.p_offset, fileSize = header.p_filesz, memorySize = header.p_memsz;
  if (offset > file.size() || fileSize > file.size() - offset) {
    return Error(ErrorKind::corrupt, fmt::format("'{}' is truncated: a segment needs {} bytes at {}, the file has {}",
                                                 file.name(), fileSize, offset, file.size()))
        .withHint("get the file again: its copy is not complete");
  }
  if (header.p_type == PT_NOTE) {
    std::vector<std::byte> notes(std::min(fileSize, kMaxNoteBytes));
    if (Status status = file.read(offset, notes); !status) return status;
    scanNotes(notes, header.p_align == 8 ? 8 : 4, elf);
    return {};
  }
  if (fileSize > memorySize) return broken(file, "a segment is larger in the file than in memory");
  if (memorySize > 1_TiB || header.p_paddr > 1_TiB) return broken(file, "a segment lies beyond 1 TiB");
  if (memorySize != 0) elf.segments.push_back({offset, fileSize, header.p_vaddr, header.p_paddr, memorySize});
  return {};
}

template <class Class>
Result<ElfImage> parseClass(const ImageFile& file) {
  typename Class::Header header;
  if (Status status = file.readObject(0, header); !status) return std::move(status).error();
  if (header.e_machine != EM_386 && header.e_machine != EM_X86_64) {
    return Error(ErrorKind::unsupported, fmt::format("'{}' is an ELF file for another processor (machine {})",
                                                     file.name(), unsigned{header.e_machine}))
        .withHint("use a kernel for x86");
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN) {
    return Error(ErrorKind::invalidArgument, fmt::format("'{}' is an ELF file, but not an executable", file.name()));
  }
  if (header.e_phnum == 0) return broken(file, "it has no program headers");
  if (header.e_phnum > kMaxProgramHeaders) return broken(file, "it has too many program headers");
  if (header.e_phentsize < sizeof(typename Class::ProgramHeader))
    return broken(file, "its program headers are too small");
  ElfImage elf;
  elf.is64 = std::is_same_v<Class, Elf64>;
  elf.entry = header.e_entry;
  if (header.e_phoff > file.size()) return broken(file, "its program headers are past its end");
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    typename Class::ProgramHeader program;
    std::uint64_t at = std::uint64_t{header.e_phoff} + std::uint64_t{i} * header.e_phentsize;
    if (Status status = file.readObject(at, program); !status) return std::move(status).error();
    if (Status status = addProgramHeader<Class>(file, program, elf); !status) return std::move(status).error();
  }
  if (elf.segments.empty()) return broken(file, "it has nothing to load");
  return elf;
}
}  // namespace

std::uint64_t ElfImage::physicalEntry() const {
  for (const ElfSegment& segment : segments) {
    if (entry - segment.virtualAddress < segment.memorySize)
      return entry - segment.virtualAddress + segment.physicalAddress;
  }
  return entry;
}

bool ElfImage::covers(std::uint64_t address) const {
  return std::ranges::any_of(segments, [&](const ElfSegment& s) { return address - s.physicalAddress < s.memorySize; });
}

std::uint64_t ElfImage::end() const {
  std::uint64_t end = 0;
  for (const ElfSegment& segment : segments) end = std::max(end, segment.physicalAddress + segment.memorySize);
  return end;
}

bool isElf(std::span<const std::byte> head) {
  return head.size() >= EI_NIDENT && std::memcmp(head.data(), ELFMAG, SELFMAG) == 0;
}

Result<ElfImage> parseElf(const ImageFile& file) {
  unsigned char identity[EI_NIDENT];
  if (Status status = file.readObject(0, identity); !status) return std::move(status).error();
  if (identity[EI_DATA] != ELFDATA2LSB) {
    return Error(ErrorKind::unsupported, fmt::format("'{}' is a big-endian ELF file", file.name()))
        .withHint("use a kernel for x86");
  }
  if (identity[EI_CLASS] == ELFCLASS32) return parseClass<Elf32>(file);
  if (identity[EI_CLASS] == ELFCLASS64) return parseClass<Elf64>(file);
  return broken(file, fmt::format("class {}", unsigned{identity[EI_CLASS]}));
}

Status loadElfSegments(LoadContext& context, const ElfImage& elf) {
  for (std::size_t i = 0; i < elf.segments.size(); ++i) {
    const ElfSegment& segment = elf.segments[i];
    for (std::size_t j = 0; j < i; ++j) {
      const ElfSegment& other = elf.segments[j];
      if (segment.physicalAddress < other.physicalAddress + other.memorySize &&
          other.physicalAddress < segment.physicalAddress + segment.memorySize) {
        return broken(context.kernel(), fmt::format("two segments overlap at 0x{:x}", segment.physicalAddress));
      }
    }
    if (!context.placement.claim(segment.physicalAddress, segment.memorySize)) {
      return doesNotFit(context,
                        fmt::format("a segment of '{}' at 0x{:x}", context.kernel().name(), segment.physicalAddress),
                        segment.memorySize);
    }
    Gpa to{segment.physicalAddress};
    Status status = context.kernel().load(segment.offset, segment.fileSize, context.memory, to);
    if (!status) return status;
    if (!zeroGuest(context.memory, to + segment.fileSize, segment.memorySize - segment.fileSize)) {
      return doesNotFit(context, "the kernel's zeroed data", segment.memorySize);
    }
  }
  return {};
}

}  // namespace lodge::firmware
