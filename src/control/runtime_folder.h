// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "control/machine_folder.h"

namespace lodge::control {

/// Held while machine folders are made, examined or removed: a flock on the runtime folder's ".lock".
class RuntimeLock {
 public:
  /// Waits up to five seconds. Errors: busy.
  static Result<RuntimeLock> take(int runtimeFd);

 private:
  explicit RuntimeLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

/// A machine as its folder shows it.
struct FoundMachine {
  std::string name;
  bool running = false;
  ProcessId process;             ///< of a running machine
  std::optional<EndRecord> end;  ///< of one that has ended
  Json config;                   ///< config.json; null if it is not (yet) there
};

/// The folder that holds one folder for each of the user's machines. There is no daemon: a machine lives while its
/// process holds the lock in its folder, and what a killed machine left behind is removed by whoever looks next.
class RuntimeFolder {
 public:
  /// $XDG_RUNTIME_DIR/lodge, else /run/user/UID/lodge, else /tmp/lodge-UID; made with mode 0700.
  /// Errors: permissionDenied if the folder is somebody else's or open to others.
  static Result<RuntimeFolder> open();
  static Result<RuntimeFolder> openAt(std::string path);

  const std::string& path() const { return path_; }

  /// Makes the folder of a new machine. An empty name is replaced by the first free of vm1, vm2...; what an ended
  /// machine of the same name left is removed. Errors: invalidArgument (bad name), alreadyExists (a running machine has
  /// the name).
  Result<MachineFolder> claim(std::string name);

  /// All machines, sorted by name. Removes the folders of those that died without a word, and of those that ended over
  /// a day ago.
  Result<std::vector<FoundMachine>> machines();
  /// Errors: notFound, with the names that there are.
  Result<FoundMachine> find(const std::string& name);
  /// Removes what an ended machine left. Errors: notFound, busy (it runs).
  Status remove(const std::string& name);

  /// Connects to a running machine's control socket. `waits`: for up to two seconds until it is there.
  Result<UniqueFd> connect(const std::string& name, bool waits = false) const;
  /// What an ended machine last wrote to its console.
  std::string consoleOf(const std::string& name) const;

 private:
  RuntimeFolder(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::vector<std::string> namesLocked() const;
  std::optional<FoundMachine> examineLocked(const std::string& name);
  std::string freeNameLocked() const;
  Result<MachineFolder> makeLocked(const std::string& name);

  std::string path_;
  UniqueFd fd_;
};

}  // namespace lodge::control
