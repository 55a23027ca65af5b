// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "cli/completion.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

std::string singleQuoted(std::string_view text) {
  std::string out = "'";
  for (char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

/// The -a argument that offers values, with a leading space; empty if there is nothing to offer.
std::string offer(Complete kind, const std::vector<std::string>& choices) {
  if (!choices.empty()) return " -a " + singleQuoted(join(choices, " "));
  if (kind == Complete::machine) return std::string(" -a ") + singleQuoted(std::string("(") + kListMachines + ")");
  if (kind == Complete::verb) {
    std::string names;
    for (const VerbSpec& verb : allVerbs()) names += (names.empty() ? "" : " ") + verb.name;
    return " -a " + singleQuoted(names);
  }
  return "";
}

std::string optionLine(const std::string& verb, const OptionSpec& option) {
  std::string out = "complete -c lodge -n '__fish_seen_subcommand_from " + verb + "' -l " + option.name;
  if (option.letter != 0) out += std::string(" -s ") + option.letter;
  if (!option.value.empty()) out += option.complete == Complete::file ? " -r -F" : " -x";
  return out + offer(option.complete, option.choices) + " -d " +
         singleQuoted(option.help.substr(0, option.help.find(". "))) + "\n";
}

}  // namespace

std::string fishCompletion() {
  std::string out = "# lodge completion for fish: lodge completion fish | source\ncomplete -c lodge -f\n";
  out += "complete -c lodge -n __fish_use_subcommand -l help -d 'Show help'\n";
  out += "complete -c lodge -n __fish_use_subcommand -l version -d 'Print the version'\n";
  for (const VerbSpec& verb : allVerbs()) {
    out += "complete -c lodge -n __fish_use_subcommand -a " + verb.name + " -d " + singleQuoted(verb.summary) + "\n";
    for (const VerbSpec& inner : verb.verbs) {
      std::string word = inner.name.substr(verb.name.size() + 1);
      out += "complete -c lodge -n '__fish_seen_subcommand_from " + verb.name + "' -a " + word + " -d " +
             singleQuoted(inner.summary) + "\n";
      for (const OptionSpec& option : inner.options)
        out += optionLine(verb.name + "; and __fish_seen_subcommand_from " + word, option);
      if (!inner.arguments.empty() && inner.arguments[0].complete == Complete::file)
        out += "complete -c lodge -n '__fish_seen_subcommand_from " + verb.name + "; and __fish_seen_subcommand_from " +
               word + "' -F\n";
    }
    for (const auto* list : {&verb.options, &commonOptions()}) {
      for (const OptionSpec& option : *list) out += optionLine(verb.name, option);
    }
    for (const ArgumentSpec& argument : verb.arguments) {
      std::string values = offer(argument.complete, argument.choices);
      if (!values.empty())
        out += "complete -c lodge -n '__fish_seen_subcommand_from " + verb.name + "'" + values + "\n";
    }
  }
  return out;
}

}  // namespace lodge::cli
