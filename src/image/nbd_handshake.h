// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/file.h"

namespace lodge::image::nbd {

/// What an export is like, as the handshake told.
struct Export {
  UniqueFd socket;
  std::uint64_t bytes = 0;
  std::uint16_t flags = 0;
  bool structured = false, allocation = false;
};

/// The client's side of the negotiation, over `e.socket`, for the export of that name: fills the rest of `e`. A server
/// that is silent for kServerPatience has failed. Errors: io, unsupported (the server), notFound (no such export).
Status negotiate(Export& e, const std::string& name);

}  // namespace lodge::image::nbd
