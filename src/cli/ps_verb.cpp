// SPDX-License-Identifier: Apache-2.0
#include <time.h>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/verbs.h"
#include "control/control_client.h"

namespace lodge::cli {

namespace {

using control::Json;

/// A machine that does not answer within this many milliseconds is listed as it is.
constexpr int kPatience = 1000;

/// What is known of a machine: its own answer, or what its folder tells.
Json describe(const control::RuntimeFolder& folder, const control::FoundMachine& machine) {
  Json entry = {{"name", machine.name}, {"config", machine.config}};
  if (machine.end) {
    entry["state"] = "ended";
    entry["end"] = machine.end->toJson();
    return entry;
  }
  entry["state"] = "unresponsive";
  entry["pid"] = machine.process.pid;
  for (const char* key : {"engine", "cpus", "memory"}) {
    if (machine.config.contains(key)) entry[key] = machine.config[key];
  }
  auto client = control::ControlClient::connect(folder, machine.name, false);
  if (!client) {
    entry["state"] = "starting";
    return entry;
  }
  if (auto state = client->call({.kind = control::RequestKind::state}, kPatience)) entry.update(*state);
  return entry;
}

std::vector<std::string> row(const Json& entry) {
  auto text = [&](const char* key) { return control::stringField(entry, key).value_or("-"); };
  auto number = [&](const char* key) { return control::numberField(entry, key); };
  auto plain = [&](const char* key) { return number(key) ? std::to_string(*number(key)) : "-"; };
  if (entry.contains("end")) {
    auto end = control::EndRecord::fromJson(entry["end"]);
    std::string ago =
        end ? formatDuration(static_cast<std::uint64_t>(std::max<std::int64_t>(0, ::time(nullptr) - end->unixTime)))
            : "?";
    return {text("name"), end ? std::string(control::toString(end->end)) : "ended", "-", "-", "-", ago + " ago", "-"};
  }
  return {text("name"),
          text("state"),
          text("engine"),
          plain("cpus"),
          number("memory") ? formatSize(*number("memory")) : "-",
          number("uptimeSeconds") ? formatDuration(*number("uptimeSeconds")) : "-",
          plain("pid")};
}

std::string output(const Invocation& invocation, const std::vector<Json>& entries) {
  if (invocation.has("json")) return Json(entries).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  std::vector<std::vector<std::string>> rows = {{"NAME", "STATE", "ENGINE", "CPUS", "MEMORY", "UPTIME", "PID"}};
  for (const Json& entry : entries) rows.push_back(row(entry));
  return columns(rows, {3});
}

int run(const Invocation& invocation, const Program&) {
  auto folder = control::RuntimeFolder::open();
  if (!folder) return fail(folder.error());
  auto machines = folder->machines();
  if (!machines) return fail(machines.error());
  std::vector<Json> entries;
  std::string names;
  for (const control::FoundMachine& machine : *machines) {
    if (!machine.running && !invocation.has("all")) continue;
    names += machine.name + "\n";
    if (!invocation.has("quiet")) entries.push_back(describe(*folder, machine));
  }
  return print(invocation.has("quiet") ? names : output(invocation, entries)) ? exit_status::kSuccess
                                                                              : exit_status::kLodgeError;
}

}  // namespace

VerbSpec psVerb() {
  return {
      .name = "ps",
      .summary = "list machines",
      .description = "Lists the user's running machines. What killed machines left behind is cleaned up on the way.",
      .options = {{.name = "all",
                   .letter = 'a',
                   .help =
                       "Also those that have ended, for a day or until 'lodge rm'. Only detached ones leave a trace."},
                  {.name = "quiet", .letter = 'q', .help = "Names only, one a line."},
                  {.name = "json", .help = "As a JSON array with all that is known."}},
      .examples = {{"lodge ps", "A table: name, state, engine, CPUs, memory, uptime, process."},
                   {"lodge ps --json | jq -r '.[].config.kernel'", "The kernels that are running."}},
      .run = run,
  };
}

}  // namespace lodge::cli
