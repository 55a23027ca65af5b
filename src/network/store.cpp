// SPDX-License-Identifier: Apache-2.0
#include "network/store.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>

#include "base/file.h"
#include "base/text.h"

namespace lodge::network {

namespace {

constexpr std::size_t kLargestFile = 1 << 20;

bool isFolderOfMine(const std::string& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == ::geteuid();
}

Status makeFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return Error::fromErrno(errno, "make " + inQuotes(path));
  if (!isFolderOfMine(path))
    return Error(ErrorKind::permissionDenied, inQuotes(path) + " is not a folder of this user's");
  return {};
}

std::string runtimeRoot() {
  const char* variable = std::getenv("XDG_RUNTIME_DIR");
  std::string uid = std::to_string(::geteuid());
  if (variable && variable[0] == '/' && isFolderOfMine(variable)) return std::string(variable) + "/lodge-networks";
  if (isFolderOfMine("/run/user/" + uid)) return "/run/user/" + uid + "/lodge-networks";
  return "/tmp/lodge-networks-" + uid;
}

std::vector<std::string> namesIn(const std::string& folder, std::string_view suffix) {
  std::vector<std::string> names;
  std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(folder.c_str()), ::closedir);
  while (dirent* entry = dir ? ::readdir(dir.get()) : nullptr) {
    std::string_view file = entry->d_name;
    if (!file.ends_with(suffix)) continue;
    file.remove_suffix(suffix.size());
    if (isNetworkName(file)) names.emplace_back(file);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

Result<Store> Store::open() {
  const char* config = std::getenv("XDG_CONFIG_HOME");
  const char* home = std::getenv("HOME");
  std::string base = config && config[0] == '/' ? config
                     : home && home[0] == '/'   ? std::string(home) + "/.config"
                                                : "/tmp/lodge-config-" + std::to_string(::geteuid());
  std::string folder = base + "/lodge/networks";
  if (Status made = makeFolder(folder); !made) return std::move(made).error();
  return Store(std::move(folder));
}

bool Store::has(const std::string& name) const {
  return isNetworkName(name) && ::access(pathOf(name).c_str(), F_OK) == 0;
}

Result<NetworkDefinition> Store::load(const std::string& name) const {
  if (!has(name)) {
    auto names = namesIn(folder_, ".json");
    return Error(ErrorKind::notFound, "there is no network " + inQuotes(name))
        .withHint(names.empty() ? "make one with 'lodge network create'" : "there are: " + join(names, ", "));
  }
  std::string what = "network file " + inQuotes(pathOf(name));
  auto content = readFile(pathOf(name), kLargestFile);
  if (!content) return std::move(content).error().context(what);
  const char* begin = reinterpret_cast<const char*>(content->data());
  auto definition = definitionFrom(Json::parse(begin, begin + content->size(), nullptr, false));
  if (!definition) return std::move(definition).error().context(what);
  if (definition->name != name) return Error(ErrorKind::corrupt, what + " is that of " + inQuotes(definition->name));
  return definition;
}

std::vector<NetworkDefinition> Store::all(std::vector<Error>* broken) const {
  std::vector<NetworkDefinition> out;
  for (const std::string& name : namesIn(folder_, ".json")) {
    auto definition = load(name);
    if (definition)
      out.push_back(std::move(*definition));
    else if (broken)
      broken->push_back(std::move(definition).error());
  }
  return out;
}

Status Store::save(const NetworkDefinition& definition) const {
  std::string path = pathOf(definition.name), fresh = path + ".new";
  std::string text = toJson(definition).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  UniqueFd fd(::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  bool good = fd && ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
              ::fsync(fd.get()) == 0 && ::rename(fresh.c_str(), path.c_str()) == 0;
  if (good) return {};
  int error = errno;
  ::unlink(fresh.c_str());
  return Error::fromErrno(error, "write " + inQuotes(path));
}

Status Store::remove(const std::string& name) const {
  if (::unlink(pathOf(name).c_str()) != 0) return Error::fromErrno(errno, "remove " + inQuotes(pathOf(name)));
  return {};
}

Result<std::string> runtimeFolderOf(const std::string& name) {
  std::string root = runtimeRoot();
  if (Status made = makeFolder(root); !made) return std::move(made).error();
  std::string path = root + "/" + name;
  if (Status made = makeFolder(path); !made) return std::move(made).error();
  return path;
}

std::vector<std::string> runtimeNames() {
  return namesIn(runtimeRoot(), "");
}

std::vector<std::pair<std::string, IpBlock>> takenBlocks(const Store& store, const std::string& except) {
  std::vector<std::pair<std::string, IpBlock>> taken;
  for (const NetworkDefinition& d : store.all()) {
    if (d.name != except && d.subnet && !d.userUplink()) taken.emplace_back("network " + inQuotes(d.name), *d.subnet);
  }
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return taken;
  for (ifaddrs* a = list; a; a = a->ifa_next) {
    // Lodge's own bridges are known by their networks' files.
    if (!a->ifa_addr || !a->ifa_netmask || a->ifa_addr->sa_family != AF_INET ||
        std::string_view(a->ifa_name).starts_with("lg-"))
      continue;
    auto word = [](const sockaddr* s) {
      sockaddr_in in{};
      __builtin_memcpy(&in, s, sizeof in);
      return ntohl(in.sin_addr.s_addr);
    };
    std::uint32_t mask = word(a->ifa_netmask);
    taken.emplace_back(
        fmt::format("the host's card {}", a->ifa_name),
        IpBlock{IpAddress::v4From(word(a->ifa_addr) & mask), static_cast<unsigned>(std::popcount(mask))});
  }
  ::freeifaddrs(list);
  return taken;
}

}  // namespace lodge::network
