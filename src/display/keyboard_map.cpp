// SPDX-License-Identifier: Apache-2.0
#include "display/keyboard_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/text.h"

namespace lodge {

namespace {
// A US keyboard's printing keys: set 1's code, alone and with shift.
struct PrintingKey {
  std::uint8_t code;
  char plain, shifted;
};
constexpr PrintingKey kPrinting[] = {
    {0x02, '1', '!'},  {0x03, '2', '@'}, {0x04, '3', '#'}, {0x05, '4', '$'}, {0x06, '5', '%'},  {0x07, '6', '^'},
    {0x08, '7', '&'},  {0x09, '8', '*'}, {0x0a, '9', '('}, {0x0b, '0', ')'}, {0x0c, '-', '_'},  {0x0d, '=', '+'},
    {0x10, 'q', 'Q'},  {0x11, 'w', 'W'}, {0x12, 'e', 'E'}, {0x13, 'r', 'R'}, {0x14, 't', 'T'},  {0x15, 'y', 'Y'},
    {0x16, 'u', 'U'},  {0x17, 'i', 'I'}, {0x18, 'o', 'O'}, {0x19, 'p', 'P'}, {0x1a, '[', '{'},  {0x1b, ']', '}'},
    {0x1e, 'a', 'A'},  {0x1f, 's', 'S'}, {0x20, 'd', 'D'}, {0x21, 'f', 'F'}, {0x22, 'g', 'G'},  {0x23, 'h', 'H'},
    {0x24, 'j', 'J'},  {0x25, 'k', 'K'}, {0x26, 'l', 'L'}, {0x27, ';', ':'}, {0x28, '\'', '"'}, {0x29, '`', '~'},
    {0x2b, '\\', '|'}, {0x2c, 'z', 'Z'}, {0x2d, 'x', 'X'}, {0x2e, 'c', 'C'}, {0x2f, 'v', 'V'},  {0x30, 'b', 'B'},
    {0x31, 'n', 'N'},  {0x32, 'm', 'M'}, {0x33, ',', '<'}, {0x34, '.', '>'}, {0x35, '/', '?'},  {0x39, ' ', ' '},
};

constexpr std::uint32_t kShift = 0xffe1, kReturn = 0xff0d, kTab = 0xff09;

// The other keys: keysym (X11's keysymdef.h), set 1's code, name.
struct NamedKey {
  std::uint32_t keysym;
  std::uint16_t code;
  const char* name;
};
constexpr NamedKey kNamed[] = {
    {0xff1b, 0x01, "esc"},         {0xff08, 0x0e, "backspace"},
    {kTab, 0x0f, "tab"},           {0xfe20, 0x0f, ""},
    {kReturn, 0x1c, "ret"},        {kReturn, 0x1c, "enter"},
    {0xffe3, 0x1d, "ctrl"},        {0xffe4, 0xe01d, "ctrl_r"},
    {kShift, 0x2a, "shift"},       {0xffe2, 0x36, "shift_r"},
    {0xffe9, 0x38, "alt"},         {0xffe7, 0x38, ""},
    {0xffea, 0xe038, "alt_r"},     {0xfe03, 0xe038, "altgr"},
    {0xffe8, 0xe038, ""},          {0xffe5, 0x3a, "caps_lock"},
    {0xffbe, 0x3b, "f1"},          {0xffbf, 0x3c, "f2"},
    {0xffc0, 0x3d, "f3"},          {0xffc1, 0x3e, "f4"},
    {0xffc2, 0x3f, "f5"},          {0xffc3, 0x40, "f6"},
    {0xffc4, 0x41, "f7"},          {0xffc5, 0x42, "f8"},
    {0xffc6, 0x43, "f9"},          {0xffc7, 0x44, "f10"},
    {0xffc8, 0x57, "f11"},         {0xffc9, 0x58, "f12"},
    {0xff7f, 0x45, "num_lock"},    {0xff14, 0x46, "scroll_lock"},
    {0xff13, 0xe11d, "pause"},     {0xff61, 0xe037, "print"},
    {0xff50, 0xe047, "home"},      {0xff52, 0xe048, "up"},
    {0xff55, 0xe049, "pgup"},      {0xff51, 0xe04b, "left"},
    {0xff53, 0xe04d, "right"},     {0xff57, 0xe04f, "end"},
    {0xff54, 0xe050, "down"},      {0xff56, 0xe051, "pgdn"},
    {0xff63, 0xe052, "insert"},    {0xffff, 0xe053, "delete"},
    {0xffeb, 0xe05b, "meta_l"},    {0xffec, 0xe05c, "meta_r"},
    {0xff67, 0xe05d, "menu"},      {0xff8d, 0xe01c, "kp_enter"},
    {0xffaf, 0xe035, "kp_divide"}, {0xffaa, 0x37, "kp_multiply"},
    {0xffad, 0x4a, "kp_subtract"}, {0xffab, 0x4e, "kp_add"},
    {0xffae, 0x53, "kp_decimal"},  {0xff9f, 0x53, ""},
    {0xffb0, 0x52, "kp_0"},        {0xff9e, 0x52, ""},
    {0xffb1, 0x4f, "kp_1"},        {0xff9c, 0x4f, ""},
    {0xffb2, 0x50, "kp_2"},        {0xff99, 0x50, ""},
    {0xffb3, 0x51, "kp_3"},        {0xff9b, 0x51, ""},
    {0xffb4, 0x4b, "kp_4"},        {0xff96, 0x4b, ""},
    {0xffb5, 0x4c, "kp_5"},        {0xff9d, 0x4c, ""},
    {0xffb6, 0x4d, "kp_6"},        {0xff98, 0x4d, ""},
    {0xffb7, 0x47, "kp_7"},        {0xff95, 0x47, ""},
    {0xffb8, 0x48, "kp_8"},        {0xff97, 0x48, ""},
    {0xffb9, 0x49, "kp_9"},        {0xff9a, 0x49, ""},
    {0x3c, 0x56, "less"},          {' ', 0x39, "spc"},
    {'-', 0x0c, "minus"},
};

const PrintingKey* printing(std::uint32_t character) {
  const auto* key = std::ranges::find_if(kPrinting, [&](const PrintingKey& k) {
    return static_cast<std::uint32_t>(k.plain) == character || static_cast<std::uint32_t>(k.shifted) == character;
  });
  return key == std::end(kPrinting) ? nullptr : key;
}

std::uint32_t keysymNamed(std::string_view name) {
  if (name.size() == 1 && printing(static_cast<unsigned char>(name[0]))) return static_cast<unsigned char>(name[0]);
  for (const NamedKey& key : kNamed) {
    if (!name.empty() && name == key.name) return key.keysym;
  }
  return 0;
}
}  // namespace

unsigned scanCodeOf(std::uint32_t keysym) {
  if (const PrintingKey* key = printing(keysym)) return key->code;
  for (const NamedKey& key : kNamed) {
    if (key.keysym == keysym) return key.code;
  }
  return 0;
}

Result<std::vector<KeyEvent>> keysNamed(std::string_view text) {
  std::vector<KeyEvent> events;
  for (std::string_view name : split(text, '-')) {
    std::uint32_t keysym = keysymNamed(name);
    if (keysym == 0) {
      return Error(ErrorKind::invalidArgument, fmt::format("key {} in {}", inQuotes(name), inQuotes(text)))
          .withHint(
              "keys are letters, digits and names such as ret, esc, tab, f1, up, delete, joined with '-': "
              "ctrl-alt-delete");
    }
    events.push_back({keysym, true});
  }
  for (std::size_t n = events.size(); n-- > 0;) events.push_back({events[n].keysym, false});
  return events;
}

Result<std::vector<KeyEvent>> keysTyping(std::string_view text) {
  std::vector<KeyEvent> events;
  for (char character : text) {
    std::uint32_t keysym = static_cast<unsigned char>(character);
    bool shift = false;
    if (character == '\n' || character == '\r') {
      keysym = kReturn;
    } else if (character == '\t') {
      keysym = kTab;
    } else {
      const PrintingKey* key = printing(keysym);
      if (!key) {
        return Error(ErrorKind::invalidArgument, "character " + inQuotes(std::string_view(&character, 1)))
            .withHint("a US keyboard types ASCII");
      }
      shift = character != key->plain;
    }
    if (shift) events.push_back({kShift, true});
    events.push_back({keysym, true});
    events.push_back({keysym, false});
    if (shift) events.push_back({kShift, false});
  }
  return events;
}

}  // namespace lodge
