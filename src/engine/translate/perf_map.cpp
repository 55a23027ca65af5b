// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/perf_map.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>

#include "engine/translate/mode_key.h"
#include "engine/translate/translation.h"

namespace lodge::translate {

Result<std::unique_ptr<PerfMap>> PerfMap::create() {
  auto map = std::unique_ptr<PerfMap>(new PerfMap());
  std::string path = "/tmp/perf-" + std::to_string(::getpid()) + ".map";
  // Another user may have put a link there.
  map->file_.reset(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!map->file_) return Error::fromErrno(errno, "open " + path);
  return map;
}

void PerfMap::note(const Translation& t) {
  ModeKey key{t.unit->key};
  const char* privilege = key.has(ModeKey::user) ? "user" : "kernel";
  const char* size = key.has(ModeKey::code64) ? "64" : "32";
  std::uint64_t linear = t.unit->page + t.pageOffset;
  char lines[256];
  int length = 0;
  struct Piece {
    std::uint64_t start;
    std::uint32_t bytes;
    const char* suffix;
  };
  for (const Piece& piece : {Piece{t.hot, t.hotSize, ""}, Piece{t.cold, t.coldSize, "+cold"}}) {
    if (piece.bytes == 0) continue;
    length += std::snprintf(lines + length, sizeof lines - static_cast<std::size_t>(length),
                            "%llx %x guest%s-%s:%llx%s\n", static_cast<unsigned long long>(piece.start), piece.bytes,
                            size, privilege, static_cast<unsigned long long>(linear), piece.suffix);
  }
  // A map that lacks lines is no reason to stop the guest.
  if (::write(file_.get(), lines, static_cast<std::size_t>(length)) < 0) file_.reset();
}

}  // namespace lodge::translate
