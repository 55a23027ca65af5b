// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "cli/completion.h"
#include "cli/help.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

/// Inside single quotes and an _arguments specification: quotes, brackets and colons have a meaning.
std::string escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out;
}

std::string action(Complete kind, const std::vector<std::string>& choices) {
  if (!choices.empty()) return "(" + join(choices, " ") + ")";
  switch (kind) {
    case Complete::file:
      return "_files";
    case Complete::machine:
      return "_lodge_machines";
    case Complete::verb:
      return "_lodge_verbs";
    case Complete::nothing:
      break;
  }
  return "";
}

std::string firstSentence(const std::string& text) {
  std::size_t end = text.find(". ");
  std::string sentence = text.substr(0, end);
  if (!sentence.empty() && sentence.back() == '.') sentence.pop_back();
  return sentence;
}

std::string optionLine(const OptionSpec& option) {
  std::string forms = "--" + option.name;
  std::string prefix = option.repeats ? "'*'" : "";
  if (option.letter != 0) {
    forms = std::string("{-") + option.letter + ",--" + option.name + "}";
    if (!option.repeats) prefix = std::string("'(-") + option.letter + " --" + option.name + ")'";
  }
  std::string spec = "[" + escaped(firstSentence(option.help)) + "]";
  if (!option.value.empty()) spec += ":" + escaped(option.value) + ":" + action(option.complete, option.choices);
  return prefix + forms + "'" + spec + "'";
}

std::string verbCase(const VerbSpec& verb, const std::string& word) {
  std::string out = "        " + word + ")\n          _arguments -s";
  for (const auto* list : {&verb.options, &commonOptions()}) {
    for (const OptionSpec& option : *list) out += " \\\n            " + optionLine(option);
  }
  for (const ArgumentSpec& argument : verb.arguments) {
    out += std::string(" \\\n            '") + (argument.repeats ? "*" : "") + ":" + argument.name + ":" +
           action(argument.complete, argument.choices) + "'";
  }
  return out + "\n          ;;\n";
}

/// A verb that has verbs of its own: one level deeper.
std::string groupCase(const VerbSpec& group) {
  std::string names, cases;
  for (const VerbSpec& verb : group.verbs) {
    std::string word = verb.name.substr(group.name.size() + 1);
    names += (names.empty() ? "" : " ") + word;
    cases += verbCase(verb, word);
  }
  return "        " + group.name + ")\n          _arguments -C '1:verb:(" + names +
         ")' '*::argument:->inner'\n          case $words[1] in\n" + cases + "          esac\n          ;;\n";
}

}  // namespace

std::string zshCompletion() {
  std::string out = "#compdef lodge\n# lodge completion for zsh: save as _lodge in a folder of $fpath\n\n";
  out += std::string("_lodge_machines() {\n  local -a names\n  names=(${(f)\"$(") + kListMachines +
         ")\"})\n  compadd -a names\n}\n\n";
  out += "_lodge_verbs() {\n  local -a verbs\n  verbs=(\n";
  for (const VerbSpec& verb : allVerbs()) out += "    '" + verb.name + ":" + escaped(verb.summary) + "'\n";
  out += "  )\n  _describe verb verbs\n}\n\n_lodge() {\n  local context state line\n";
  out +=
      "  _arguments -C '(- *)--help[Show help]' '(- *)--version[Print the version]' '1:verb:_lodge_verbs' "
      "'*::argument:->rest'\n";
  out += "  case $state in\n    rest)\n      case $words[1] in\n";
  for (const VerbSpec& verb : allVerbs()) out += verb.verbs.empty() ? verbCase(verb, verb.name) : groupCase(verb);
  return out +
         "      esac\n      ;;\n  esac\n}\n\nif [[ $funcstack[1] == _lodge ]]; then _lodge \"$@\"; else compdef _lodge "
         "lodge; fi\n";
}

}  // namespace lodge::cli
