// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lodge::x86 {

/// How fast a guest's time stamp counter runs by the host's: a fixed-point factor, as processors have it (SDM vol. 3,
/// 25.6.13, "TSC multiplier"; APM vol. 2, 15.30.5).
class TscScale {
 public:
  static constexpr unsigned kFractionBits = 48;
  static constexpr std::uint64_t kOne = std::uint64_t{1} << kFractionBits;
  /// Rates that differ by no more (parts per million) are taken as the same, as by KVM (`tsc_tolerance_ppm`): what is
  /// measured at two starts of a host differs, too.
  static constexpr std::uint64_t kTolerance = 250;

  constexpr TscScale() = default;
  /// Rates in the same unit. A rate of 0 is not known: the same as the other. The quotient is below 65,536.
  static constexpr TscScale between(std::uint64_t guest, std::uint64_t host) {
    if (guest == 0 || host == 0 || isNear(guest, host)) return {};
    using Wide = unsigned __int128;
    return TscScale(static_cast<std::uint64_t>(((Wide{guest} << kFractionBits) + host / 2) / host));
  }
  static constexpr bool isNear(std::uint64_t a, std::uint64_t b) {
    using Wide = unsigned __int128;
    return Wide{a > b ? a - b : b - a} * 1'000'000 <= Wide{b} * kTolerance;
  }

  constexpr bool isIdentity() const { return ratio_ == kOne; }
  constexpr std::uint64_t ratio() const { return ratio_; }
  /// A count of the host's as one of the guest's, before its offset: modulo 2^64, rounded down. Increases with `host`.
  constexpr std::uint64_t operator()(std::uint64_t host) const {
    using Wide = unsigned __int128;
    return isIdentity() ? host : static_cast<std::uint64_t>((Wide{host} * ratio_) >> kFractionBits);
  }

 private:
  explicit constexpr TscScale(std::uint64_t ratio) : ratio_(ratio) {}
  std::uint64_t ratio_ = kOne;
};

}  // namespace lodge::x86
