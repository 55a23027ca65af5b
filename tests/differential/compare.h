// SPDX-License-Identifier: Apache-2.0
// What of two outcomes must agree, and what is not compared and why.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tests/differential/snippet.h"

namespace lodge::differential {

struct Comparing {
  bool translator;                      ///< the engine is the translator
  bool laxFlags;                        ///< without strict-flags
  bool kernel;                          ///< at CPL 0
  bool guests;                          ///< both are guests
  bool code32;                          ///< 32- or 16-bit code
  bool protectedMode;                   ///< not long mode
  std::span<const Snippet> batch = {};  ///< what lies in the code area, by slots
};

/// Why the host's outcome is the host's own and nothing to compare with ("" if it can be).
std::string_view reasonToSkip(const Snippet& snippet, const Outcome& host, Comparing how);

/// Why the two may differ ("" if they may not).
std::string_view reasonToDiffer(const Snippet& snippet, const Outcome& host, const Outcome& guest, Comparing how);

/// All differences, as text; "" if there are none.
std::string difference(const Outcome& host, const Outcome& guest, Comparing how);

/// Whether a snippet stores x87 instruction or data pointers that the translator does not keep.
bool showsX87Pointers(const Snippet& snippet);
bool readsClock(const Snippet& snippet);

/// Whether nothing differs but flags that decimal adjustments leave undefined.
bool onlyAdjustedFlagsDiffer(Outcome host, Outcome guest, Comparing how);

/// Whether an outcome ended elsewhere than at the snippet's instructions or right behind them.
bool endsAstray(const Snippet& snippet, const Outcome& outcome);

/// Parts of an outcome that are never compared, with the reasons.
std::span<const std::string_view> notCompared();

/// The snippet's instructions, with their bytes; the registers that it starts with.
std::string describe(const Snippet& snippet);
std::string describeStart(const Snippet& snippet);

}  // namespace lodge::differential
