// SPDX-License-Identifier: Apache-2.0
// lodge-network-helper: standard input is the socket that its requests come from.
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>

#include "network/helper.h"

namespace {

using namespace lodge;
using namespace lodge::network;

/// Keeps what network settings need and drops all else; what `ip` and `nft` inherit is the same.
void keepOnlyNetworkRights() {
  constexpr std::uint32_t kWanted = 1u << CAP_NET_ADMIN | 1u << CAP_NET_RAW;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  ::syscall(SYS_capget, &header, data);
  std::uint32_t have = data[0].permitted & kWanted;
  data[0] = {have, have, have};
  data[1] = {};
  ::syscall(SYS_capset, &header, data);
  for (int capability : {CAP_NET_ADMIN, CAP_NET_RAW}) ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

}  // namespace

int main() {
  for (int s : {SIGTERM, SIGINT, SIGHUP, SIGPIPE}) ::signal(s, SIG_IGN);  // the socket says when to go
  int type = 0;
  socklen_t length = sizeof type;
  if (::getsockopt(STDIN_FILENO, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_SEQPACKET) {
    std::fputs("lodge-network-helper: started by 'lodge network', not by hand\n", stderr);
    return 2;
  }
  ::fcntl(kHelperLock, F_SETFD, FD_CLOEXEC);  // until this process ends, and no other's
  keepOnlyNetworkRights();
  Helper helper;
  for (;;) {
    auto request = receiveMessage(STDIN_FILENO);
    if (!request && request.error().kind() != ErrorKind::corrupt) return 0;
    auto reply = request ? helper.answer(request->facts, std::move(request->fds)) : Result<Message>(request.error());
    std::vector<int> fds;
    nlohmann::json facts;
    if (reply) {
      facts = reply->facts;
      for (const UniqueFd& fd : reply->fds) fds.push_back(fd.get());
    } else {
      facts = {{"ok", false},
               {"kind", toString(reply.error().kind())},
               {"error", reply.error().message()},
               {"hint", reply.error().hint()}};
    }
    // Whose answer it is.
    if (request && request->facts.contains("serial")) facts["serial"] = request->facts["serial"];
    if (!sendMessage(STDIN_FILENO, facts, fds)) return 0;
  }
}
