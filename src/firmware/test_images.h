// SPDX-License-Identifier: Apache-2.0
// Synthetic kernels for the tests of this folder.
#pragma once

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "firmware/loader.h"

namespace lodge::firmware::test {

using Bytes = std::vector<std::byte>;

inline Bytes pattern(std::size_t length, unsigned seed) {
  Bytes bytes(length);
  for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(seed + i * 7 + (i >> 8));
  return bytes;
}

template <class T>
void store(Bytes& bytes, std::size_t offset, T value) {
  if (bytes.size() < offset + sizeof value) bytes.resize(offset + sizeof value);
  storeLe(bytes.data() + offset, value);
}

/// A bzImage with a good header: protocol 2.15, one setup sector, `payload` bytes (a multiple of 16).
inline Bytes makeBzImage(std::size_t payload = 65536) {
  Bytes file(1024);
  store<std::uint8_t>(file, 0x1f1, 1);
  store<std::uint32_t>(file, 0x1f4, static_cast<std::uint32_t>(payload / 16));
  store<std::uint16_t>(file, 0x1fe, 0xaa55);
  store<std::uint8_t>(file, 0x200, 0xeb);
  store<std::uint8_t>(file, 0x201, 0x6a);
  std::memcpy(file.data() + 0x202, "HdrS", 4);
  store<std::uint16_t>(file, 0x206, 0x020f);
  store<std::uint8_t>(file, 0x211, 1);
  store<std::uint32_t>(file, 0x22c, 0x7fffffff);
  store<std::uint32_t>(file, 0x230, 0x200000);
  store<std::uint8_t>(file, 0x234, 1);
  store<std::uint16_t>(file, 0x236, 0x3f);
  store<std::uint32_t>(file, 0x238, 2047);
  store<std::uint64_t>(file, 0x258, 0x1000000);
  store<std::uint32_t>(file, 0x260, 0x300000);
  Bytes body = pattern(payload, 3);
  file.insert(file.end(), body.begin(), body.end());
  return file;
}

struct TestSegment {
  std::uint64_t physical, virtualAddress;
  Bytes content;
  std::uint64_t memorySize;
};

template <class Header, class ProgramHeader>
Bytes makeElfOf(unsigned char elfClass, std::uint16_t machine, std::uint64_t entry,
                const std::vector<TestSegment>& segments, const Bytes& notes) {
  Bytes file(4096);
  Header header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = elfClass;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_ident[EI_VERSION] = EV_CURRENT;
  header.e_type = ET_EXEC;
  header.e_machine = machine;
  header.e_version = EV_CURRENT;
  header.e_entry = static_cast<decltype(header.e_entry)>(entry);
  header.e_phoff = sizeof header;
  header.e_ehsize = sizeof header;
  header.e_phentsize = sizeof(ProgramHeader);
  header.e_phnum = static_cast<std::uint16_t>(segments.size() + (notes.empty() ? 0 : 1));
  storeLe(file.data(), header);
  std::size_t at = sizeof header;
  auto add = [&](std::uint32_t type, std::uint64_t physical, std::uint64_t virtualAddress, const Bytes& content,
                 std::uint64_t memorySize) {
    ProgramHeader program{};
    program.p_type = type;
    program.p_offset = static_cast<decltype(program.p_offset)>(file.size());
    program.p_vaddr = static_cast<decltype(program.p_vaddr)>(virtualAddress);
    program.p_paddr = static_cast<decltype(program.p_paddr)>(physical);
    program.p_filesz = static_cast<decltype(program.p_filesz)>(content.size());
    program.p_memsz = static_cast<decltype(program.p_memsz)>(memorySize);
    program.p_align = 4;
    storeLe(file.data() + at, program);
    at += sizeof program;
    file.insert(file.end(), content.begin(), content.end());
    file.resize((file.size() + 15) / 16 * 16);
  };
  for (const TestSegment& s : segments) add(PT_LOAD, s.physical, s.virtualAddress, s.content, s.memorySize);
  if (!notes.empty()) add(PT_NOTE, 0, 0, notes, notes.size());
  return file;
}

inline Bytes makeElf64(std::uint64_t entry, const std::vector<TestSegment>& segments, const Bytes& notes = {}) {
  return makeElfOf<Elf64_Ehdr, Elf64_Phdr>(ELFCLASS64, EM_X86_64, entry, segments, notes);
}
inline Bytes makeElf32(std::uint64_t entry, const std::vector<TestSegment>& segments, const Bytes& notes = {}) {
  return makeElfOf<Elf32_Ehdr, Elf32_Phdr>(ELFCLASS32, EM_386, entry, segments, notes);
}

inline void addNote(Bytes& notes, const std::string& owner, std::uint32_t type, const Bytes& description) {
  auto padded = [](std::size_t n) { return (n + 3) / 4 * 4; };
  std::size_t at = notes.size();
  store<std::uint32_t>(notes, at, static_cast<std::uint32_t>(owner.size() + 1));
  store<std::uint32_t>(notes, at + 4, static_cast<std::uint32_t>(description.size()));
  store<std::uint32_t>(notes, at + 8, type);
  notes.resize(at + 12 + padded(owner.size() + 1) + padded(description.size()));
  std::memcpy(notes.data() + at + 12, owner.data(), owner.size());
  if (!description.empty()) {
    std::memcpy(notes.data() + at + 12 + padded(owner.size() + 1), description.data(), description.size());
  }
}

inline Bytes pvhNote(std::uint32_t entry) {
  Bytes notes, value;
  addNote(notes, "GNU", 3, pattern(20, 1));
  store(value, 0, entry);
  addNote(notes, "Xen", 18, value);
  return notes;
}

/// Twelve bytes of a multiboot header with a right checksum, and five address words if `flags` has bit 16.
inline Bytes multibootHeader(std::uint32_t flags, const std::vector<std::uint32_t>& addresses = {}) {
  Bytes bytes;
  store<std::uint32_t>(bytes, 0, 0x1badb002);
  store<std::uint32_t>(bytes, 4, flags);
  store<std::uint32_t>(bytes, 8, 0u - 0x1badb002u - flags);
  for (std::uint32_t word : addresses) store<std::uint32_t>(bytes, bytes.size(), word);
  return bytes;
}

inline BootRequest request(Bytes kernel, std::string commandLine = "console=ttyS0") {
  BootRequest result;
  result.kernel = ImageFile::fromBytes("kernel", std::move(kernel));
  result.commandLine = std::move(commandLine);
  return result;
}

inline std::unique_ptr<GuestMemory> ram(std::uint64_t size) {
  return *GuestMemory::create(size);
}

inline Bytes readGuest(const GuestMemory& memory, std::uint64_t at, std::size_t length) {
  Bytes bytes(length);
  if (!memory.read(Gpa{at}, bytes)) bytes.clear();
  return bytes;
}
template <class T>
T readAt(const GuestMemory& memory, std::uint64_t at) {
  T value{};
  if (!memory.readObject(Gpa{at}, value)) value = T{};
  return value;
}
inline std::string readText(const GuestMemory& memory, std::uint64_t at) {
  std::string text;
  for (char c = readAt<char>(memory, at); c != '\0' && text.size() < 65536; c = readAt<char>(memory, ++at))
    text.push_back(c);
  return text;
}

}  // namespace lodge::firmware::test
