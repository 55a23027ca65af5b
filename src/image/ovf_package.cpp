// SPDX-License-Identifier: Apache-2.0
#include "image/ovf_package.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cctype>

#include "base/text.h"
#include "base/units.h"
#include "image/slice_file.h"

namespace lodge::image::ovf {

namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

Error outside(const std::string& name) {
  return Error(ErrorKind::permissionDenied, fmt::format("{} leads out of the package", inQuotes(name)));
}

/// The members of an archive.
class ArchiveSpace final : public FileSpace {
 public:
  ArchiveSpace(std::shared_ptr<BlockFile> file, std::vector<tar::Member> members)
      : file_(std::move(file)), members_(std::move(members)) {}

  Result<std::shared_ptr<BlockFile>> open(const std::string& path, const FileMode& mode) override {
    const tar::Member* member = find(path);
    if (!member) return Error(ErrorKind::notFound, fmt::format("open {}: not in the archive", inQuotes(path)));
    if (!mode.readOnly)
      return Error(ErrorKind::permissionDenied, fmt::format("write {} in an archive", inQuotes(path)));
    return makeSlice(file_, member->offset, member->bytes, member->name);
  }
  Result<std::shared_ptr<BlockFile>> create(const std::string& path, bool) override {
    return Error(ErrorKind::permissionDenied, fmt::format("create {} in an archive", inQuotes(path)));
  }
  Result<std::string> canonical(const std::string& path) override {
    if (path == "." || path == "/") return std::string("/");
    const tar::Member* member = find(path);
    if (member) return "/" + member->name;
    // A folder of members.
    for (const tar::Member& other : members_) {
      if (other.name.starts_with(path + "/")) return "/" + path;
    }
    return Error(ErrorKind::notFound, fmt::format("find {}: not in the archive", inQuotes(path)));
  }
  const std::vector<tar::Member>& members() const { return members_; }
  const tar::Member* find(const std::string& path) const {
    auto found = std::find_if(members_.begin(), members_.end(), [&](const tar::Member& m) { return m.name == path; });
    return found == members_.end() ? nullptr : &*found;
  }

 private:
  std::shared_ptr<BlockFile> file_;
  std::vector<tar::Member> members_;
};

/// The host's files below one folder, only to be read.
class FolderSpace final : public FileSpace {
 public:
  explicit FolderSpace(std::string folder) : folder_(std::move(folder)) {}

  Result<std::shared_ptr<BlockFile>> open(const std::string& path, const FileMode& mode) override {
    auto real = canonical(path);
    if (!real) return std::move(real).error();
    if (!mode.readOnly) return Error(ErrorKind::permissionDenied, fmt::format("write {} in a package", inQuotes(path)));
    return hostFiles().open(path, mode);
  }
  Result<std::shared_ptr<BlockFile>> create(const std::string& path, bool) override {
    return Error(ErrorKind::permissionDenied, fmt::format("create {} in a package", inQuotes(path)));
  }
  Result<std::string> canonical(const std::string& path) override {
    auto real = hostFiles().canonical(path);
    auto folder = hostFiles().canonical(folder_);
    if (!real || !folder) return real;
    bool inside = *real == *folder || real->starts_with(*folder == "/" ? *folder : *folder + "/");
    return inside ? real : outside(path);
  }

 private:
  std::string folder_;
};

Result<std::string> readText(BlockFile& file, std::uint64_t limit) {
  if (file.size() > limit) {
    return Error(ErrorKind::corrupt, fmt::format("{} has more than {}", inQuotes(file.name()), formatSize(limit)));
  }
  std::string text(file.size(), '\0');
  if (int error = file.read(0, text.data(), text.size()); error != 0) {
    return Error::fromErrno(error, "read " + inQuotes(file.name()));
  }
  return text;
}

}  // namespace

bool isPackageName(std::string_view path) {
  std::string name = lower(path);
  return name.ends_with(".ova") || name.ends_with(".ovf");
}

std::string Reader::pathOf(const std::string& member) const {
  return folder_.empty() || folder_ == "." ? member : folder_ + "/" + member;
}

Result<std::unique_ptr<Reader>> Reader::open(const std::string& path, const std::string& configuration) {
  std::unique_ptr<Reader> reader(new Reader);
  Status read = lower(path).ends_with(".ovf") ? reader->readFolder(path) : reader->readArchive(path);
  if (read) read = reader->interpret(configuration);
  if (!read) return std::move(read).error().context("package " + inQuotes(path));
  return reader;
}

Status Reader::readArchive(const std::string& path) {
  auto file = hostFiles().open(path, {.readOnly = true});
  if (!file) return std::move(file).error();
  auto members = tar::readIndex(**file);
  if (!members) return std::move(members).error();
  auto space = std::make_unique<ArchiveSpace>(*file, std::move(*members));
  for (const tar::Member& member : space->members()) {
    if (!isSafeName(member.name)) return outside(member.name);
    bool descriptor = descriptor_.empty() && lower(member.name).ends_with(".ovf");
    bool manifest = lower(member.name).ends_with(".mf") && manifest_.empty();
    if (!descriptor && !manifest) continue;
    auto slice = makeSlice(*file, member.offset, member.bytes, member.name);
    auto text = readText(*slice, kMaxDescriptorBytes);
    if (!text) return std::move(text).error();
    if (descriptor) descriptor_ = member.name;
    (descriptor ? text_ : manifest_) = std::move(*text);
  }
  space_ = std::move(space);
  if (descriptor_.empty()) return Error(ErrorKind::corrupt, "an archive without an OVF descriptor");
  return {};
}

Status Reader::readFolder(const std::string& path) {
  folder_ = folderOf(path);
  descriptor_ = fileNameOf(path);
  space_ = std::make_unique<FolderSpace>(folder_);
  auto file = hostFiles().open(path, {.readOnly = true});
  if (!file) return std::move(file).error();
  auto text = readText(**file, kMaxDescriptorBytes);
  if (!text) return std::move(text).error();
  text_ = std::move(*text);
  auto manifest = space_->open(path.substr(0, path.size() - 4) + ".mf", {.readOnly = true});
  if (!manifest) return manifest.error().kind() == ErrorKind::notFound ? Status() : std::move(manifest).error();
  auto lines = readText(**manifest, kMaxDescriptorBytes);
  if (!lines) return std::move(lines).error();
  manifest_ = std::move(*lines);
  return {};
}

Status Reader::interpret(const std::string& configuration) {
  auto package = parse(text_, configuration);
  if (!package) return std::move(package).error();
  package_ = std::move(*package);
  auto digests = parseManifest(manifest_);
  if (!digests) return std::move(digests).error();
  digests_ = std::move(*digests);
  return {};
}

Status Reader::verify(const Progress& progress) {
  std::vector<std::pair<const Digest*, std::shared_ptr<BlockFile>>> files;
  std::uint64_t total = 0, done = 0;
  for (const Digest& digest : digests_) {
    auto file = space_->open(pathOf(digest.file), {.readOnly = true});
    if (!file) return std::move(file).error().context("manifest");
    total += (*file)->size();
    files.emplace_back(&digest, std::move(*file));
  }
  for (auto& [digest, file] : files) {
    auto hex = digestOf(*file, digest->algorithm, [&](std::uint64_t bytes) {
      done += bytes;
      return !progress || progress(done, total);
    });
    if (!hex) return std::move(hex).error();
    if (*hex == digest->hex) continue;
    return Error(ErrorKind::corrupt, fmt::format("{} is not what the manifest says: {} {} for {}",
                                                 inQuotes(digest->file), digest->algorithm, *hex, digest->hex))
        .withHint("fetch it again; --no-verify takes it as it is");
  }
  for (const File& file : package_.files) {
    bool listed = std::any_of(digests_.begin(), digests_.end(), [&](const Digest& d) { return d.file == file.name; });
    if (!digests_.empty() && !listed) {
      return Error(ErrorKind::corrupt, fmt::format("the manifest does not have {}", inQuotes(file.name)))
          .withHint("--no-verify takes it as it is");
    }
  }
  return {};
}

Result<std::string> digestOf(BlockFile& file, const std::string& algorithm,
                             const std::function<bool(std::uint64_t)>& progress) {
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  const EVP_MD* method = EVP_get_digestbyname(algorithm.c_str());
  if (!context || !method || EVP_DigestInit_ex(context.get(), method, nullptr) != 1) {
    return Error(ErrorKind::unsupported, "digest " + inQuotes(algorithm));
  }
  std::vector<std::byte> buffer(1_MiB);
  for (std::uint64_t at = 0; at < file.size();) {
    std::size_t part = std::min<std::uint64_t>(buffer.size(), file.size() - at);
    if (int error = file.read(at, buffer.data(), part); error != 0) {
      return Error::fromErrno(error, "read " + inQuotes(file.name()));
    }
    EVP_DigestUpdate(context.get(), buffer.data(), part);
    at += part;
    if (progress && !progress(part)) return Error(ErrorKind::interrupted, "interrupted");
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_DigestFinal_ex(context.get(), digest, &length);
  std::string hex;
  for (unsigned i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

}  // namespace lodge::image::ovf
