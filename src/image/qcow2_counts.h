// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace lodge::image::qcow2 {

/// How often each cluster is led to, of those in a window of the file: memory in proportion to what is, up to a bound.
class Counts {
 public:
  static constexpr std::uint64_t kPage = 512, kAll = ~std::uint64_t{0};
  static constexpr std::size_t kMostPages = 96 << 10;  ///< 48 MiB of counts, and what it takes to find them
  static constexpr std::size_t kMostMany = 256 << 10;
  using Page = std::array<std::uint8_t, kPage>;

  /// Empty, for the clusters from `from` on.
  void begin(std::uint64_t from) {
    pages_.clear();
    many_.clear();
    from_ = from;
    to_ = kAll;
    lastKey_ = kAll;
  }
  void add(std::uint64_t index, int change = 1) {
    end_ = std::max(end_, index + 1);
    if (index < from_ || index >= to_) return;
    std::uint8_t& count = pageOf(index / kPage)[index % kPage];
    if (change > 0 ? count < 0xff : many_.count(index) == 0)
      count = static_cast<std::uint8_t>(count + change);
    else if (many_[index] += change; many_[index] == 0)
      many_.erase(index);
    if (pages_.size() > kMostPages || many_.size() > kMostMany) halve();
  }
  std::uint64_t at(std::uint64_t index) const {
    auto it = pages_.find(index / kPage);
    if (it == pages_.end()) return 0;
    std::uint64_t count = (*it->second)[index % kPage];
    if (count < 0xff) return count;
    auto more = many_.find(index);
    return more == many_.end() ? count : count + static_cast<std::uint64_t>(more->second);
  }
  bool has(std::uint64_t index) const { return index >= from_ && index < to_; }
  /// What was counted whole is [from(), to()); kAll: to the end.
  std::uint64_t from() const { return from_; }
  std::uint64_t to() const { return to_; }
  /// After the last cluster that something leads to, in the window or not.
  std::uint64_t end() const { return end_; }
  std::vector<std::uint64_t> pages() const {
    std::vector<std::uint64_t> all;
    all.reserve(pages_.size());
    for (const auto& [page, content] : pages_) all.push_back(page);
    std::sort(all.begin(), all.end());
    return all;
  }

 private:
  Page& pageOf(std::uint64_t key) {
    if (key != lastKey_) {
      auto& page = pages_[key];
      if (!page) page = std::make_unique<Page>();
      last_ = page.get();
      lastKey_ = key;
    }
    return *last_;
  }
  /// The rear half of the window is left to the next one.
  void halve() {
    std::vector<std::uint64_t> keys = pages();
    to_ = keys[keys.size() / 2] * kPage;
    if (keys.size() < 2) to_ = std::max(from_ + 1, to_);
    std::erase_if(pages_, [&](const auto& each) { return each.first * kPage >= to_; });
    std::erase_if(many_, [&](const auto& each) { return each.first >= to_; });
    lastKey_ = kAll;
  }

  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;
  std::unordered_map<std::uint64_t, std::int64_t> many_;
  std::uint64_t from_ = 0, to_ = kAll, end_ = 0;
  std::uint64_t lastKey_ = kAll;
  Page* last_ = nullptr;
};

}  // namespace lodge::image::qcow2
