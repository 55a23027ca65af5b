// SPDX-License-Identifier: Apache-2.0
// What a client says once the conversation runs.
#include <algorithm>
#include <utility>

#include "vnc/session.h"
#include "vnc/wire.h"

namespace lodge::vnc {

// Messages of the client (RFC 6143, 7.5).
bool Session::stepMessage() {
  const std::uint8_t* message = need(1);
  if (!message) return false;
  switch (*message) {
    case 0: {
      if (!need(20)) return false;
      if (!PixelFormat::parse(message + 4, format_)) stage_ = Stage::over;
      drop(20);
      return true;
    }
    case 2:
      return setEncodings();
    case 3:
      return updateRequest();
    case 4:
      if (!need(8)) return false;
      display_.key(get(message + 4, 4), message[1] != 0);
      drop(8);
      return true;
    case 5:
      if (!need(6)) return false;
      display_.pointer(std::min(get(message + 2, 2), shown_.width - 1),
                       std::min(get(message + 4, 2), shown_.height - 1), message[1]);
      drop(6);
      return true;
    case 6:
      return cutText();
    case 251:
      return setDesktopSize();
    default:
      stage_ = Stage::over;
      return false;
  }
}

bool Session::setEncodings() {
  const std::uint8_t* message = need(4);
  std::size_t count = message ? get(message + 2, 2) : 0;
  if (!message || !need(4 + 4 * count)) return false;
  Takes before = std::exchange(takes_, {});
  encoding_ = Encoding::raw;
  bool chosen = false;
  for (std::size_t n = 0; n < count; ++n) {
    auto code = static_cast<std::int32_t>(get(message + 4 + 4 * n, 4));
    takes_.size |= code == static_cast<std::int32_t>(Pseudo::desktopSize);
    takes_.screens |= code == static_cast<std::int32_t>(Pseudo::extendedDesktopSize);
    takes_.cursor |= code == static_cast<std::int32_t>(Pseudo::cursor);
    takes_.alphaCursor |= code == static_cast<std::int32_t>(Pseudo::cursorWithAlpha);
    takes_.clipboard |= code == static_cast<std::int32_t>(Pseudo::extendedClipboard);
    bool known = code == static_cast<std::int32_t>(Encoding::raw) ||
                 code == static_cast<std::int32_t>(Encoding::tight) ||
                 code == static_cast<std::int32_t>(Encoding::zrle);
    if (known && !chosen) {
      encoding_ = static_cast<Encoding>(code);
      chosen = true;
    }
  }
  drop(4 + 4 * count);
  // An answer of either kind tells the client that the server has the extension.
  if (takes_.screens && !before.screens) sizeNote_ = SizeNote{SizeReason::server, SizeStatus::done};
  if (takes_.clipboard && !before.clipboard) sendClipboardAbilities();
  if (takes_.anyCursor() != before.anyCursor()) shownCursor_.reset();
  return true;
}

bool Session::updateRequest() {
  const std::uint8_t* message = need(10);
  if (!message) return false;
  bool incremental = message[1] != 0;
  wanted_ = Wanted{incremental && (!wanted_ || wanted_->incremental)};
  drop(10);
  return true;
}

// SetDesktopSize. The guest takes another size later, or never; the client hears of it when it does.
bool Session::setDesktopSize() {
  const std::uint8_t* message = need(8);
  std::size_t screens = message ? message[6] : 0;
  if (!message || !need(8 + 16 * screens)) return false;
  unsigned width = get(message + 2, 2), height = get(message + 4, 2);
  const std::uint8_t* first = message + 8 + 4;  // behind its number
  SizeStatus status = SizeStatus::done;
  if (screens != 1 || width == 0 || height == 0 || get(first, 4) != 0 || get(first + 4, 2) != width ||
      get(first + 6, 2) != height) {
    status = SizeStatus::badLayout;
  } else if (width != shown_.width || height != shown_.height) {
    switch (display_.requestSize(width, height)) {
      case Display::SizeAnswer::asked:
        status = SizeStatus::forwarded;
        break;
      case Display::SizeAnswer::never:
        status = SizeStatus::prohibited;
        break;
      case Display::SizeAnswer::tooLarge:
        status = SizeStatus::noResources;
        break;
    }
  }
  drop(8 + 16 * screens);
  if (takes_.screens) sizeNote_ = SizeNote{SizeReason::thisClient, status};
  return true;
}

}  // namespace lodge::vnc
