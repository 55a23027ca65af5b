// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace lodge::control {

using Json = nlohmann::json;

/// A value from text, or a discarded one (is_discarded()): never throws.
inline Json parseJson(std::string_view text) {
  return Json::parse(text.begin(), text.end(), nullptr, false);
}

/// One line of text; bytes that are not UTF-8 become U+FFFD instead of an exception.
inline std::string toLine(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

/// A member of an object if it is there and has the type asked for.
inline std::optional<std::string> stringField(const Json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  auto it = object.find(key);
  if (it == object.end() || !it->is_string()) return std::nullopt;
  return it->get<std::string>();
}
inline std::optional<std::uint64_t> numberField(const Json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  auto it = object.find(key);
  if (it == object.end() || !it->is_number_integer()) return std::nullopt;
  if (!it->is_number_unsigned() && it->get<std::int64_t>() < 0) return std::nullopt;
  return it->get<std::uint64_t>();
}
inline std::optional<bool> boolField(const Json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  auto it = object.find(key);
  if (it == object.end() || !it->is_boolean()) return std::nullopt;
  return it->get<bool>();
}

}  // namespace lodge::control
