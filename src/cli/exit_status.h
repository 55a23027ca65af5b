// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "control/machine_end.h"

namespace lodge::cli {

/// The program's exit statuses. All are even: isa-debug-exit's statuses, (value << 1) | 1, are odd, so no guest can be
/// mistaken for a failure of Lodge's.
namespace exit_status {
inline constexpr int kSuccess = 0;       ///< and: the guest powered off
inline constexpr int kUsage = 2;         ///< bad options or input
inline constexpr int kLodgeError = 4;    ///< Lodge or the host failed
inline constexpr int kGuestCrashed = 6;  ///< triple fault with --no-reboot, panic device
inline constexpr int kKilled = 8;        ///< turned off from outside
}  // namespace exit_status

/// kUsage if the user can mend it, kLodgeError if not.
int exitStatusOf(const Error& error);
int exitStatusOf(const control::EndRecord& end);

/// Number and meaning, for help and the manual page.
std::vector<std::pair<std::string, std::string>> exitStatusTable();

/// Prints "lodge: MESSAGE; HINT" on standard error, one line, and returns the exit status.
int fail(const Error& error);

}  // namespace lodge::cli
