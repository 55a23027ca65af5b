// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "machine/machine.h"

namespace lodge::cli {

/// What a shell can offer where a value is due.
enum class Complete : std::uint8_t { nothing, file, machine, verb };

struct OptionSpec {
  std::string name;                    ///< without the dashes
  char letter = 0;                     ///< its short form, 0 for none
  std::string value{};                 ///< what follows, as help names it ("FILE"); empty for a flag
  std::string help{};                  ///< a sentence or some
  std::vector<std::string> choices{};  ///< the values there are; empty if open
  Complete complete = Complete::nothing;
  bool repeats = false;  ///< may be given again; otherwise the last one counts
};

struct ArgumentSpec {
  std::string name;
  bool required = true;
  bool repeats = false;
  std::vector<std::string> choices{};
  Complete complete = Complete::nothing;
};

struct Item {
  std::string term, text;
};

/// A titled part of a verb's help: paragraphs (separated by empty lines), then items.
struct Section {
  std::string title, text;
  std::vector<Item> items{};
};

struct Example {
  std::string command, what;
};

class Invocation;

/// What the program's verbs work with besides their arguments.
struct Program {
  using CreateMachine = Result<std::unique_ptr<Machine>> (*)(EventLoop&, const MachineConfig&, ConsoleSink&);
  CreateMachine createMachine = nullptr;
  bool qemuImg = false;  ///< called by the name qemu-img: its exit statuses, messages and path rules
};

/// One verb: the parser, the help, the manual page and the shells' completions are all made from this.
struct VerbSpec {
  std::string name;
  std::string summary;      ///< a line's part, for lists: "start a machine"
  std::string description;  ///< paragraphs
  std::vector<ArgumentSpec> arguments{};
  std::vector<OptionSpec> options{};
  std::vector<Section> sections{};
  std::vector<Example> examples{};
  /// Verbs of its own, whose names begin with this one's: "image convert". Then there is no run().
  std::vector<VerbSpec> verbs{};
  /// Returns the exit status.
  std::function<int(const Invocation&, const Program&)> run{};
};

/// A verb's arguments as they were given.
class Invocation {
 public:
  bool has(std::string_view option) const { return values_.count(std::string(option)) != 0; }
  /// The last value given, or `otherwise`.
  std::string value(std::string_view option, std::string otherwise = {}) const {
    auto it = values_.find(std::string(option));
    return it == values_.end() ? otherwise : it->second.back();
  }
  std::vector<std::string> all(std::string_view option) const {
    auto it = values_.find(std::string(option));
    return it == values_.end() ? std::vector<std::string>() : it->second;
  }
  const std::vector<std::string>& arguments() const { return arguments_; }

  void add(const std::string& option, std::string value) { values_[option].push_back(std::move(value)); }
  void addArgument(std::string argument) { arguments_.push_back(std::move(argument)); }

 private:
  std::map<std::string, std::vector<std::string>> values_;
  std::vector<std::string> arguments_;
};

/// The options that every verb has: --help and --verbose.
const std::vector<OptionSpec>& commonOptions();

}  // namespace lodge::cli
