// SPDX-License-Identifier: Apache-2.0
#include "base/memory_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/trace.h"

namespace lodge {

UniqueFd makeMemoryFile(const char* name) {
  UniqueFd file;
  if (!isWithheld(HostFeature::memfd)) file.reset(::memfd_create(name, MFD_CLOEXEC));
  if (file || errno == EMFILE || errno == ENFILE) return file;
  for (const char* folder : {"/dev/shm", "/tmp", "."}) {
    file.reset(::open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR));
    if (file) break;
  }
  return file;
}

}  // namespace lodge
