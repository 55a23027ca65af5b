// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/text.h"
#include "network/helper.h"

namespace lodge::network {

namespace {

constexpr std::size_t kMostOutput = 32 << 20;  // a full set of addresses, in JSON

std::string pathOf(const std::string& program) {
  for (const char* folder : {"/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"}) {
    std::string path = folder + program;
    if (::access(path.c_str(), X_OK) == 0) return path;
  }
  return {};
}

}  // namespace

Result<std::string> runTool(const std::vector<std::string>& command, const std::string& input) {
  std::string path = pathOf(command[0]);
  if (path.empty()) {
    return Error(ErrorKind::notFound, "there is no program " + inQuotes(command[0]))
        .withHint(command[0] == "nft" ? "install the package nftables" : "install the package iproute2");
  }
  // Both fit memory files, so that nobody waits for the other.
  UniqueFd in(::memfd_create("input", MFD_CLOEXEC)), out(::memfd_create("output", MFD_CLOEXEC));
  if (!in || !out || ::write(in.get(), input.data(), input.size()) != static_cast<ssize_t>(input.size()) ||
      ::lseek(in.get(), 0, SEEK_SET) != 0)
    return Error::fromErrno(errno, "run " + command[0]);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  char environment[] = "LC_ALL=C";
  char* environments[] = {environment, nullptr};
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in.get(), 0);
  ::posix_spawn_file_actions_adddup2(&actions, out.get(), 1);
  ::posix_spawn_file_actions_adddup2(&actions, out.get(), 2);
  pid_t pid = -1;
  int error = ::posix_spawn(&pid, path.c_str(), &actions, nullptr, arguments.data(), environments);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return Error::fromErrno(error, "run " + path);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  std::string said;
  std::array<char, 4096> buffer;
  ::lseek(out.get(), 0, SEEK_SET);
  for (ssize_t n; (n = ::read(out.get(), buffer.data(), buffer.size())) > 0 && said.size() < kMostOutput;)
    said.append(buffer.data(), static_cast<std::size_t>(n));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return said;
  std::string line = said.substr(0, said.find('\n'));
  bool denied = said.find("not permitted") != std::string::npos;
  return Error(denied ? ErrorKind::permissionDenied : ErrorKind::io, join(command, " ") + ": " + line);
}

}  // namespace lodge::network
