// SPDX-License-Identifier: Apache-2.0
#include "cli/help.h"

#include "base/text.h"
#include "cli/layout.h"
#include "cli/parse.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
constexpr std::size_t kColumn = 28;
}

std::string optionTerm(const OptionSpec& option) {
  std::string term = option.letter != 0 ? std::string("-") + option.letter + ", " : "    ";
  term += "--" + option.name;
  if (!option.value.empty()) term += " " + option.value;
  return term;
}

std::string optionText(const OptionSpec& option) {
  std::string text = option.help;
  if (!option.choices.empty()) text += " One of: " + join(option.choices, ", ") + ".";
  if (option.repeats && !option.value.empty()) text += " May be given more than once.";
  return text;
}

std::string verbHelp(const VerbSpec& verb, std::size_t width) {
  std::string out = "Usage: " + usageLine(verb) + "\n\n" + wrapped(verb.description, 0, width);
  if (!verb.verbs.empty()) out += "\nVerbs:\n";
  for (const VerbSpec& inner : verb.verbs) out += definition(inner.name, inner.summary, kColumn, width);
  out += "\nOptions:\n";
  for (const auto* list : {&verb.options, &commonOptions()}) {
    for (const OptionSpec& option : *list) out += definition(optionTerm(option), optionText(option), kColumn, width);
  }
  for (const Section& section : verb.sections) {
    out += "\n" + section.title + ":\n" + wrapped(section.text, 2, width);
    for (const Item& item : section.items) out += definition(item.term, item.text, kColumn, width);
  }
  if (!verb.examples.empty()) out += "\nExamples:\n";
  for (const Example& example : verb.examples) out += "  " + example.command + "\n" + wrapped(example.what, 6, width);
  return out;
}

std::string programHelp(std::size_t width) {
  std::string out =
      "Usage: lodge VERB [OPTION]... [ARGUMENT]...\n\n" + wrapped(programDescription(), 0, width) + "\nVerbs:\n";
  for (const VerbSpec& verb : allVerbs()) out += definition(verb.name, verb.summary, 14, width);
  out += "\n'lodge VERB --help' tells more about one; 'lodge help --man' writes the manual page.\n";
  return out;
}

}  // namespace lodge::cli
