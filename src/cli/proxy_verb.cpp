// SPDX-License-Identifier: Apache-2.0
#include <sys/epoll.h>

#include <optional>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/net_option.h"
#include "cli/network_common.h"
#include "cli/signals.h"
#include "cli/verbs.h"
#include "network/client.h"
#include "network/dhcp_client.h"
#include "network/inside.h"
#include "network/proxy.h"
#include "network/proxy_messages.h"
#include "network/resolver.h"
#include "network/store.h"

namespace lodge::cli {

namespace {

using network::Json;
using network::NetworkDefinition;
using network::Proxy;

constexpr Nanoseconds kAddressPatience = 20 * kNanosecondsPerSecond;

struct Listener {
  Proxy::Kind kind;
  network::ProxyTarget where;
};

/// What the command line says.
struct Options {
  std::string network;
  Json port = Json::object();
  std::vector<Listener> listeners;
  std::optional<IpAddress> address, router;
  IpBlock block;
  std::vector<IpAddress> nameServers;
};

/// The network of that name, or the one that a running machine of that name is on.
Result<std::string> networkOf(const network::Store& store, const std::string& name) {
  if (store.has(name)) return name;
  for (const NetworkDefinition& d : store.all()) {
    auto reply = network::ask(d.name, {{"do", "describe"}});
    if (!reply) continue;
    for (const Json& port : (*reply)["network"]["ports"]) {
      if (port.value("role", "") == "machine" && port.value("name", "") == name) return d.name;
    }
  }
  return Error(ErrorKind::notFound, "there is no network " + inQuotes(name) + ", and no machine of that name on one")
      .withHint("'lodge network list' lists them; a machine is on a network with --net NETWORK");
}

Status takeListeners(const Invocation& invocation, Options& options) {
  for (auto [option, kind] : {std::pair("socks", Proxy::Kind::socks), std::pair("http", Proxy::Kind::http)}) {
    for (const std::string& text : invocation.all(option)) {
      // Port 0 is any that is free.
      bool any = text.ends_with(":0");
      auto where = network::proxyTargetFrom(any ? text.substr(0, text.size() - 1) + "1" : text, 0);
      if (!where || !where->address) {
        return Error(ErrorKind::invalidArgument, fmt::format("--{} {}: no address and port", option, inQuotes(text)))
            .withHint(fmt::format("write --{} 127.0.0.1:{}", option, kind == Proxy::Kind::socks ? 1080 : 8080));
      }
      if (any) where->port = 0;
      options.listeners.push_back({kind, std::move(*where)});
    }
  }
  if (options.listeners.empty()) {
    return Error(ErrorKind::invalidArgument, "where shall the proxy listen?")
        .withHint("write --socks 127.0.0.1:1080, --http 127.0.0.1:8080, or both");
  }
  return {};
}

/// What a network without DHCP needs to be told.
Status takeAddress(const Invocation& invocation, const NetworkDefinition& d, Options& options) {
  if (invocation.has("address")) {
    std::string text = invocation.value("address");
    std::size_t slash = text.find('/');
    options.address = ipFrom(text.substr(0, slash));
    auto prefix = slash == std::string::npos ? std::nullopt : parseNumber(text.substr(slash + 1), 32);
    if (!options.address || options.address->v6 || !prefix)
      return Error(ErrorKind::invalidArgument, "--address " + inQuotes(text) + " is no IPv4 address with a length")
          .withHint("write --address 192.0.2.9/24");
    options.block.prefix = static_cast<unsigned>(*prefix);
    options.port["addresses"] = {toText(*options.address)};
  }
  for (auto [option, list] : {std::pair("router", true), std::pair("dns", false)}) {
    if (!invocation.has(option)) continue;
    auto address = ipFrom(invocation.value(option));
    if (!address)
      return Error(ErrorKind::invalidArgument,
                   fmt::format("--{} {} is no address", option, inQuotes(invocation.value(option))));
    if (list)
      options.router = address;
    else
      options.nameServers.push_back(*address);
  }
  bool served = d.kind == network::NetworkKind::bridge || d.kind == network::NetworkKind::wifi ||
                d.uplink.starts_with("tap:") || d.dhcp;
  if (served || options.address) return {};
  return Error(ErrorKind::invalidArgument, "network " + inQuotes(d.name) + " gives no addresses")
      .withHint("say which the proxy takes: --address ADDRESS/LENGTH");
}

/// The card of the proxy, its address and its listeners, for as long as the command runs.
class Running {
 public:
  Running(EventLoop& loop, network::Inside& inside, Options options)
      : loop_(loop), inside_(inside), options_(std::move(options)), resolver_(loop, inside) {
    again_ = loop_.makeTimer([this] { loop_.post([this] { plugIn(); }); });
    patience_ = loop_.makeTimer([this] {
      fail_ = Error(ErrorKind::io, "network " + inQuotes(options_.network) + " gave no address in time")
                  .withHint("if it has no DHCP server, choose one with --address ADDRESS/LENGTH");
      loop_.stop();
    });
  }
  ~Running() {
    if (cable_) loop_.unwatch(cable_.get());
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  Status start() {
    if (Status s = join(); !s) return s;
    resolver_.setServers(options_.nameServers);
    if (options_.address) {
      if (Status s = inside_.setAddress(options_.block, *options_.address, options_.router); !s) return s;
      return listen();
    }
    auto packets = inside_.socket(network::Inside::Kind::packet, false);
    if (!packets) return std::move(packets).error();
    dhcp_.emplace(loop_, std::move(*packets), inside_.mac(), options_.port.value("name", "proxy"),
                  [this](const network::DhcpOffer& lease) { granted(lease); });
    patience_->arm(loop_.clock().now() + kAddressPatience);
    return dhcp_->start();
  }
  const std::optional<Error>& failure() const { return fail_; }

 private:
  Status join() {
    if (Status up = network::bringUp(options_.network); !up) return up;
    auto cable = network::join(options_.network, options_.port, inside_.tap());
    if (!cable) return std::move(cable).error();
    cable_ = std::move(cable->fd);
    if (Status s = inside_.setMtu(cable->mtu); !s) return s;
    return loop_.watch(cable_.get(), EPOLLIN | EPOLLHUP, [this](std::uint32_t) {
      loop_.unwatch(cable_.get());
      again_->arm(loop_.clock().now() + kNanosecondsPerSecond);
    });
  }
  /// The network's process went; the first who misses it starts it again.
  void plugIn() {
    if (!join()) return again_->arm(loop_.clock().now() + kNanosecondsPerSecond);
    if (dhcp_) [[maybe_unused]]
      Status asked = dhcp_->start();
  }
  void granted(const network::DhcpOffer& lease) {
    patience_->cancel();
    std::uint32_t mask = lease.mask.v4();
    IpBlock block{lease.address, static_cast<unsigned>(__builtin_popcount(mask))};
    Status done = inside_.setAddress(block, lease.address, options_.router ? options_.router : lease.router);
    if (options_.nameServers.empty()) resolver_.setServers(lease.nameServers);
    if (done && !proxy_) done = listen();
    if (done) return;
    fail_ = std::move(done).error();
    loop_.stop();
  }
  Status listen() {
    proxy_.emplace(Proxy::Context{loop_, inside_, resolver_});
    std::string text;
    for (const Listener& l : options_.listeners) {
      auto port = proxy_->listen(l.kind, *l.where.address, l.where.port);
      if (!port) return std::move(port).error();
      std::string address = toText(*l.where.address);
      text += fmt::format("{} {}:{}\n", l.kind == Proxy::Kind::socks ? "socks" : "http",
                          l.where.address->v6 ? "[" + address + "]" : address, *port);
    }
    return print(text) ? Status() : Status(Error(ErrorKind::io, "write to standard output"));
  }

  EventLoop& loop_;
  network::Inside& inside_;
  Options options_;
  network::Resolver resolver_;
  UniqueFd cable_;
  std::optional<network::DhcpClient> dhcp_;
  std::optional<Proxy> proxy_;
  std::unique_ptr<Timer> again_, patience_;
  std::optional<Error> fail_;
};

int run(const Invocation& invocation, const Program&) {
  Options options;
  auto store = network::Store::open();
  if (!store) return fail(store.error());
  auto name = networkOf(*store, invocation.arguments()[0]);
  if (!name) return fail(name.error());
  options.network = *name;
  auto definition = store->load(*name);
  if (!definition) return fail(definition.error());
  std::vector<std::string> fields;
  for (const std::string& text : invocation.all("set")) {
    for (std::string& field : splitFields(text, ',')) fields.push_back(std::move(field));
  }
  auto settings = parsePortSettings(fields);
  if (!settings) return fail(settings.error());
  options.port = std::move(*settings);
  options.port["name"] = invocation.value("name", "proxy");
  if (Status s = takeListeners(invocation, options); !s) return fail(s.error());
  if (Status s = takeAddress(invocation, *definition, options); !s) return fail(s.error());
  auto inside = network::Inside::create();
  if (!inside) return fail(inside.error());
  options.port["mac"] = toText((*inside)->mac());
  blockSignals();
  auto loop = EventLoop::create();
  if (!loop) return fail(loop.error());
  auto signals = SignalWatch::create(**loop, [&](int) { (*loop)->stop(); });
  if (!signals) return fail(signals.error());
  Running running(**loop, **inside, std::move(options));
  if (Status s = running.start(); !s) return fail(s.error());
  Status served = (*loop)->run();
  if (running.failure()) return fail(*running.failure());
  return served ? exit_status::kSuccess : fail(served.error());
}

}  // namespace

VerbSpec proxyVerb() {
  return {
      .name = "proxy",
      .summary = "reach what a network's machines reach",
      .description =
          "A SOCKS5 and HTTP proxy on the host whose connections start inside a network, as a machine's do: with an "
          "address of their own there, the network's names and its egress rules. It runs until interrupted, and writes "
          "where it listens once it does. Programs on the host reach closed networks so; whoever reaches the proxy's "
          "address may use it. Needs the right to make network namespaces, as most users have.",
      .arguments = {{.name = "NETWORK"}},
      .options = {{.name = "socks",
                   .value = "ADDRESS:PORT",
                   .help = "Listen for SOCKS5 (connections and datagrams). Repeatable; port 0: any.",
                   .repeats = true},
                  {.name = "http",
                   .value = "ADDRESS:PORT",
                   .help = "Listen for HTTP (CONNECT and plain requests). Repeatable; port 0: any.",
                   .repeats = true},
                  {.name = "name", .value = "NAME", .help = "What its port is called; proxy if not given."},
                  {.name = "set",
                   .value = "SETTING,...",
                   .help = "Its port's settings, as after 'lodge run --net NETWORK,'.",
                   .repeats = true},
                  {.name = "address",
                   .value = "ADDRESS/LENGTH",
                   .help = "Its address, where no DHCP server gives one."},
                  {.name = "router", .value = "ADDRESS", .help = "The way out, instead of what DHCP says."},
                  {.name = "dns", .value = "ADDRESS", .help = "Who knows names, instead of whom DHCP names."}},
      .examples = {{"lodge proxy lab --socks 127.0.0.1:1080",
                    "Then: curl --proxy socks5h://127.0.0.1:1080 http://web/ finds the machine web of lab."},
                   {"lodge proxy web --http 127.0.0.1:8080", "The network that the machine web is on."}},
      .run = run,
  };
}

}  // namespace lodge::cli
