// SPDX-License-Identifier: Apache-2.0
#include "tests/differential/options.h"

#include <fmt/format.h>

#include <string_view>

#include "base/text.h"
#include "base/trace.h"

namespace lodge::differential {

namespace {

struct Switch {
  std::string_view name;
  bool Options::*member;
  std::string_view help;
};

constexpr Switch kSwitches[] = {
    {"--lax-flags", &Options::laxFlags, "translate as guests get it: arithmetic flags are not compared at faults"},
    {"--kicks", &Options::kicks, "another thread interrupts the translator all the time"},
    {"--kernel", &Options::kernel, "at CPL 0, with system instructions; compared with the interpreter, not the host"},
    {"--code32", &Options::code32, "32-bit code"},
    {"--code16", &Options::code16, "16-bit code, in segments of 64 KiB and less"},
    {"--protected", &Options::protectedMode,
     "with one of these: in protected mode instead of long mode (so it is with --kernel --code32)"},
    {"--mmio", &Options::mmio, "with a device's page behind the data; compared with the interpreter, by accesses"},
    {"--single-step", &Options::singleStep,
     "runs the translator's code one host instruction at a time; the interpreter must agree at each"},
    {"--verbose", &Options::verbose, "the registers before each difference"},
    {"--list", &Options::list, "what was generated, what was left out and why"},
    {"--help", &Options::help, "this text"}};

struct Number {
  std::string_view name;
  std::uint64_t Options::*member;
  std::uint64_t least;
  std::string_view help;
};

constexpr Number kNumbers[] = {
    {"--count", &Options::count, 1, "this many snippets (10000), in batches of 2048"},
    {"--seed", &Options::seed, 0, "what they are drawn from (1)"},
    {"--seeds", &Options::seeds, 1, "this many seeds, from the first on, each with as many snippets (1)"},
    {"--keep-going", &Options::keepGoing, 1, "ends a seed after this many differences (10)"},
    {"--rounds", &Options::rounds, 1,
     "runs new code this often on the engine (translate: 2, else 1), and then on three other states"}};

/// Why an option would not do what it says beside the others; "" if each does.
std::string_view contradiction(const Options& o) {
  if (o.code32 && o.code16) return "--code32 and --code16: code has one size";
  if (o.kernel && o.code16) return "--kernel has no 16-bit code: take --code32 or neither";
  if (o.protectedMode && !o.code32 && !o.code16)
    return "--protected needs --code32 or --code16: protected mode has no 64-bit code";
  if (!o.translates() && o.singleStep) return "--single-step is of the translator's code: take --engine translate";
  if (!o.translates() && o.laxFlags) return "--lax-flags: the interpreter's flags are always exact";
  if (!o.translates() && o.kicks) return "--kicks: nothing interrupts the interpreter";
  if (!o.singleStep) return "";
  if (o.code16) return "--single-step has nothing to step through with --code16: 16-bit code is interpreted";
  if (o.kicks) return "--single-step and --kicks: a kick would be taken for a step";
  if (o.laxFlags) return "--single-step wants exact flags: leave --lax-flags out";
  if (traces(o.trace, "executors")) return "--single-step steps through the translator's own code, not executors'";
  if (o.list || o.rounds != 0 || o.seeds != 1) return "--single-step knows no --list, --rounds and --seeds";
  return "";
}

Error refuse(std::string text) {
  return {ErrorKind::invalidArgument, std::move(text) + " (--help lists the options)"};
}

/// An option with a value.
Status setValue(Options& o, std::string_view name, const char* value) {
  for (const Number& number : kNumbers) {
    if (number.name != name) continue;
    auto parsed = value ? parseNumber(value) : std::nullopt;
    if (!parsed || *parsed < number.least)
      return refuse(fmt::format("option '{}' needs a number from {} on", name, number.least));
    o.*number.member = *parsed;
    return {};
  }
  if (name != "--engine" && name != "--trace") return refuse(fmt::format("unknown option {}", inQuotes(name)));
  if (!value) return refuse(fmt::format("option '{}' needs a value", name));
  if (name == "--trace") {
    o.trace = value;
    return {};
  }
  o.engine = value;
  if (o.engine != "interpret" && o.engine != "translate")
    return refuse(fmt::format("engine {} is neither interpret nor translate", inQuotes(o.engine)));
  return {};
}

}  // namespace

std::string usage() {
  std::string text = "usage: differential [--engine interpret|translate] [--trace WORDS] [OPTION...]\n";
  auto add = [&](std::string_view name, std::string_view value, std::string_view help) {
    text += fmt::format("  {:<15} {}\n", fmt::format("{}{}", name, value), help);
  };
  add("--engine", " E", "interpret, or translate (the default with --single-step)");
  add("--trace", " WORDS", "options of the engine, as lodge run --trace has them");
  for (const Number& number : kNumbers) add(number.name, " N", number.help);
  for (const Switch& s : kSwitches) add(s.name, "", s.help);
  return text;
}

Result<Options> parseOptions(int argc, const char* const* argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    std::string_view name = argv[i];
    bool known = false;
    for (const Switch& s : kSwitches) {
      if (s.name == name) known = o.*s.member = true;
    }
    if (known) continue;
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (Status set = setValue(o, name, value); !set) return std::move(set).error();
    ++i;
  }
  if (o.engine.empty()) o.engine = o.singleStep ? "translate" : "interpret";
  if (std::string_view why = contradiction(o); !why.empty()) return refuse(std::string(why));
  return o;
}

}  // namespace lodge::differential
