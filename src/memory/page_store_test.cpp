// SPDX-License-Identifier: Apache-2.0
#include "memory/page_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

namespace lodge {
namespace {

struct PageStoreTest : testing::Test {
  PageStoreTest() {
    char name[] = "/tmp/lodge-pages-XXXXXX";
    folder = ::mkdtemp(name);
    path = folder + "/.pages";
  }
  ~PageStoreTest() override { std::filesystem::remove_all(folder); }
  std::unique_ptr<PageStore> open() {
    auto store = PageStore::open(path);
    EXPECT_TRUE(store) << store.error().message();
    return std::move(*store);
  }
  static std::optional<std::uint32_t> offer(PageStore& store, const std::vector<std::byte>& bytes) {
    EXPECT_TRUE(store.begin());
    auto number = store.offer(PageStore::Page(bytes.data(), kPageSize));
    store.end();
    return number;
  }
  static std::vector<std::byte> page(unsigned seed) {
    std::vector<std::byte> bytes(kPageSize);
    for (std::size_t i = 0; i < kPageSize; ++i) bytes[i] = static_cast<std::byte>(i * 31 + seed + (i >> 7) * seed);
    return bytes;
  }
  std::string folder, path;
};

TEST_F(PageStoreTest, TakesWhatASecondMachineOffers) {
  auto one = open(), two = open();
  EXPECT_FALSE(offer(*one, page(1)));
  EXPECT_FALSE(offer(*one, page(1)));  // its own
  EXPECT_FALSE(offer(*two, page(2)));
  auto number = offer(*two, page(1));
  ASSERT_TRUE(number);
  EXPECT_EQ(offer(*one, page(1)), number);
  EXPECT_EQ(one->count(), 1u);
  EXPECT_EQ(std::memcmp(one->read(*number).data(), page(1).data(), kPageSize), 0);
  EXPECT_FALSE(offer(*one, page(3)));
}

TEST_F(PageStoreTest, OneAddsAtATime) {
  auto one = open(), two = open();
  ASSERT_TRUE(one->begin());
  EXPECT_FALSE(two->begin());
  one->end();
  EXPECT_TRUE(two->begin());
}

TEST_F(PageStoreTest, GoesWithTheLastAndIsMadeAnewWhereItWasLeft) {
  auto one = open(), two = open();
  EXPECT_FALSE(offer(*one, page(1)));
  EXPECT_TRUE(offer(*two, page(1)));
  one.reset();
  EXPECT_TRUE(std::filesystem::exists(path));
  std::filesystem::create_hard_link(path, folder + "/left");  // a copy would write all that the file could hold
  two.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
  std::filesystem::rename(folder + "/left", path);  // as after a SIGKILL
  one = open();
  EXPECT_EQ(one->count(), 0u);
  EXPECT_FALSE(offer(*one, page(1)));
  PageStore::removeLeft(path);
  EXPECT_TRUE(std::filesystem::exists(path)) << "one has it";
  std::filesystem::create_hard_link(path, folder + "/left");
  one.reset();
  std::filesystem::rename(folder + "/left", path);
  PageStore::removeLeft(path);
  EXPECT_FALSE(std::filesystem::exists(path));
  PageStore::removeLeft(path);
}

TEST_F(PageStoreTest, RefusesWhatIsNotItsOwn) {
  auto expect = [&](ErrorKind kind) {
    auto store = PageStore::open(path);
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().kind(), kind) << store.error().message();
    EXPECT_FALSE(store.error().hint().empty());
  };
  { std::ofstream(path) << "x"; }
  ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
  expect(ErrorKind::permissionDenied);
  std::filesystem::remove(path);
  auto one = open();
  std::filesystem::resize_file(path, kPageSize);
  expect(ErrorKind::unsupported);
}

TEST_F(PageStoreTest, HashesTellPagesApart) {
  std::vector<std::byte> zero(kPageSize);
  std::uint64_t last = PageStore::hashOf(PageStore::Page(zero.data(), kPageSize));
  for (std::size_t bit = 0; bit < 8 * kPageSize; bit += 61) {
    std::vector<std::byte> other = zero;
    other[bit / 8] |= static_cast<std::byte>(1u << bit % 8);
    std::uint64_t hash = PageStore::hashOf(PageStore::Page(other.data(), kPageSize));
    EXPECT_NE(hash, last);
    last = hash;
  }
}

}  // namespace
}  // namespace lodge
