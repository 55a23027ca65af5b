// SPDX-License-Identifier: Apache-2.0
#include "control/runtime_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "base/text.h"
#include "control/machine_name.h"

namespace lodge::control {

namespace {

constexpr std::int64_t kKeepEndedSeconds = 86400;

bool isFolderOfMine(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == ::geteuid();
}

/// Reads who holds the lock; {0, 0} if the file makes no sense.
ProcessId readLock(int folderFd) {
  Json json = parseJson(readSmallFile(folderFd, file::kLock));
  auto pid = numberField(json, "pid");
  auto start = numberField(json, "startTime");
  if (!pid || *pid > INT32_MAX || !start) return {};
  return {static_cast<pid_t>(*pid), *start};
}

/// Whether some process holds the machine's lock. To be called with the runtime lock, so that the short time for which
/// this itself holds it is never mistaken for a machine.
bool isLocked(int folderFd) {
  UniqueFd fd(::openat(folderFd, file::kLock, O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  return fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

UniqueFd openFolder(int runtimeFd, const std::string& name) {
  return UniqueFd(::openat(runtimeFd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
}

}  // namespace

Result<RuntimeLock> RuntimeLock::take(int runtimeFd) {
  UniqueFd fd(::openat(runtimeFd, ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return Error::fromErrno(errno, "open the runtime folder's lock");
  constexpr int kTries = 500;
  constexpr timespec kPause = {0, 10'000'000};
  for (int i = 0; i < kTries; ++i) {
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return RuntimeLock(std::move(fd));
    if (errno != EWOULDBLOCK && errno != EINTR) return Error::fromErrno(errno, "lock the runtime folder");
    ::nanosleep(&kPause, nullptr);
  }
  return Error(ErrorKind::busy, "another lodge command has held the runtime folder's lock for 5 s")
      .withHint("see which one with 'ps', and end it");
}

Result<RuntimeFolder> RuntimeFolder::open() {
  const char* variable = std::getenv("XDG_RUNTIME_DIR");
  std::string uid = std::to_string(::geteuid());
  if (variable && variable[0] == '/' && isFolderOfMine(variable)) return openAt(std::string(variable) + "/lodge");
  if (isFolderOfMine("/run/user/" + uid)) return openAt("/run/user/" + uid + "/lodge");
  return openAt("/tmp/lodge-" + uid);
}

Result<RuntimeFolder> RuntimeFolder::openAt(std::string path) {
  std::string what = "runtime folder " + inQuotes(path);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return Error::fromErrno(errno, what);
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return Error::fromErrno(errno, what);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return Error::fromErrno(errno, what);
  if (info.st_uid != ::geteuid() || (info.st_mode & 077) != 0) {
    return Error(ErrorKind::permissionDenied, what + " belongs to or is open to somebody else")
        .withHint("remove it, or set XDG_RUNTIME_DIR to a folder of yours");
  }
  return RuntimeFolder(std::move(path), std::move(fd));
}

std::vector<std::string> RuntimeFolder::namesLocked() const {
  std::vector<std::string> names;
  UniqueFd fd(::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  std::unique_ptr<DIR, int (*)(DIR*)> stream(fd ? ::fdopendir(fd.release()) : nullptr,
                                             [](DIR* d) { return ::closedir(d); });
  if (!stream) return names;
  while (const dirent* entry = ::readdir(stream.get())) {
    if (checkMachineName(entry->d_name)) names.emplace_back(entry->d_name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<FoundMachine> RuntimeFolder::examineLocked(const std::string& name) {
  UniqueFd folder = openFolder(fd_.get(), name);
  if (!folder) return std::nullopt;
  FoundMachine found;
  found.name = name;
  found.running = isLocked(folder.get());
  if (found.running) {
    found.process = readLock(folder.get());
  } else {
    found.end = EndRecord::fromJson(parseJson(readSmallFile(folder.get(), file::kEnd)));
    if (!found.end || ::time(nullptr) - found.end->unixTime > kKeepEndedSeconds) {
      [[maybe_unused]] Status removed = removeFolder(fd_.get(), name);
      return std::nullopt;
    }
  }
  found.config = parseJson(readSmallFile(folder.get(), file::kConfig));
  if (!found.config.is_object()) found.config = Json();
  return found;
}

std::string RuntimeFolder::freeNameLocked() const {
  for (unsigned i = 1;; ++i) {
    std::string name = fmt::format("vm{}", i);
    if (::faccessat(fd_.get(), name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0) return name;
  }
}

Result<MachineFolder> RuntimeFolder::claim(std::string name) {
  if (!name.empty()) {
    if (Status good = checkMachineName(name); !good) return std::move(good).error();
  }
  auto lock = RuntimeLock::take(fd_.get());
  if (!lock) return std::move(lock).error();
  if (name.empty()) {
    for (const std::string& other : namesLocked()) examineLocked(other);  // frees the names of those that died
    name = freeNameLocked();
  } else if (auto found = examineLocked(name)) {
    if (found->running) {
      return Error(ErrorKind::alreadyExists, fmt::format("the name {} is taken by a running machine (process {})",
                                                         inQuotes(name), found->process.pid))
          .withHint(fmt::format("choose another --name, or end that one with 'lodge stop {}'", name));
    }
    if (Status removed = removeFolder(fd_.get(), name); !removed) return std::move(removed).error();
  }
  return makeLocked(name);
}

Result<MachineFolder> RuntimeFolder::makeLocked(const std::string& name) {
  std::string what = "make machine folder " + inQuotes(path_ + "/" + name);
  if (::mkdirat(fd_.get(), name.c_str(), 0700) != 0) return Error::fromErrno(errno, what);
  UniqueFd folder = openFolder(fd_.get(), name);
  if (!folder) return Error::fromErrno(errno, what);
  UniqueFd lockFd(::openat(folder.get(), file::kLock, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!lockFd || ::flock(lockFd.get(), LOCK_EX | LOCK_NB) != 0) return Error::fromErrno(errno, what);
  ProcessId self = thisProcess();
  std::string line = toLine({{"pid", self.pid}, {"startTime", self.startTime}});
  if (::write(lockFd.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    return Error::fromErrno(errno, what);
  }
  UniqueFd runtimeFd(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!runtimeFd) return Error::fromErrno(errno, what);
  return MachineFolder(name, path_, std::move(runtimeFd), std::move(folder), std::move(lockFd));
}

Result<std::vector<FoundMachine>> RuntimeFolder::machines() {
  auto lock = RuntimeLock::take(fd_.get());
  if (!lock) return std::move(lock).error();
  std::vector<FoundMachine> all;
  for (const std::string& name : namesLocked()) {
    if (auto found = examineLocked(name)) all.push_back(std::move(*found));
  }
  return all;
}

Result<FoundMachine> RuntimeFolder::find(const std::string& name) {
  if (Status good = checkMachineName(name); !good) return std::move(good).error();
  auto all = machines();
  if (!all) return std::move(all).error();
  std::vector<std::string_view> names;
  for (FoundMachine& machine : *all) {
    if (machine.name == name) return std::move(machine);
    names.push_back(machine.name);
  }
  std::string_view near = closest(name, names);
  return Error(ErrorKind::notFound, "there is no machine " + inQuotes(name))
      .withHint(near.empty() ? "'lodge ps --all' lists them" : fmt::format("did you mean '{}'?", near));
}

Status RuntimeFolder::remove(const std::string& name) {
  auto lock = RuntimeLock::take(fd_.get());
  if (!lock) return std::move(lock).error();
  auto found = examineLocked(name);
  if (!found) return {};
  if (found->running) {
    return Error(ErrorKind::busy, "machine " + inQuotes(name) + " is running")
        .withHint(fmt::format("end it first with 'lodge stop {0}', or use 'lodge rm --force {0}'", name));
  }
  return removeFolder(fd_.get(), name);
}

Result<UniqueFd> RuntimeFolder::connect(const std::string& name, bool waits) const {
  std::string what = "machine " + inQuotes(name);
  // One that has just been started has a folder before it has a socket.
  constexpr unsigned kTries = 100, kMicroseconds = 20'000;
  for (unsigned n = 1;; ++n) {
    UniqueFd folder = openFolder(fd_.get(), name);
    if (!folder) return Error::fromErrno(errno, what);
    auto fd = connectIn(folder.get(), file::kControl);
    if (fd) return fd;
    if (fd.error().kind() != ErrorKind::notFound || !waits || n == kTries) return std::move(fd).error().context(what);
    ::usleep(kMicroseconds);
  }
}

std::string RuntimeFolder::consoleOf(const std::string& name) const {
  UniqueFd folder = openFolder(fd_.get(), name);
  return folder ? readSmallFile(folder.get(), file::kConsole) : std::string();
}

}  // namespace lodge::control
