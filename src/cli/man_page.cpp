// SPDX-License-Identifier: Apache-2.0
#include "cli/man_page.h"

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/help.h"
#include "cli/parse.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

/// Paragraphs, separated by .PP.
std::string paragraphs(std::string_view text) {
  std::string out;
  bool gap = false;
  for (std::string_view line : split(text, '\n')) {
    if (line.empty()) {
      gap = !out.empty();
      continue;
    }
    if (gap) out += ".PP\n";
    gap = false;
    out += roffEscaped(line) + "\n";
  }
  return out;
}

std::string item(std::string_view term, std::string_view text) {
  return ".TP\n.B \"" + roffEscaped(term) + "\"\n" + paragraphs(text);
}

std::string trimmed(const std::string& text) {
  return text.substr(std::min(text.find_first_not_of(' '), text.size()));
}

std::string section(const Section& part) {
  std::string out = ".PP\n.I \"" + roffEscaped(part.title) + "\"\n";
  if (!part.text.empty()) out += ".PP\n" + paragraphs(part.text);
  for (const Item& entry : part.items) out += item(entry.term, entry.text);
  return out;
}

std::string examples(const VerbSpec& verb) {
  std::string out;
  for (const Example& example : verb.examples) {
    out += paragraphs(example.what) + ".PP\n.in +4n\n.EX\n" + roffEscaped(example.command) + "\n.EE\n.in\n.PP\n";
  }
  return out;
}

std::string command(const VerbSpec& verb) {
  std::string out = ".SS \"" + roffEscaped(usageLine(verb)) + "\"\n" + paragraphs(verb.description);
  for (const OptionSpec& option : verb.options) out += item(trimmed(optionTerm(option)), optionText(option));
  for (const Section& part : verb.sections) out += section(part);
  return out;
}

}  // namespace

std::string roffEscaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (out.empty() && (c == '.' || c == '\'')) out += "\\&";
    switch (c) {
      case '\\':
        out += "\\e";
        break;
      case '-':
        out += "\\-";
        break;
      case '"':
        out += "\\(dq";
        break;
      case '~':
        out += "\\(ti";
        break;
      case '^':
        out += "\\(ha";
        break;
      case '`':
        out += "\\(ga";
        break;
      case '\'':
        out += "\\(aq";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string manPage() {
  std::string out =
      ".\\\" Made by 'lodge help --man'.\n.TH LODGE 1 \"\" \"lodge " + roffEscaped(programVersion()) + "\" \"Lodge\"\n";
  out += ".SH NAME\nlodge \\- run virtual machines, with or without hardware virtualization\n";
  out += ".SH SYNOPSIS\n.B lodge\n.I verb\n.RI [ option ]...\n.RI [ argument ]...\n";
  out += ".SH DESCRIPTION\n" + paragraphs(programDescription());
  out += ".PP\nEvery verb also takes these options:\n";
  for (const OptionSpec& option : commonOptions()) out += item(trimmed(optionTerm(option)), optionText(option));
  out += ".SH VERBS\n";
  for (const VerbSpec* verb : flatVerbs()) out += command(*verb);
  out += ".SH EXIT STATUS\n";
  for (const auto& [status, meaning] : exitStatusTable()) out += item(status, meaning);
  out += ".SH ENVIRONMENT\n" +
         item("XDG_RUNTIME_DIR", "Where machines are known: see FILES. Used if it is a folder of the user's own.");
  out += ".SH FILES\n" + item("$XDG_RUNTIME_DIR/lodge/NAME/",
                              "A machine's control socket, configuration and, once it has ended, its "
                              "last console output. Without XDG_RUNTIME_DIR: /run/user/UID/lodge "
                              "or /tmp/lodge-UID.");
  out += ".SH EXAMPLES\n";
  for (const VerbSpec* verb : flatVerbs()) out += examples(*verb);
  return out.substr(0, out.size() - 4);  // the last .PP has nothing to part
}

}  // namespace lodge::cli
