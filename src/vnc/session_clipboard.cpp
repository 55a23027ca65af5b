// SPDX-License-Identifier: Apache-2.0
// Clipboard text: RFC 6143's messages, 7.5.6 and 7.6.4, and the RFB community's extended clipboard.
#include <utility>

#include "vnc/clipboard_text.h"
#include "vnc/session.h"
#include "vnc/wire.h"

namespace lodge::vnc {

namespace {
constexpr std::size_t kMaxCutText = 16 << 20;
constexpr std::size_t kHead = 8;
/// Flags of extended messages: the formats, of which there is text here; and what the message is.
constexpr std::uint32_t kText = 1;
constexpr std::uint32_t kAbilities = 1u << 24, kRequest = 1u << 25, kPeek = 1u << 26, kNotify = 1u << 27,
                        kProvide = 1u << 28;
}  // namespace

bool Session::cutText() {
  const std::uint8_t* message = need(kHead);
  if (!message) return false;
  auto length = static_cast<std::int32_t>(get(message + 4, 4));
  bool extended = length < 0 && takes_.clipboard;
  std::size_t bytes =
      length < 0 ? static_cast<std::size_t>(-static_cast<std::int64_t>(length)) : static_cast<std::size_t>(length);
  if (bytes > kMaxCutText) {
    stage_ = Stage::over;
    return false;
  }
  if (bytes > Clipboard::kMostBytes || (length < 0 && !extended)) {  // too long to be kept
    skip_ = bytes;
    drop(kHead);
    return true;
  }
  if (!need(kHead + bytes)) return false;
  std::string content = in_.substr(kHead, bytes);
  drop(kHead + bytes);
  if (extended) {
    extendedCutText(content);
  } else if (display_.clipboard().set(fromLatin1(content))) {
    clipboardSeen_ = display_.clipboard().version();
  }
  return true;
}

void Session::extendedCutText(std::string_view message) {
  if (message.size() < 4) return;
  std::uint32_t flags = get(reinterpret_cast<const std::uint8_t*>(message.data()), 4);
  bool hasText = (flags & kText) != 0;
  if ((flags & kAbilities) != 0) return;
  if ((flags & kRequest) != 0) {
    if (hasText) sendClipboardText();
  } else if ((flags & kPeek) != 0) {
    sendCutText(kNotify | (display_.clipboard().version() != 0 ? kText : 0), {});
  } else if ((flags & kNotify) != 0) {
    if (hasText) sendCutText(kRequest | kText, {});
  } else if ((flags & kProvide) != 0 && hasText) {
    auto text = unpackText(message.substr(4), Clipboard::kMostBytes);
    if (text && display_.clipboard().set(std::move(*text))) clipboardSeen_ = display_.clipboard().version();
  }
}

/// An extended ServerCutText: its length is negative.
void Session::sendCutText(std::uint32_t flags, std::string_view payload) {
  put(out_, 3u << 24, 4);
  put(out_, static_cast<std::uint32_t>(-static_cast<std::int64_t>(4 + payload.size())), 4);
  put(out_, flags, 4);
  out_ += payload;
}

// No text is to come without having been asked for: its size is 0.
void Session::sendClipboardAbilities() {
  sendCutText(kAbilities | kRequest | kPeek | kNotify | kProvide | kText, std::string(4, '\0'));
}

void Session::sendClipboardText() {
  sendCutText(kProvide | kText, packText(display_.clipboard().text()));
}

void Session::offerClipboard() {
  const Clipboard& clipboard = display_.clipboard();
  if (stage_ != Stage::running || clipboard.version() == clipboardSeen_) return;
  clipboardSeen_ = clipboard.version();
  if (takes_.clipboard) return sendCutText(kNotify | kText, {});
  std::string text = toLatin1(clipboard.text());
  put(out_, 3u << 24, 4);
  put(out_, static_cast<std::uint32_t>(text.size()), 4);
  out_ += text;
}

}  // namespace lodge::vnc
