// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/probe_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "base/text.h"

namespace lodge::kvm {

namespace {

// Raised when what a probe does, or what its verdict means, changes.
constexpr int kVersion = 1;
constexpr std::uint64_t kMaxBytes = 4096;

std::string readText(const std::string& path) {
  // Not readFile(): files of the kernel have no size.
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::string text(kMaxBytes, '\0');
  ssize_t length = fd ? ::read(fd.get(), text.data(), text.size()) : 0;
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(0, length)));
  return text;
}

std::string cacheFile() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && cache[0] == '/') return std::string(cache) + "/lodge/kvm-probe";
  const char* home = std::getenv("HOME");
  return home && home[0] == '/' ? std::string(home) + "/.cache/lodge/kvm-probe" : std::string();
}

}  // namespace

ProbeCache ProbeCache::ofHost() {
  return {"/dev/kvm", cacheFile(), readText("/proc/sys/kernel/random/boot_id")};
}

/// What a verdict holds for: the host's boot, and the device file, which comes anew with its module.
std::string ProbeCache::key() const {
  struct stat info {};
  if (bootId_.empty() || ::stat(device_.c_str(), &info) != 0) return {};
  std::string boot = bootId_.substr(0, bootId_.find('\n'));
  return fmt::format("{} {} {} {}.{} {}", kVersion, boot, info.st_ino, info.st_ctim.tv_sec, info.st_ctim.tv_nsec,
                     device_);
}

std::optional<ProbeResult> ProbeCache::load() const {
  if (file_.empty()) return std::nullopt;
  struct stat info {};
  // Nobody else's word is taken.
  if (::stat(file_.c_str(), &info) != 0 || info.st_uid != ::geteuid() || (info.st_mode & 022) != 0) return std::nullopt;
  UniqueFd device(::open(device_.c_str(), O_RDWR | O_CLOEXEC));
  if (!device) return std::nullopt;
  std::string text = readText(file_);
  auto lines = split(text, '\n');
  std::string wanted = key();
  if (lines.size() < 5 || wanted.empty() || lines[0] != wanted) return std::nullopt;
  auto version = parseNumber(lines[1]), usable = parseNumber(lines[2]), speed = parseNumber(lines[3]);
  if (!version || !usable || !speed || *usable > 1 || *version > 1000 || lines[4].empty()) return std::nullopt;
  ProbeResult result;
  result.present = result.openable = true;
  result.apiVersion = static_cast<int>(*version);
  result.usable = *usable == 1;
  result.instructionsPerSecond = static_cast<double>(*speed);
  result.reason = std::string(lines[4]);
  return result;
}

void ProbeCache::store(const ProbeResult& result) const {
  std::string wanted = key();
  if (file_.empty() || wanted.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(file_).parent_path(), ignored);
  std::string text = fmt::format("{}\n{}\n{}\n{}\n{}\n", wanted, result.apiVersion, result.usable ? 1 : 0,
                                 static_cast<std::uint64_t>(result.instructionsPerSecond), result.reason);
  // Another process may do the same now: each writes its own file, and the last one stays.
  std::string temporary = file_ + "." + std::to_string(::getpid());
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return;
  bool written = ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (!written || ::rename(temporary.c_str(), file_.c_str()) != 0) ::unlink(temporary.c_str());
}

ProbeResult ProbeCache::get(const std::function<ProbeResult()>& probe) const {
  if (auto known = load()) return *known;
  ProbeResult result = probe();
  if (result.openable) store(result);
  return result;
}

}  // namespace lodge::kvm
