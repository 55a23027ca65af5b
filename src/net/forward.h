// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "net/backend.h"

namespace lodge {

/// tcp:127.0.0.1:2222:22, tcp::2222:22 (the same), udp:[::1]:5353:10.0.2.15:53. Errors: invalidArgument.
Result<PortForward> parseForward(std::string_view text);

}  // namespace lodge
