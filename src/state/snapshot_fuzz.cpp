// SPDX-License-Identifier: Apache-2.0
// A saved machine's sections from anybody: the list of sections, and fields of every kind.
#include <cstddef>
#include <cstdint>
#include <string>

#include "state/snapshot.h"

using namespace lodge;

namespace {

void loadFields(state::Archive& a) {
  std::uint8_t byte = 0;
  std::array<std::uint64_t, 5> words{};
  bool flag = false;
  std::optional<std::uint16_t> maybe;
  std::string text;
  std::vector<std::uint8_t> data;
  std::vector<std::string> texts;
  a(byte, words, flag, maybe, text, texts, data);
  if (a.count(0, 100, "a number") > 100) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto bytes = std::as_bytes(std::span(data, size));
  // As they come, and as the fields of a section that is whole: random bytes hardly have the right checksum.
  state::Archive archive(bytes, 1);
  loadFields(archive);
  [[maybe_unused]] Status done = archive.finish();
  if (auto snapshot = state::Snapshot::parse(bytes)) {
    snapshot->section("a", 1, loadFields);
    [[maybe_unused]] Status finished = snapshot->finish();
  }
  return 0;
}
