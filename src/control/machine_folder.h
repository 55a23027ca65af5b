// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "base/file.h"
#include "control/machine_end.h"
#include "control/process_id.h"

namespace lodge::control {

/// Names of the files in a machine's folder.
namespace file {
inline constexpr const char* kLock = "lock";            ///< flock held by the machine's process; JSON: pid, start time
inline constexpr const char* kControl = "control";      ///< the control socket (control/protocol.h)
inline constexpr const char* kConfig = "config.json";   ///< control/config_json.h
inline constexpr const char* kLog = "log";              ///< a detached machine's diagnostics
inline constexpr const char* kConsole = "console.log";  ///< the last console output of a machine that has ended
inline constexpr const char* kEnd = "end.json";         ///< control/machine_end.h
/// In the runtime folder: memory/page_store.h.
inline constexpr const char* kSharedPages = "/.pages";
}  // namespace file

/// The folder of the machine that this process runs, made by RuntimeFolder::claim(). Its lock is held for as long as
/// the object (and so the process) lives, which is how everybody else knows that the machine does. The destructor
/// removes the folder, unless keep() was called. Move-only; one thread.
class MachineFolder {
 public:
  MachineFolder(std::string name, std::string runtimePath, UniqueFd runtimeFd, UniqueFd folderFd, UniqueFd lockFd);
  MachineFolder(MachineFolder&&) noexcept = default;
  MachineFolder& operator=(MachineFolder&&) = delete;
  ~MachineFolder();

  const std::string& name() const { return name_; }
  std::string path() const { return runtimePath_ + "/" + name_; }

  /// Replaces a file of the folder whole: readers see the old content or the new.
  Status write(const char* file, std::string_view content);
  /// Opens a file of the folder for appending.
  Result<UniqueFd> openLog();
  /// The listening control socket, non-blocking.
  Result<UniqueFd> listen();
  /// Leaves the folder behind with how the machine ended and what it last said.
  Status keep(const EndRecord& record, std::string_view console);

 private:
  std::string name_, runtimePath_;
  UniqueFd runtimeFd_, folderFd_, lockFd_;
  bool keep_ = false;
};

/// Reads a whole small file of a folder; empty if there is none or it is over 1 MiB.
std::string readSmallFile(int folderFd, const char* name);

/// Removes every file of the folder `name` and the folder. Subfolders are not expected and make it fail.
Status removeFolder(int runtimeFd, const std::string& name);

/// Connects to a stream socket in a folder whose path may be longer than a socket address can hold. Blocking,
/// close-on-exec.
Result<UniqueFd> connectIn(int folderFd, const char* socketName);

}  // namespace lodge::control
