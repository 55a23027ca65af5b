// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/file.h"

namespace lodge {

/// A message of a device's that stays the same for a while, so that whoever keeps the local APICs may be told of it
/// once: then an event of its eventfd sends it. Belongs to the device; the rest is its router's.
struct MsiRoute {
  std::uint64_t address = 0;
  std::uint32_t data = 0;
  bool known = false;    ///< to the router
  bool byEvent = false;  ///< it is sent by `event` now
  UniqueFd event{};      ///< made when it is first needed
};

/// Who sends such messages. Any thread, with the device's own mutex held (device/interrupt.h).
class MsiRouter {
 public:
  virtual ~MsiRouter() = default;
  /// The message is this from now on.
  virtual void setRoute(MsiRoute& route) = 0;
  /// It is not sent any more; when this returns none is on its way.
  virtual void dropRoute(MsiRoute& route) = 0;
  /// Sends it.
  virtual void signal(MsiRoute& route) = 0;
};

}  // namespace lodge
