// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/net_option.h"
#include "cli/network_common.h"
#include "network/client.h"
#include "network/store.h"

namespace lodge::cli {

namespace {

using network::NetworkDefinition;

Status takeKind(const Invocation& invocation, NetworkDefinition& d) {
  std::string kind = invocation.value("kind", "user");
  auto known = network::kindFrom(kind);
  if (!known) return Error(ErrorKind::invalidArgument, "--kind " + inQuotes(kind) + ": there is no such kind");
  d.kind = *known;
  d.uplink = invocation.value("uplink");
  d.host = !invocation.has("no-host");
  return {};
}

int create(const Invocation& invocation, const Program&) {
  NetworkDefinition d;
  d.name = invocation.arguments()[0];
  if (!network::isNetworkName(d.name)) {
    return fail(Error(ErrorKind::invalidArgument, inQuotes(d.name) + " is no name for a network")
                    .withHint("use 1 to 32 letters, digits, - and _; user, tap and none are taken"));
  }
  auto store = network::Store::open();
  if (!store) return fail(store.error());
  if (store->has(d.name)) {
    return fail(Error(ErrorKind::alreadyExists, "network " + inQuotes(d.name) + " is there already")
                    .withHint("change it with 'lodge network edit', or remove it with 'lodge network rm'"));
  }
  if (Status taken = takeKind(invocation, d); !taken) return fail(taken.error());
  if (Status applied = applyNetworkOptions(invocation, d); !applied) return fail(applied.error());
  if (Status complete = completeDefinition(d, takenBlocks(*store, d.name)); !complete) return fail(complete.error());
  if (Status saved = store->save(d); !saved) return fail(saved.error());
  // Its file may be for another user's or a later time; who tries at once shall not have to find out.
  if (std::string lacks = lacksForKind(d.kind); !lacks.empty())
    log(LogLevel::warning, "network {} of kind {} cannot come up yet: {}", inQuotes(d.name), toString(d.kind), lacks);
  return print(d.name + "\n") ? exit_status::kSuccess : exit_status::kLodgeError;
}

/// --port NAME SETTING...: of a machine that is joined.
int editPort(const Invocation& invocation, const std::string& name) {
  std::vector<std::string> fields;
  for (const std::string& text : invocation.all("set")) {
    for (std::string& field : splitFields(text, ',')) fields.push_back(std::move(field));
  }
  if (fields.empty())
    return fail(
        Error(ErrorKind::invalidArgument, "--port without --set").withHint("write --port NAME --set link=down"));
  auto settings = parsePortSettings(fields);
  if (!settings) return fail(settings.error());
  auto reply = network::ask(name, {{"do", "port"}, {"name", invocation.value("port")}, {"settings", *settings}});
  return reply ? exit_status::kSuccess : fail(reply.error());
}

int edit(const Invocation& invocation, const Program&) {
  const std::string& name = invocation.arguments()[0];
  auto store = network::Store::open();
  if (!store) return fail(store.error());
  auto definition = store->load(name);
  if (!definition) return fail(definition.error());
  if (invocation.has("port")) return editPort(invocation, name);
  NetworkDefinition d = *definition;
  if (Status applied = applyNetworkOptions(invocation, d); !applied) return fail(applied.error());
  if (Status complete = completeDefinition(d, takenBlocks(*store, d.name)); !complete) return fail(complete.error());
  if (network::isUp(name)) {
    bool deep = d.subnet != definition->subnet || d.subnet6 != definition->subnet6 || d.ipv6 != definition->ipv6 ||
                d.dhcp != definition->dhcp || d.mtu != definition->mtu ||
                d.tunnels.size() != definition->tunnels.size();
    if (deep) {
      return fail(Error(ErrorKind::busy,
                        "network " + inQuotes(name) + " is up: its addresses, MTU and tunnels stay as they are")
                      .withHint("take it down first: stop its machines, then 'lodge network down " + name + "'"));
    }
    auto reply = network::ask(name, {{"do", "definition"}, {"definition", toJson(d)}});
    if (!reply) return fail(reply.error());
  }
  Status saved = store->save(d);
  return saved ? exit_status::kSuccess : fail(saved.error());
}

}  // namespace

VerbSpec networkCreate() {
  std::vector<OptionSpec> options = {
      {.name = "kind",
       .value = "KIND",
       .help = "What it is; user if not given.",
       .choices = {"user", "nat", "internal", "isolated", "bridge", "wifi", "switch"}},
      {.name = "uplink",
       .value = "CARD",
       .help = "Of bridge and wifi: the host's card, or a bridge that exists. Of switch: user (NAT) or tap:NAME."},
      {.name = "no-host", .help = "Of bridge: the host does not share the card."}};
  for (OptionSpec& option : networkOptions()) options.push_back(std::move(option));
  return {
      .name = "network create",
      .summary = "make a network",
      .description =
          "Describes a network; it comes up with its first machine ('lodge run --net NAME') and goes down with "
          "its last, and leaves nothing behind.",
      .arguments = {networkArgument()},
      .options = std::move(options),
      .sections = {{"Kinds",
                    "",
                    {{"user", "NAT without privileges, shared by all its machines, which see each other."},
                     {"switch", "A switch of the user's own, without privileges; alone, or with an uplink."},
                     {"isolated", "Machines only; without privileges."},
                     {"nat", "A bridge of the host's with addresses of its own and masquerading. Needs CAP_NET_ADMIN."},
                     {"internal", "The host and the machines. Needs CAP_NET_ADMIN."},
                     {"bridge", "Machines are in the network of the host's card. Needs CAP_NET_ADMIN."},
                     {"wifi", "The same over a card that takes one hardware address only. Needs CAP_NET_ADMIN."}}}},
      .examples = {{"lodge network create lab",
                    "Then: lodge run --net lab ..., twice; each finds the other by its name."},
                   {"lodge network create closed --egress-default deny --egress 'allow *.debian.org port 80-443'",
                    "Machines reach Debian's servers, and nothing else."}},
      .run = create,
  };
}

VerbSpec networkEdit() {
  std::vector<OptionSpec> options = {
      {.name = "port", .value = "PORT", .help = "Change the port of a machine that is joined, with --set."},
      {.name = "set",
       .value = "SETTING,...",
       .help =
           "Of --port: link=up|down, rate=, delay=, loss=, vlan=, trunk=, mirror=, ip= (any: none of its own), spoof=.",
       .repeats = true},
      {.name = "no-forwards", .help = "Drop those that there are first."},
      {.name = "no-leases", .help = "The same for leases."},
      {.name = "no-tunnels", .help = "The same for tunnels."},
      {.name = "no-egress-rules", .help = "The same for egress rules."}};
  for (OptionSpec& option : networkOptions()) options.push_back(std::move(option));
  return {
      .name = "network edit",
      .summary = "change a network",
      .description =
          "Changes a network's description and, as far as that goes, the running network: rules, forwards, "
          "leases, rates, spoofing and keeping at once; the rest wants it down.",
      .arguments = {networkArgument()},
      .options = std::move(options),
      .examples = {{"lodge network edit lab --port web --set link=down", "Pulls the cable of the machine web."}},
      .run = edit,
  };
}

}  // namespace lodge::cli
