// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/network_common.h"
#include "network/client.h"
#include "network/process.h"
#include "network/store.h"

namespace lodge::cli {

namespace {

using network::Json;

int up(const Invocation& invocation, const Program&) {
  const std::string& name = invocation.arguments()[0];
  Status started = network::startServing(name, !invocation.has("while-used"));
  return started ? exit_status::kSuccess : fail(started.error());
}

/// Machines that are joined, by name; empty too if the network is down.
std::string machinesOf(const std::string& name) {
  auto reply = network::ask(name, {{"do", "describe"}});
  std::vector<std::string> names;
  if (reply) {
    for (const Json& p : (*reply)["network"]["ports"]) {
      if (p.value("role", "") == "machine") names.push_back(p.value("name", ""));
    }
  }
  return join(names, ", ");
}

Status takeDown(const std::string& name, bool force) {
  if (!network::isUp(name)) return {};
  std::string machines = force ? "" : machinesOf(name);
  if (!machines.empty()) {
    return Error(ErrorKind::busy, "network " + inQuotes(name) + " is used by " + machines)
        .withHint("stop the machines first, or use --force: those that still run bring it up again");
  }
  auto reply = network::ask(name, {{"do", "stop"}});
  if (!reply) return std::move(reply).error();
  constexpr timespec kPause = {0, 20'000'000};
  for (int n = 0; n < 500 && network::isUp(name); ++n) ::nanosleep(&kPause, nullptr);
  return {};
}

int down(const Invocation& invocation, const Program&) {
  auto store = network::Store::open();
  if (!store) return fail(store.error());
  auto definition = store->load(invocation.arguments()[0]);
  if (!definition) return fail(definition.error());
  Status done = takeDown(definition->name, invocation.has("force"));
  return done ? exit_status::kSuccess : fail(done.error());
}

int remove(const Invocation& invocation, const Program&) {
  auto store = network::Store::open();
  if (!store) return fail(store.error());
  const std::string& name = invocation.arguments()[0];
  if (!store->has(name)) return fail(store->load(name).error());
  if (Status done = takeDown(name, invocation.has("force")); !done) return fail(done.error());
  if (Status removed = store->remove(name); !removed) return fail(removed.error());
  if (auto folder = network::runtimeFolderOf(name)) {
    std::error_code ignored;
    std::filesystem::remove_all(*folder, ignored);
  }
  return exit_status::kSuccess;
}

}  // namespace

VerbSpec networkUp() {
  return {.name = "network up",
          .summary = "bring a network up",
          .description =
              "Brings a network up without a machine, and keeps it up until 'lodge network down'. Machines "
              "bring up what they need by themselves.",
          .arguments = {networkArgument()},
          .options = {{.name = "while-used", .help = "It goes down by itself, as if a machine had brought it up."}},
          .run = up};
}

VerbSpec networkDown() {
  return {.name = "network down",
          .summary = "take a network down",
          .description = "Takes a network down that was kept up.",
          .arguments = {networkArgument()},
          .options = {{.name = "force", .help = "Even if machines are joined; they bring it up anew."}},
          .run = down};
}

VerbSpec networkRm() {
  return {.name = "network rm",
          .summary = "remove a network",
          .description = "Takes a network down and removes its description.",
          .arguments = {networkArgument()},
          .options = {{.name = "force", .help = "Even if machines are joined."}},
          .run = remove};
}

}  // namespace lodge::cli
