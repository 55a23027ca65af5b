// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "cli/completion.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

std::string words(const std::vector<std::string>& list) {
  return "COMPREPLY=($(compgen -W \"" + join(list, " ") + "\" -- \"$cur\"))";
}

std::vector<std::string> verbNames() {
  std::vector<std::string> names;
  for (const VerbSpec& verb : allVerbs()) names.push_back(verb.name);
  return names;
}

/// The command that fills COMPREPLY with what may stand there.
std::string offer(Complete kind, const std::vector<std::string>& choices) {
  if (!choices.empty()) return words(choices);
  switch (kind) {
    case Complete::file:
      return "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\"))";
    case Complete::machine:
      return words({std::string("$(") + kListMachines + ")"});
    case Complete::verb:
      return words(verbNames());
    case Complete::nothing:
      break;
  }
  return "COMPREPLY=()";
}

std::string valueCases() {
  std::string out;
  for (const VerbSpec* verb : flatVerbs()) {
    for (const OptionSpec& option : verb->options) {
      if (option.value.empty()) continue;
      std::string pattern = "\"" + verb->name + ":--" + option.name + "\"";
      if (option.letter != 0) pattern += "|\"" + verb->name + ":-" + option.letter + "\"";
      out += "    " + pattern + ") " + offer(option.complete, option.choices) + "; return ;;\n";
    }
  }
  return out;
}

std::string verbCase(const VerbSpec& verb) {
  std::vector<std::string> options;
  for (const auto* list : {&verb.options, &commonOptions()}) {
    for (const OptionSpec& option : *list) options.push_back("--" + option.name);
  }
  std::string argument =
      verb.arguments.empty() ? "COMPREPLY=()" : offer(verb.arguments[0].complete, verb.arguments[0].choices);
  return "    \"" + verb.name + "\") if [[ $cur == -* ]]; then " + words(options) + "; else " + argument + "; fi ;;\n";
}

}  // namespace

std::string bashCompletion() {
  std::vector<std::string> first = verbNames();
  first.insert(first.end(), {"--help", "--version"});
  std::string out = R"(# lodge completion for bash: source <(lodge completion bash)
_lodge() {
  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" verb=""
  # "--option=value" comes as three words.
  if [[ $prev == = ]]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi
  if [[ $cur == = ]]; then cur=""; fi
  if (( COMP_CWORD > 1 )); then verb="${COMP_WORDS[1]}"; fi
)";
  for (const VerbSpec& verb : allVerbs()) {
    if (!verb.verbs.empty())
      out +=
          "  if [[ $verb == " + verb.name + " ]] && (( COMP_CWORD > 2 )); then verb=\"$verb ${COMP_WORDS[2]}\"; fi\n";
  }
  out += "  case \"$verb:$prev\" in\n";
  out += valueCases();
  out += "  esac\n  case \"$verb\" in\n    \"\") " + words(first) + " ;;\n";
  for (const VerbSpec* verb : flatVerbs()) out += verbCase(*verb);
  for (const VerbSpec& verb : allVerbs()) {
    if (verb.verbs.empty()) continue;
    std::vector<std::string> inner;
    for (const VerbSpec& v : verb.verbs) inner.push_back(v.name.substr(verb.name.size() + 1));
    out += "    " + verb.name + ") " + words(inner) + " ;;\n";
  }
  return out + "  esac\n}\ncomplete -F _lodge lodge\n";
}

}  // namespace lodge::cli
