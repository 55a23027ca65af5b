// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "base/text.h"
#include "cli/disk_option.h"
#include "cli/monitor_keys.h"
#include "cli/net_option.h"
#include "cli/parse.h"
#include "cli/run_options.h"
#include "cli/verbs.h"

/// A command line, and the values that have a form of their own.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  [[maybe_unused]] auto bytes = parseSize(text);
  [[maybe_unused]] auto disk = cli::parseDisk(text);
  [[maybe_unused]] auto net = cli::parseNet(text);
  [[maybe_unused]] auto forward = parseForward(text);
  cli::MonitorKeys keys;
  (void)keys.feed(text);
  std::vector<std::string> words;
  for (std::string_view word : split(text, '\0')) words.emplace_back(word);
  for (const cli::VerbSpec& verb : cli::allVerbs()) {
    auto invocation = cli::parseArguments(verb, words);
    if (invocation && verb.name == "run") [[maybe_unused]]
      auto options = cli::runOptionsFrom(*invocation);
  }
  return 0;
}
