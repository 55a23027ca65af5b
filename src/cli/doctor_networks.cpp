// SPDX-License-Identifier: Apache-2.0
// Which kinds of networks this user can have.
#include <sched.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <climits>
#include <filesystem>

#include "base/text.h"
#include "cli/doctor.h"
#include "cli/network_common.h"
#include "network/helper_client.h"

namespace lodge::cli {

namespace {

using Grade = Finding::Grade;

bool haveProgram(const std::string& name) {
  for (const char* folder : {"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"}) {
    if (::access((folder + name).c_str(), X_OK) == 0) return true;
  }
  return false;
}

/// Why the helper cannot change the host's network; empty if it can.
std::string helperLacks() {
  std::string path = network::helperPath();
  if (path.empty()) return "there is no lodge-network-helper that this user may run";
  if (!haveProgram("ip")) return "there is no program ip: install the package iproute2";
  if (::geteuid() == 0) return {};
  if (::getxattr(path.c_str(), "security.capability", nullptr, 0) > 0) return {};
  return "CAP_NET_ADMIN is needed: run as root, or let an administrator do 'setcap cap_net_admin,cap_net_raw+ep " +
         path + "'";
}

/// Tried in a child, which is gone at once.
bool mayMakeNamespaces() {
  pid_t pid = ::fork();
  if (pid == 0) {
    bool root = ::geteuid() == 0 && ::unshare(CLONE_NEWNET) == 0;
    ::_exit(root || ::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 ? 0 : 1);
  }
  int status = 0;
  return pid > 0 && ::waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

std::string lacksForKind(network::NetworkKind kind) {
  if (!network::needsPrivilege(kind)) return {};
  std::string lacks = helperLacks();
  bool rules = kind == network::NetworkKind::nat || kind == network::NetworkKind::internal;
  return lacks.empty() && rules && !haveProgram("nft") ? "there is no program nft: install the package nftables"
                                                       : lacks;
}

Finding examineNetworks() {
  Finding finding{.key = "networks", .title = "Networks", .text = "user, switch and isolated for everybody"};
  std::string lacks = helperLacks();
  bool nft = haveProgram("nft"), proxy = mayMakeNamespaces() && ::access("/dev/net/tun", R_OK | W_OK) == 0;
  std::vector<std::string> kinds = {"user", "switch", "isolated"};
  if (lacks.empty()) {
    kinds.insert(kinds.end(), {"bridge", "wifi"});
    if (nft) kinds.insert(kinds.end(), {"nat", "internal"});
    finding.text += nft ? "; nat, internal, bridge and wifi too"
                        : "; bridge and wifi too; nat and internal: install the package nftables";
  } else {
    finding.text += "; not nat, internal, bridge and wifi: " + lacks;
  }
  finding.text += proxy ? "; 'lodge proxy' works"
                        : "; not 'lodge proxy': this user may not make network namespaces with tap devices";
  if (!lacks.empty() || !nft || !proxy) finding.grade = Grade::note;
  finding.facts = {{"kinds", kinds}, {"proxy", proxy}};
  return finding;
}

}  // namespace lodge::cli
