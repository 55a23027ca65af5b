// SPDX-License-Identifier: Apache-2.0
#include <time.h>
#include <unistd.h>

#include <map>

#include "base/text.h"
#include "cli/disassembly.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

using Counters = std::map<std::string, std::uint64_t>;

Counters countersIn(const control::Json& reply) {
  Counters counters;
  auto it = reply.find("counters");
  if (it == reply.end() || !it->is_object()) return counters;
  for (const auto& [name, value] : it->items()) {
    if (value.is_number_integer()) counters[name] = value.get<std::uint64_t>();
  }
  return counters;
}

/// The table; with the counters of a moment ago also what each gained a second.
std::string table(const Counters& now, const Counters& before, double seconds) {
  std::vector<std::vector<std::string>> rows = {{"COUNTER", "VALUE"}};
  if (seconds > 0) rows[0].push_back("PER SECOND");
  for (const auto& [name, value] : now) {
    std::vector<std::string> row = {name, std::to_string(value)};
    auto old = before.find(name);
    if (seconds > 0) {
      bool grew = old != before.end() && value >= old->second;
      row.push_back(grew ? fmt::format("{:.0f}", static_cast<double>(value - old->second) / seconds) : "-");
    }
    rows.push_back(std::move(row));
  }
  return columns(rows, {1, 2});
}

double uptimeOf(const Counters& counters) {
  auto it = counters.find("uptimeMilliseconds");
  return it == counters.end() ? 0 : static_cast<double>(it->second) / 1000;
}

/// Prints until the machine ends or the output breaks.
int watch(control::RuntimeFolder& folder, const std::string& name, unsigned seconds, bool json) {
  bool terminal = ::isatty(STDOUT_FILENO) == 1;
  Counters before;
  for (bool first = true;; first = false) {
    auto reply = ask(folder, name, {.kind = control::RequestKind::stats});
    if (!reply && first) return fail(reply.error());
    if (!reply) return exit_status::kSuccess;
    Counters now = countersIn(*reply);
    std::string text =
        json ? control::toLine(*reply) : table(now, before, first ? 0 : uptimeOf(now) - uptimeOf(before)) + "\n";
    constexpr const char* kHomeAndClear = "\x1b[H\x1b[J";
    if (!print(terminal && !json ? kHomeAndClear + text : text)) return exit_status::kLodgeError;
    before = std::move(now);
    ::sleep(seconds);
  }
}

int dumpCode(control::RuntimeFolder& folder, const std::string& name, const std::string& address, bool json) {
  auto reply = ask(folder, name, {.kind = control::RequestKind::describeCode, .text = address});
  if (!reply) return fail(reply.error());
  if (json) return print(control::toLine(*reply)) ? exit_status::kSuccess : exit_status::kLodgeError;
  auto text = control::stringField(*reply, "text");
  if (!text || text->empty()) {
    return fail(
        Error(ErrorKind::notFound, "there is no translation of " + address)
            .withHint("only code that has run since the code cache was emptied last, and was not changed, has one"));
  }
  return print(withDisassembly(*text)) ? exit_status::kSuccess : exit_status::kLodgeError;
}

int run(const Invocation& invocation, const Program&) {
  auto folder = control::RuntimeFolder::open();
  if (!folder) return fail(folder.error());
  const std::string& name = invocation.arguments().front();
  bool json = invocation.has("json");
  if (invocation.has("dump")) return dumpCode(*folder, name, invocation.value("dump"), json);
  if (invocation.has("watch")) {
    auto seconds = parseNumber(invocation.value("interval", "1"), 3600);
    if (!seconds || *seconds == 0) {
      return fail(
          Error(ErrorKind::invalidArgument, "--interval " + inQuotes(invocation.value("interval")) + " is not a time")
              .withHint("write seconds, 1 to 3600"));
    }
    return watch(*folder, name, static_cast<unsigned>(*seconds), json);
  }
  auto reply = ask(*folder, name, {.kind = control::RequestKind::stats});
  if (!reply) return fail(reply.error());
  std::string text = json ? reply->dump(2, ' ', false, control::Json::error_handler_t::replace) + "\n"
                          : table(countersIn(*reply), {}, 0);
  return print(text) ? exit_status::kSuccess : exit_status::kLodgeError;
}

}  // namespace

VerbSpec statsVerb() {
  return {
      .name = "stats",
      .summary = "show a machine's counters",
      .description =
          "Shows the counters of a running machine: its memory, its devices, its vCPUs' exits and translations, and "
          "the "
          "process's own memory and processor time.",
      .arguments = {machineArgument(false)},
      .options =
          {{.name = "json", .help = "As JSON; with --watch one object a line."},
           {.name = "watch", .letter = 'w', .help = "Again and again, with what each counter gained a second."},
           {.name = "interval", .value = "SECONDS", .help = "The time between two looks of --watch; 1 if not given."},
           {.name = "dump",
            .value = "ADDRESS",
            .help = "Instead of the counters, every translation that has the guest instruction at this linear "
                    "address: its bytes, and below them the host's, with what is true of the guest's state there. "
                    "Disassembled if there is an objdump."}},
      .examples = {{"lodge stats web", "A table."},
                   {"lodge stats --watch web", "The same, kept up to date."},
                   {"lodge stats --dump 0xffffffff81000040 web", "What the translator made of an instruction."}},
      .run = run,
  };
}

}  // namespace lodge::cli
