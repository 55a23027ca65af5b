// SPDX-License-Identifier: Apache-2.0
#include "cli/parse.h"

#include <algorithm>
#include <optional>

#include "base/text.h"

namespace lodge::cli {

namespace {

/// One command line being read.
class Parser {
 public:
  Parser(const VerbSpec& verb, const std::vector<std::string>& words) : verb_(verb), words_(words) {}

  Result<Invocation> parse() {
    while (next_ < words_.size()) {
      const std::string& word = words_[next_++];
      Status status;
      if (optionsEnded_ || word.size() < 2 || word[0] != '-') {
        result_.addArgument(word);
      } else if (word == "--") {
        optionsEnded_ = true;
      } else if (word[1] == '-') {
        status = longOption(word.substr(2));
      } else {
        status = letters(word);
      }
      if (!status) return std::move(status).error();
    }
    if (!result_.has("help")) {
      if (Status counted = checkArguments(); !counted) return std::move(counted).error();
    }
    return std::move(result_);
  }

 private:
  template <class Matches>
  const OptionSpec* find(Matches matches) const {
    for (const auto* list : {&verb_.options, &commonOptions()}) {
      auto it = std::find_if(list->begin(), list->end(), matches);
      if (it != list->end()) return &*it;
    }
    return nullptr;
  }

  Error unknown(const std::string& option, std::string_view near) const {
    std::string help = fmt::format("'lodge {} --help' lists them", verb_.name);
    return Error(ErrorKind::invalidArgument,
                 fmt::format("unknown option {} for 'lodge {}'", inQuotes(option), verb_.name))
        .withHint(near.empty() ? help : fmt::format("did you mean '--{}'? {}", near, help));
  }

  Status longOption(const std::string& text) {
    std::size_t equals = text.find('=');
    std::string name = text.substr(0, equals);
    const OptionSpec* option = find([&](const OptionSpec& o) { return o.name == name; });
    if (!option) {
      std::vector<std::string_view> names;
      for (const auto* list : {&verb_.options, &commonOptions()}) {
        for (const OptionSpec& o : *list) names.push_back(o.name);
      }
      return unknown("--" + name, closest(name, names));
    }
    std::optional<std::string> value;
    if (equals != std::string::npos) value = text.substr(equals + 1);
    return take(*option, value);
  }

  Status letters(const std::string& word) {
    for (std::size_t i = 1; i < word.size(); ++i) {
      const OptionSpec* option = find([&](const OptionSpec& o) { return o.letter != 0 && o.letter == word[i]; });
      if (!option) return unknown(std::string("-") + word[i], {});
      if (option->value.empty()) {
        if (Status taken = take(*option, std::nullopt); !taken) return taken;
        continue;
      }
      std::optional<std::string> rest;
      if (i + 1 < word.size()) rest = word.substr(word[i + 1] == '=' ? i + 2 : i + 1);
      return take(*option, rest);
    }
    return {};
  }

  Status take(const OptionSpec& option, std::optional<std::string> value) {
    if (option.value.empty()) {
      if (value)
        return Error(ErrorKind::invalidArgument, "option '--" + option.name + "' takes no value")
            .withHint("leave it out");
      result_.add(option.name, "");
      return {};
    }
    if (!value && next_ < words_.size()) value = words_[next_++];
    if (!value) {
      return Error(ErrorKind::invalidArgument, "option '--" + option.name + "' needs a value")
          .withHint(fmt::format("write --{} {}", option.name, option.value));
    }
    if (Status good = checkChoice("--" + option.name, option.choices, *value); !good) return good;
    result_.add(option.name, std::move(*value));
    return {};
  }

  static Status checkChoice(const std::string& what, const std::vector<std::string>& choices,
                            const std::string& value) {
    if (choices.empty() || std::find(choices.begin(), choices.end(), value) != choices.end()) return {};
    return Error(ErrorKind::invalidArgument, what + " " + inQuotes(value) + " does not exist")
        .withHint("use " + join(choices, ", "));
  }

  Status checkArguments() {
    const auto& given = result_.arguments();
    std::size_t allowed = 0;
    for (const ArgumentSpec& argument : verb_.arguments) {
      if (argument.required && given.size() <= allowed) {
        bool isMachine = argument.complete == Complete::machine;
        return Error(ErrorKind::invalidArgument,
                     fmt::format("'lodge {}' needs {}", verb_.name, isMachine ? "a machine's name" : argument.name))
            .withHint(isMachine ? "'lodge ps' lists them" : "usage: " + usageLine(verb_));
      }
      if (allowed < given.size()) {
        if (Status good = checkChoice(argument.name, argument.choices, given[allowed]); !good) return good;
      }
      allowed = argument.repeats ? given.size() : allowed + 1;
    }
    if (given.size() <= allowed) return {};
    return Error(ErrorKind::invalidArgument,
                 fmt::format("'lodge {}' does not know what to do with {}", verb_.name, inQuotes(given[allowed])))
        .withHint("usage: " + usageLine(verb_));
  }

  const VerbSpec& verb_;
  const std::vector<std::string>& words_;
  std::size_t next_ = 0;
  bool optionsEnded_ = false;
  Invocation result_;
};

}  // namespace

const std::vector<OptionSpec>& commonOptions() {
  static const std::vector<OptionSpec> options = {
      {.name = "verbose",
       .letter = 'v',
       .help = "Say more about what happens, on standard error; twice for still more.",
       .repeats = true},
      {.name = "help", .letter = 'h', .help = "Show this help."},
  };
  return options;
}

Result<Invocation> parseArguments(const VerbSpec& verb, const std::vector<std::string>& arguments) {
  return Parser(verb, arguments).parse();
}

std::string usageLine(const VerbSpec& verb) {
  std::string line = "lodge " + verb.name;
  if (!verb.options.empty()) line += " [OPTION]...";
  for (const ArgumentSpec& argument : verb.arguments) {
    std::string name = argument.name + (argument.repeats ? "..." : "");
    line += argument.required ? " " + name : " [" + name + "]";
  }
  return line;
}

}  // namespace lodge::cli
