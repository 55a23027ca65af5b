// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace lodge::translate {

/// Pages that are stored to beside the code that they hold, as those are into which a just-in-time compiler puts its
/// next function. Each such store is noticed, which takes microseconds; without the page's code none is.
class WrittenPages {
 public:
  /// Notes a store that left all of the page's code as it was. `now`: of the time stamp counter. True: the page's code
  /// is better dropped, until somebody runs it again. Where that is soon, twice as many stores are borne next time.
  bool note(std::uint64_t ramPage, std::uint64_t now) {
    Place& place = places_[ramPage % kPlaces];
    if (place.ramPage != ramPage) place = {ramPage, 0, kFirst, now - kSoon};
    if (++place.stores < place.most) return false;
    place.stores = 0;
    place.most = now - place.droppedAt < kSoon ? std::min(2 * place.most, kMost) : kFirst;
    place.droppedAt = now;
    return true;
  }

 private:
  static constexpr unsigned kPlaces = 256;
  static constexpr unsigned kFirst = 8, kMost = 4096;  ///< stores
  static constexpr std::uint64_t kSoon = 30'000'000;   ///< some 10 ms
  struct Place {
    std::uint64_t ramPage = ~std::uint64_t{0};
    unsigned stores = 0, most = kFirst;
    std::uint64_t droppedAt = 0;
  };
  std::array<Place, kPlaces> places_{};
};

}  // namespace lodge::translate
