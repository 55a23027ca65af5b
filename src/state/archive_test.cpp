// SPDX-License-Identifier: Apache-2.0
#include "state/archive.h"

#include <gtest/gtest.h>

#include "state/snapshot.h"

namespace lodge::state {
namespace {

struct Fields {
  std::uint8_t byte = 0;
  std::int64_t number = 0;
  bool flag = false;
  std::array<std::uint16_t, 3> words{};
  std::optional<std::uint32_t> maybe;
  std::string text;
  std::vector<std::uint8_t> data;

  void transfer(Archive& a) {
    a(byte, number, flag, words, maybe, text, data);
    a.require(byte < 100, "a byte that is too large");
  }
  bool operator==(const Fields&) const = default;
};

const Fields kSample{7, -12345678901, true, {1, 0xffff, 3}, 9, "name", {1, 2, 3}};

std::vector<std::byte> savedSample(std::uint16_t version = 1) {
  Snapshot snapshot;
  Fields fields = kSample;
  snapshot.section("fields", version, [&](Archive& a) { fields.transfer(a); });
  snapshot.section("more", 1, [&](Archive& a) { a(fields.byte); });
  return *snapshot.bytes();
}

TEST(Archive, WhatWasSavedIsLoaded) {
  Archive out;
  Fields fields = kSample, loaded;
  fields.transfer(out);
  EXPECT_TRUE(out.finish());
  Archive in(out.saved(), 1);
  loaded.transfer(in);
  EXPECT_TRUE(in.finish());
  EXPECT_EQ(loaded, kSample);
}

TEST(Archive, ShortAndLongInputIsRefused) {
  Archive out;
  Fields fields = kSample;
  fields.transfer(out);
  for (std::size_t length = 0; length < out.saved().size(); ++length) {
    Archive in(std::span(out.saved()).first(length), 1);
    Fields loaded;
    loaded.transfer(in);
    EXPECT_FALSE(in.finish()) << length;
  }
  auto longer = out.saved();
  longer.push_back(std::byte{0});
  Archive in(longer, 1);
  fields.transfer(in);
  EXPECT_EQ(in.finish().error().message(), "it is longer than it should be");
}

TEST(Archive, BrokenRulesAreNamed) {
  Archive out;
  std::uint8_t bytes[2] = {100, 2};
  out(bytes);
  Archive in(out.saved(), 1);
  std::uint8_t first = 0;
  bool flag = false;
  in(first);
  in.require(first < 100, "a byte that is too large");
  in(flag);
  EXPECT_EQ(in.finish().error().message(), "a byte that is too large");
  Archive again(std::span(out.saved()).subspan(1), 1);
  again(flag);
  EXPECT_FALSE(again.ok());
}

TEST(Snapshot, SectionsAreFoundByName) {
  auto bytes = savedSample();
  auto snapshot = Snapshot::parse(bytes);
  ASSERT_TRUE(snapshot);
  std::uint8_t more = 0;
  Fields loaded;
  snapshot->section("more", 1, [&](Archive& a) { a(more); });
  snapshot->section("fields", 2, [&](Archive& a) {
    EXPECT_EQ(a.version(), 1);
    loaded.transfer(a);
  });
  EXPECT_TRUE(snapshot->finish());
  EXPECT_EQ(loaded, kSample);
  EXPECT_EQ(more, 7);
}

TEST(Snapshot, NewerMissingAndUnknownSectionsAreNamed) {
  auto nothing = [](Archive&) {};
  auto newer = savedSample(3);
  auto snapshot = Snapshot::parse(newer);
  snapshot->section("fields", 2, nothing);
  EXPECT_EQ(snapshot->status().error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(snapshot->status().error().message(),
            "the state of 'fields': it has version 3, and this Lodge knows version 2");
  auto bytes = savedSample();
  auto missing = Snapshot::parse(bytes);
  missing->section("chip", 1, nothing);
  EXPECT_EQ(missing->status().error().message(), "the state of 'chip': it is missing");
  auto unknown = Snapshot::parse(bytes);
  Fields loaded;
  unknown->section("fields", 1, [&](Archive& a) { loaded.transfer(a); });
  EXPECT_EQ(unknown->finish().error().message(),
            "the state of 'more': this Lodge knows no such part of a machine like this");
}

TEST(Snapshot, EachChangedBitIsFound) {
  auto bytes = savedSample();
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    auto changed = bytes;
    changed[at] ^= std::byte{0x10};
    EXPECT_FALSE(Snapshot::parse(changed)) << at;
  }
}

}  // namespace
}  // namespace lodge::state
