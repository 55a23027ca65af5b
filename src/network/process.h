// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/error.h"

namespace lodge::network {

/// Serves a network until its last port has left, or with `keep` until it is told to stop. Returns in the caller's
/// process once a child of it serves (or an error, or another process serves already, which is told to stay if `keep`);
/// the child ends with exit().
Status startServing(const std::string& name, bool keep);

}  // namespace lodge::network
