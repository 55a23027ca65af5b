// SPDX-License-Identifier: Apache-2.0
#include "x86/tlb.h"

#include <gtest/gtest.h>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

constexpr std::uint64_t kPage = 0x5'0000;

struct Tlb : testing::Test {
  TestMachine m;
  void SetUp() override {
    m.long64();
    m.mapSmallPages();
  }
  std::uint64_t read(std::uint64_t linear) {
    std::uint64_t value = 0;
    EXPECT_TRUE(readFast(*m, linear, 8, value));
    return value;
  }
  bool cached(std::uint64_t linear, Rights rights = Rights::supervisor) {
    return tlbReadable(*m, linear, 8, rights) != nullptr;
  }
  bool cachedForWrite(std::uint64_t linear) { return tlbWritable(*m, linear, 8, Rights::supervisor) != nullptr; }
};

TEST_F(Tlb, holdsATranslationUntilInvlpg) {
  m.store<std::uint64_t>(kPage, 1);
  m.store<std::uint64_t>(kPage + 0x1000, 2);
  EXPECT_EQ(read(kPage), 1u);
  m.store<std::uint64_t>(TestMachine::entryOf(kPage), (kPage + 0x1000) | 7);
  EXPECT_EQ(read(kPage), 1u);
  invalidatePage(*m, kPage);
  EXPECT_EQ(read(kPage), 2u);
  EXPECT_EQ(m.listener.pages, std::vector<std::uint64_t>{kPage});
}

TEST_F(Tlb, readsDoNotSetDirtyAndWritesAreNotCachedBefore) {
  read(kPage);
  EXPECT_TRUE(cached(kPage));
  EXPECT_FALSE(cachedForWrite(kPage));
  EXPECT_EQ(m.load<std::uint64_t>(TestMachine::entryOf(kPage)) & 0x60, 0x20u);
  ASSERT_TRUE(writeFast(*m, kPage, 8, 7));
  EXPECT_TRUE(cachedForWrite(kPage));
  EXPECT_EQ(m.load<std::uint64_t>(TestMachine::entryOf(kPage)) & 0x60, 0x60u);
}

TEST_F(Tlb, dirtyPagesAreWritableAtOnce) {
  m.store<std::uint64_t>(TestMachine::entryOf(kPage), kPage | 0x67);
  read(kPage);
  EXPECT_TRUE(cachedForWrite(kPage));
}

TEST_F(Tlb, readOnlyPagesAreNot) {
  m.store<std::uint64_t>(TestMachine::entryOf(kPage), kPage | 0x65);
  read(kPage);
  EXPECT_FALSE(cachedForWrite(kPage));
  EXPECT_FALSE(writeFast(*m, kPage, 8, 7));
  EXPECT_EQ(take(*m), pageFault(kPage, pf::present | pf::write));
}

TEST_F(Tlb, rightsAreSeparate) {
  m.state().cr4 |= cr4::smap;
  std::uint64_t value = 0;
  m.state().rflags |= flag::ac;
  ASSERT_TRUE(readFast(*m, kPage, 8, value));
  m.state().rflags &= ~flag::ac;
  EXPECT_FALSE(readFast(*m, kPage, 8, value));
  EXPECT_EQ(take(*m), pageFault(kPage, pf::present));
  m.state().cpl = 3;
  EXPECT_TRUE(readFast(*m, kPage, 8, value));
  m.store<std::uint64_t>(TestMachine::entryOf(kPage + 0x1000), (kPage + 0x1000) | 3);
  m.state().cpl = 0;
  EXPECT_TRUE(readFast(*m, kPage + 0x1000, 8, value));
  m.state().cpl = 3;
  EXPECT_FALSE(readFast(*m, kPage + 0x1000, 8, value));
}

TEST_F(Tlb, cr3LoadsKeepGlobalPages) {
  m.store<std::uint64_t>(TestMachine::entryOf(kPage), kPage | 0x107);
  read(kPage);
  read(kPage + 0x1000);
  ASSERT_TRUE(writeControl(*m, 3, m.state().cr3));
  EXPECT_TRUE(cached(kPage));
  EXPECT_FALSE(cached(kPage + 0x1000));
  EXPECT_EQ(m.listener.switches, 1);
  ASSERT_TRUE(writeControl(*m, 4, m.state().cr4 & ~cr4::pge));
  EXPECT_FALSE(cached(kPage));
}

TEST_F(Tlb, invlpgOfALargePageDropsAllOfIt) {
  constexpr std::uint64_t kLarge = 0x40'0000;
  read(kLarge);
  read(kLarge + 0x1000);
  read(kPage);
  ASSERT_TRUE(cached(kLarge + 0x1000));
  invalidatePage(*m, kLarge + 0x1f'f000);
  EXPECT_FALSE(cached(kLarge));
  EXPECT_FALSE(cached(kLarge + 0x1000));
  EXPECT_TRUE(cached(kPage));
}

TEST_F(Tlb, accessesAcrossPagesTakeTheSlowPath) {
  ASSERT_TRUE(writeFast(*m, kPage, 8, 0));
  ASSERT_TRUE(writeFast(*m, kPage + 0x1000, 8, 0));
  EXPECT_EQ(tlbReadable(*m, kPage + 0xffc, 8, Rights::supervisor), nullptr);
  ASSERT_TRUE(writeFast(*m, kPage + 0xffc, 8, 0x1122'3344'5566'7788));
  EXPECT_EQ(m.load<std::uint64_t>(kPage + 0xffc), 0x1122'3344'5566'7788u);
}

// Code pages.
class Observer : public CodeWriteObserver {
 public:
  void guestCodeWritten(std::uint64_t offset, std::uint64_t length) override { writes.emplace_back(offset, length); }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> writes;
};

TEST_F(Tlb, storesToCodePagesAreReported) {
  Observer observer;
  m.memory->setCodeWriteObserver(&observer);
  ASSERT_TRUE(writeFast(*m, kPage, 8, 0));
  ASSERT_TRUE(cachedForWrite(kPage));
  EXPECT_TRUE(observer.writes.empty());
  // The page becomes code while its write tag is cached: the store is still seen.
  m.memory->codePages()[kPage >> 12] = 1;
  ASSERT_TRUE(writeFast(*m, kPage + 16, 4, 0x1234));
  ASSERT_EQ(observer.writes.size(), 1u);
  EXPECT_EQ(observer.writes[0], (std::pair<std::uint64_t, std::uint64_t>{kPage + 16, 4}));
  EXPECT_EQ(m.load<std::uint32_t>(kPage + 16), 0x1234u);
  // And no write tag is filled for it.
  clearTlb(*m);
  ASSERT_TRUE(writeFast(*m, kPage + 24, 8, 5));
  EXPECT_FALSE(cachedForWrite(kPage));
  EXPECT_EQ(observer.writes.size(), 2u);
  EXPECT_EQ(m.load<std::uint64_t>(kPage + 24), 5u);
  std::byte* p = writablePointer(*m, kPage + 32, 8);
  ASSERT_NE(p, nullptr);
  *p = std::byte{9};
  wroteTo(*m, p, 8);
  EXPECT_EQ(observer.writes.size(), 3u);
  EXPECT_EQ(m.load<std::uint8_t>(kPage + 32), 9u);
  m.memory->codePages()[kPage >> 12] = 0;
  ASSERT_TRUE(writeFast(*m, kPage + 24, 8, 5));
  EXPECT_TRUE(cachedForWrite(kPage));
}

TEST_F(Tlb, accessedBitsInACodePageAreReported) {
  Observer observer;
  m.memory->setCodeWriteObserver(&observer);
  m.memory->codePages()[TestMachine::entryOf(kPage) >> 12] = 1;
  read(kPage);
  ASSERT_EQ(observer.writes.size(), 1u);
  EXPECT_EQ(observer.writes[0].first, TestMachine::entryOf(kPage));
}

TEST_F(Tlb, pagesWithDataBreakpointsStayOut) {
  read(kPage);
  m.state().dr[0] = kPage + 8;
  ASSERT_TRUE(writeDebug(*m, 7, 1 | 0xd'0000));  // L0, write, 4 bytes
  EXPECT_FALSE(cached(kPage));
  read(kPage);
  EXPECT_FALSE(cached(kPage));
  read(kPage + 0x1000);
  EXPECT_TRUE(cached(kPage + 0x1000));
}

TEST_F(Tlb, pkruChangesReachCachedPages) {
  m.state().cr4 |= cr4::pke;
  m.store<std::uint64_t>(TestMachine::entryOf(kPage), kPage | 7 | 3ull << 59);
  read(kPage);
  setPkru(*m, 1 << 6);
  std::uint64_t value = 0;
  EXPECT_FALSE(readFast(*m, kPage, 8, value));
  EXPECT_EQ(take(*m), pageFault(kPage, pf::present | pf::protectionKey));
}

TEST_F(Tlb, invpcid) {
  CpuState& s = m.state();
  read(kPage);
  EXPECT_FALSE(invalidatePcid(*m, 4, 0, 0));
  EXPECT_EQ(take(*m), gp(0));
  EXPECT_FALSE(invalidatePcid(*m, 1, 1, 0)) << "PCIDs need CR4.PCIDE";
  EXPECT_EQ(take(*m), gp(0));
  s.cr4 |= cr4::pcide;
  EXPECT_FALSE(invalidatePcid(*m, 0, 0x1000, 0));
  EXPECT_EQ(take(*m), gp(0));
  EXPECT_FALSE(invalidatePcid(*m, 0, 1, 1ull << 60));
  EXPECT_EQ(take(*m), gp(0));
  ASSERT_TRUE(invalidatePcid(*m, 0, 1, kPage));
  EXPECT_TRUE(cached(kPage)) << "another PCID's";
  ASSERT_TRUE(invalidatePcid(*m, 0, 0, kPage));
  EXPECT_FALSE(cached(kPage));
  EXPECT_EQ(m.listener.pcids, (std::vector<std::uint16_t>{1, 0}));
  read(kPage);
  ASSERT_TRUE(invalidatePcid(*m, 2, 0, 0));
  EXPECT_FALSE(cached(kPage));
  EXPECT_EQ(m.listener.everything, 1);
}

}  // namespace
}  // namespace lodge::x86
