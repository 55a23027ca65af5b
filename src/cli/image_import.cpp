// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "base/text.h"
#include "base/units.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/image_target.h"
#include "cli/layout.h"
#include "cli/machine_description.h"
#include "image/ovf_package.h"

namespace lodge::cli {

namespace {

namespace ovf = image::ovf;

/// A folder under a temporary name beside its final one. Unless commit() is called, it goes with what is in it.
class FreshFolder {
 public:
  static Result<std::unique_ptr<FreshFolder>> begin(const std::string& path) {
    std::error_code none;
    if (std::filesystem::exists(path, none)) {
      return Error(ErrorKind::alreadyExists, "import into " + inQuotes(path) + ": it exists")
          .withHint("name another folder");
    }
    std::unique_ptr<FreshFolder> fresh(new FreshFolder);
    std::string folder = image::folderOf(path);
    std::string pattern = folder + "/." + image::fileNameOf(path) + ".XXXXXX";
    if (!::mkdtemp(pattern.data())) return Error::fromErrno(errno, "make a folder in " + inQuotes(folder));
    fresh->path_ = pattern;
    fresh->final_ = path;
    return fresh;
  }
  ~FreshFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  FreshFolder(const FreshFolder&) = delete;
  FreshFolder& operator=(const FreshFolder&) = delete;
  const std::string& path() const { return path_; }
  Status commit() {
    std::error_code error;
    std::filesystem::permissions(path_, std::filesystem::perms(0755), error);
    if (std::rename(path_.c_str(), final_.c_str()) != 0)
      return Error::fromErrno(errno, "move it to " + inQuotes(final_));
    path_.clear();
    return {};
  }

 private:
  FreshFolder() = default;
  std::string path_, final_;
};

/// A machine's name as a file's.
std::string fileNameFor(const std::string& name) {
  std::string result;
  for (unsigned char c : name.substr(0, 64)) {
    bool plain = std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
    if (plain || (!result.empty() && result.back() != '-')) result += plain ? static_cast<char>(c) : '-';
  }
  while (result.starts_with(".") || result.starts_with("-")) result.erase(0, 1);
  return result.empty() ? "machine" : result;
}

Result<const ovf::Machine*> chooseMachine(const ovf::Package& package, const std::string& wanted) {
  std::vector<std::string> names;
  for (const ovf::Machine& machine : package.machines) {
    if (machine.name == wanted || (wanted.empty() && package.machines.size() == 1)) return &machine;
    names.push_back(machine.name);
  }
  return Error(ErrorKind::invalidArgument,
               wanted.empty() ? "the package has several machines" : "the package has no machine " + inQuotes(wanted))
      .withHint("choose with --system: " + join(names, ", "));
}

class Import {
 public:
  Import(const Invocation& invocation, const Program& program, const image::FormatDriver& driver)
      : invocation_(invocation), program_(program), driver_(driver) {}

  Result<Json> run() {
    const std::string& source = invocation_.arguments()[0];
    auto reader = ovf::Reader::open(source, invocation_.value("configuration"));
    if (!reader) return std::move(reader).error();
    auto chosen = chooseMachine((*reader)->package(), invocation_.value("system"));
    if (!chosen) return std::move(chosen).error();
    machine_ = **chosen;
    if (!invocation_.has("no-verify")) {
      ProgressBar bar(invocation_, program_);
      if (Status good = (*reader)->verify(bar.callback()); !good) return std::move(good).error();
    }
    std::string stem = fileNameFor(machine_.name);
    folder_ = invocation_.arguments().size() > 1 ? invocation_.arguments()[1] : stem;
    while (folder_.size() > 1 && folder_.ends_with("/")) folder_.pop_back();
    auto fresh = FreshFolder::begin(folder_);
    if (!fresh) return std::move(fresh).error();
    for (std::size_t i = 0; i < machine_.disks.size(); ++i) {
      std::string name = fmt::format("{}-disk{}.{}", stem, i + 1, driver_.suffixes.front());
      if (Status taken = takeDisk(**reader, machine_.disks[i], (*fresh)->path(), name); !taken) {
        return std::move(taken).error().context(fmt::format("disk {}", i + 1));
      }
    }
    if (Status taken = takeCds(**reader, (*fresh)->path(), stem); !taken) return std::move(taken).error();
    Json description = describe(machine_);
    for (Json& disk : description["disks"]) disk["format"] = driver_.name;
    if (Status put = putText((*fresh)->path() + "/machine.json", description.dump(2) + "\n"); !put) {
      return std::move(put).error();
    }
    if (Status moved = (*fresh)->commit(); !moved) return std::move(moved).error();
    description["folder"] = folder_;
    description["verified"] = (*reader)->hasManifest() && !invocation_.has("no-verify");
    return description;
  }

 private:
  Status copyImage(ovf::Reader& reader, const std::string& member, const std::string& format,
                   const image::FormatDriver& driver, const std::string& target, std::uint64_t& bytes) {
    image::OpenOptions options;
    auto source = image::openImage(reader.pathOf(member), format, options, reader.files());
    if (!source) return std::move(source).error();
    bytes = (*source)->size();
    if (Status made = makeImage(driver, target, bytes); !made) return made;
    options.file = {.readOnly = false, .cache = image::CacheMode::unsafe};
    auto copy = image::openImage(target, std::string(driver.name), options);
    if (!copy) return std::move(copy).error();
    ProgressBar bar(invocation_, program_);
    image::CopyOptions how;
    how.progress = bar.callback();
    if (Status copied = image::copyContent(**source, **copy, how); !copied) return copied;
    if (int error = (*copy)->flush(); error != 0) return Error::fromErrno(error, "flush");
    return {};
  }

  Status makeImage(const image::FormatDriver& driver, const std::string& path, std::uint64_t bytes) {
    image::CreateRequest request{.path = path, .bytes = bytes};
    if (&driver == &driver_) {
      auto settings = imageSettings(invocation_);
      if (!settings) return std::move(settings).error();
      request.options = std::move(*settings);
    }
    return image::createImage(driver, request);
  }

  Status takeDisk(ovf::Reader& reader, ovf::Disk& disk, const std::string& folder, const std::string& name) {
    std::string member = disk.file, target = folder + "/" + name;
    disk.file = name;
    if (member.empty()) return makeImage(driver_, target, disk.capacity);
    return copyImage(reader, member, "", driver_, target, disk.capacity);
  }

  Status takeCds(ovf::Reader& reader, const std::string& folder, const std::string& stem) {
    for (std::size_t i = 0; i < machine_.cdDrives.size(); ++i) {
      std::string& file = machine_.cdDrives[i].file;
      if (file.empty()) continue;
      std::string name = fmt::format("{}-cd{}.iso", stem, i + 1);
      std::uint64_t bytes = 0;
      if (Status copied = copyImage(reader, file, "raw", *image::findFormat("raw"), folder + "/" + name, bytes);
          !copied) {
        return std::move(copied).error().context("CD " + inQuotes(file));
      }
      file = name;
    }
    return {};
  }

  static Status putText(const std::string& path, const std::string& text) {
    auto file = image::hostFiles().create(path, true);
    if (!file) return std::move(file).error();
    int error = (*file)->write(0, text.data(), text.size());
    if (error == 0) error = (*file)->flush();
    if (error != 0) return Error::fromErrno(error, "write " + inQuotes(path));
    return {};
  }

  const Invocation& invocation_;
  const Program& program_;
  const image::FormatDriver& driver_;
  ovf::Machine machine_;
  std::string folder_;
};

std::string summary(const Json& made) {
  std::string text =
      fmt::format("{}: {} CPUs, {} of memory, {}\n", made["name"].get<std::string>(), made["cpus"].get<unsigned>(),
                  formatSize(made["memory"].get<std::uint64_t>()), made["firmware"].get<std::string>());
  std::string folder = made["folder"].get<std::string>();
  for (const Json& disk : made["disks"]) {
    text += fmt::format("  disk {}/{} ({})\n", folder, disk["path"].get<std::string>(),
                        formatSize(disk["bytes"].get<std::uint64_t>()));
  }
  return text + fmt::format("  {} network cards; described in {}/machine.json\n", made["nets"].size(), folder);
}

int run(const Invocation& invocation, const Program& program) {
  auto driver = image::formatNamed(invocation.value("output-format", "qcow2"));
  if (!driver) return imageFail(program, driver.error());
  auto made = Import(invocation, program, **driver).run();
  if (!made) {
    return imageFail(program, std::move(made).error().context("import " + inQuotes(invocation.arguments()[0])));
  }
  if (wantsJson(invocation)) return printJson(*made);
  if (invocation.has("quiet")) return exit_status::kSuccess;
  return print(summary(*made)) ? exit_status::kSuccess : exit_status::kLodgeError;
}

}  // namespace

VerbSpec imageImport() {
  return {
      .name = "image import",
      .summary = "take a machine out of an OVA or OVF package",
      .description =
          "Makes a folder with the package's disks, as images of the format that -O names, and 'machine.json', which "
          "says what machine they belong to: CPUs, memory, firmware, disks and networks. The files are compared with "
          "the package's manifest, if there is one. Names in a package lead to its own files only.",
      .arguments = {{.name = "PACKAGE", .complete = Complete::file},
                    {.name = "FOLDER", .required = false, .complete = Complete::file}},
      .options = {{.name = "output-format",
                   .letter = 'O',
                   .value = "FORMAT",
                   .help = "The format of the disks; qcow2 if not given."},
                  image_option::settings(),
                  {.name = "configuration",
                   .value = "NAME",
                   .help = "Which of the package's deployment options; its default if not given."},
                  {.name = "system", .value = "NAME", .help = "Which of several machines in the package."},
                  {.name = "no-verify", .help = "Do not compare the files with the manifest."},
                  image_option::progress(),
                  image_option::quiet(),
                  image_option::output(),
                  image_option::json()},
      .examples = {{"lodge image import appliance.ova", "A folder named as the machine is."},
                   {"lodge image import -O raw appliance.ovf /srv/appliance", "Raw disks, in a folder of that name."}},
      .run = run,
  };
}

}  // namespace lodge::cli
