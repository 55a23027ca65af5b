// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "net/address.h"

namespace lodge::network {

/// A member that is text, else "".
std::string textIn(const nlohmann::json& json, const char* key);
/// A request's MTU, if it is one; else 1500.
unsigned mtuIn(const nlohmann::json& json);

/// Whether it is a name that the kernel may have for a card, without what could be read as an option or a path.
bool isCard(const std::string& name);
Error noCard(const std::string& card);
Result<MacAddress> macOf(const std::string& card);
/// What `ip` knows of a card; not /sys, which may show another network namespace. An empty object: nothing.
nlohmann::json factsOf(const std::string& card);
bool isBridge(const nlohmann::json& facts);
/// The MTU of a network that is to be on a card: the card's, or less if it asks for less. Errors: invalidArgument.
Result<unsigned> mtuOn(const nlohmann::json& request, const std::string& card, const nlohmann::json& facts);

/// A tap or macvtap device (`file`: /dev/net/tun or /dev/tapN) with offloads and virtio headers. `anew`: an error if it
/// is there.
Result<UniqueFd> openTapDevice(const std::string& name, const std::string& file, bool severalQueues = false,
                               bool anew = false);

}  // namespace lodge::network
