// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <list>
#include <mutex>
#include <thread>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/layout.h"
#include "image/nbd_server.h"

namespace lodge::cli {

namespace {

/// Clients that are being served, each by a thread of its own.
class Clients {
 public:
  Clients(image::Image& image, const image::ServeOptions& options) : image_(image), options_(options) {}
  ~Clients() {
    for (Client& client : clients_) ::shutdown(client.socket.get(), SHUT_RDWR);
    for (Client& client : clients_) client.thread.join();
  }
  void add(UniqueFd socket) {
    Client& client = clients_.emplace_back();
    client.socket = std::move(socket);
    client.thread = std::thread([this, &client] {
      image::serveNbdClient(client.socket.get(), image_, options_);
      client.done = true;
    });
  }
  /// Forgets those that have left.
  bool empty() {
    clients_.remove_if([](Client& client) {
      if (!client.done) return false;
      client.thread.join();
      return true;
    });
    return clients_.empty();
  }
  std::size_t count() const { return clients_.size(); }

 private:
  struct Client {
    UniqueFd socket;
    std::thread thread;
    std::atomic<bool> done{false};
  };
  image::Image& image_;
  const image::ServeOptions& options_;
  std::list<Client> clients_;
};

/// Takes clients until a signal comes, or until the last one has left where only one round was asked for.
Status serve(int listener, image::Image& image, const image::ServeOptions& options, bool once) {
  constexpr std::size_t kMaxClients = 64;
  Clients clients(image, options);
  bool had = false;
  while (!ProgressBar::interrupted()) {
    pollfd wait{listener, POLLIN, 0};
    int ready = ::poll(&wait, 1, 200);
    if (ready < 0 && errno != EINTR) return Error::fromErrno(errno, "wait for clients");
    bool none = clients.empty();
    if (once && had && none) break;
    if (ready <= 0 || clients.count() >= kMaxClients) continue;
    UniqueFd socket(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket) continue;
    had = true;
    clients.add(std::move(socket));
  }
  return {};
}

Status run(const Invocation& invocation, const Program& program) {
  image::ServeOptions options;
  options.readOnly = invocation.has("read-only");
  options.exportName = invocation.value("name");
  if (options.exportName.size() > 4096) return Error(ErrorKind::invalidArgument, "the export's name is too long");
  auto how = openOptions(invocation, program, !options.readOnly);
  if (!how) return std::move(how).error();
  how->snapshot = invocation.value("snapshot");
  auto image = image::openImage(invocation.arguments()[0], invocation.value("format"), *how);
  if (!image) return std::move(image).error();
  std::string path = invocation.value("socket"), portText = invocation.value("port", "10809");
  auto port = parseNumber(portText, 65535);
  if (!port) return Error(ErrorKind::invalidArgument, "port " + inQuotes(portText));
  auto listener = path.empty() ? image::listenLoopback(static_cast<std::uint16_t>(*port)) : image::listenUnix(path);
  if (!listener) return std::move(listener).error();
  ProgressBar signals(invocation, program);
  std::string address = path.empty() ? fmt::format("nbd://127.0.0.1:{}/{}", *port, options.exportName)
                                     : fmt::format("nbd+unix:///{}?socket={}", options.exportName, path);
  if (wantsJson(invocation))
    printJson({{"address", address}, {"virtual-size", (*image)->size()}, {"read-only", options.readOnly}});
  else if (!invocation.has("quiet"))
    print(address + "\n");
  Status done = serve(listener->get(), **image, options, invocation.has("once"));
  if (!path.empty()) ::unlink(path.c_str());
  return done;
}

}  // namespace

VerbSpec imageServe() {
  return {
      .name = "image serve",
      .summary = "export a disk to NBD clients",
      .description =
          "Serves a disk of any format by the NBD protocol, on a Unix socket or on the loopback address, until Ctrl-C. "
          "Prints the address that clients use.",
      .arguments = {{.name = "FILE", .complete = Complete::file}},
      .options = {image_option::format(),
                  {.name = "read-only", .letter = 'r', .help = "Refuse writes."},
                  {.name = "socket",
                   .letter = 'k',
                   .value = "PATH",
                   .help = "A Unix socket to make, for this user alone.",
                   .complete = Complete::file},
                  {.name = "port", .value = "N", .help = "The TCP port on the loopback address; 10809 if not given."},
                  {.name = "name", .letter = 'x', .value = "NAME", .help = "The export's name; empty if not given."},
                  {.name = "snapshot",
                   .letter = 'l',
                   .value = "SNAPSHOT",
                   .help = "An internal snapshot's content, read-only."},
                  {.name = "once", .help = "End when the last client has left."},
                  image_option::cache("writeback"),
                  image_option::quiet(),
                  image_option::share(),
                  image_option::allowPath(),
                  image_option::output(),
                  image_option::json()},
      .examples = {{"lodge image serve -r -k /tmp/disk.sock disk.vmdk", "For this user's programs."},
                   {"lodge image convert nbd+unix:///?socket=/tmp/disk.sock copy.qcow2", "One of them."}},
      .run =
          [](const Invocation& invocation, const Program& program) {
            Status done = run(invocation, program);
            return done ? exit_status::kSuccess : imageFail(program, done.error());
          },
  };
}

}  // namespace lodge::cli
