// SPDX-License-Identifier: Apache-2.0
#include <linux/magic.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cstdint>
#include <map>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/image_target.h"
#include "cli/layout.h"

namespace lodge::cli {

using image::FormatDriver;
using image::Image;

namespace {

/// The options as they were read and checked.
struct Plan {
  std::vector<std::string> sources;
  std::uint64_t from = 0, most = UINT64_MAX;  // bytes of the source: where to begin, how many to copy
  std::string target;
  image::OpenOptions read, write;
  image::CreateRequest request;
  image::CopyOptions copy;
  const FormatDriver* driver = nullptr;
};

Status readNumbers(const Invocation& invocation, Plan& plan) {
  if (std::string text = invocation.value("sparse"); !text.empty()) {
    auto bytes = imageSize(text);
    if (!bytes) return std::move(bytes).error();
    if (*bytes % 512 != 0)
      return Error(ErrorKind::invalidArgument, "-S " + text).withHint("use a multiple of 512, or 0");
    plan.copy.sparseBytes = *bytes;
  }
  if (std::string text = invocation.value("threads"); !text.empty()) {
    auto count = parseNumber(text, 64);
    if (!count || *count == 0) return Error(ErrorKind::invalidArgument, "-m " + inQuotes(text)).withHint("use 1 to 64");
    plan.copy.threads = static_cast<unsigned>(*count);
  }
  return {};
}

Result<Plan> readPlan(const Invocation& invocation, const Program& program) {
  Plan plan;
  const auto& names = invocation.arguments();
  plan.sources.assign(names.begin(), names.end() - 1);
  plan.target = names.back();
  auto driver = targetFormat(invocation.value("output-format"), plan.target, program);
  if (!driver) return std::move(driver).error();
  plan.driver = *driver;
  auto settings = imageSettings(invocation);
  if (!settings) return std::move(settings).error();
  plan.request.options = std::move(*settings);
  plan.request.replace = true;
  plan.request.backingName = takeSetting(plan.request, "backing_file", invocation.value("backing"));
  plan.request.backingFormat = takeSetting(plan.request, "backing_fmt", invocation.value("backing-format"));
  if (program.qemuImg && !plan.request.backingName.empty() && plan.request.backingFormat.empty())
    return Error(ErrorKind::invalidArgument, "Use of backing file requires explicit backing format")
        .withHint("give -F");
  auto read = openOptions(invocation, program, false);
  if (!read) return std::move(read).error();
  plan.read = std::move(*read);
  plan.read.snapshot = snapshotName(invocation.value("snapshot"));
  auto cache = cacheMode(invocation.value("cache", "unsafe"));
  if (!cache) return std::move(cache).error();
  plan.write.file = {.readOnly = false, .cache = *cache};
  plan.write.openBacking = !plan.request.backingName.empty();
  plan.write.paths = image::PathPolicy::anywhere;  // the names in it are the user's
  if (Status good = readNumbers(invocation, plan); !good) return std::move(good).error();
  plan.copy.compress = invocation.has("compress");
  if (plan.copy.compress && !plan.driver->compression)
    return Error(ErrorKind::unsupported, fmt::format("{} images have no compressed form", plan.driver->name));
  plan.copy.topLayerOnly = !plan.request.backingName.empty();
  plan.copy.salvage = invocation.has("salvage");
  plan.copy.onLoss = [&program](std::uint64_t offset, std::uint64_t, int error) {
    std::string what = fmt::format("warning: error while reading offset {}", offset);
    imageFail(program, Error::fromErrno(error, what));
  };
  if (invocation.has("target-is-zero") && !invocation.has("no-create"))
    return Error(ErrorKind::invalidArgument, "--target-is-zero requires use of -n flag");
  if (invocation.has("skip-broken-bitmaps") && !invocation.has("bitmaps"))
    return Error(ErrorKind::invalidArgument, "Use of --skip-broken-bitmaps requires --bitmaps");
  if (plan.sources.size() > 1 && (plan.copy.topLayerOnly || !plan.read.snapshot.empty() || invocation.has("bitmaps")))
    return Error(ErrorKind::invalidArgument, "several sources are joined as whole disks")
        .withHint("leave out the backing image, the snapshot and the bitmaps, or convert them one by one");
  return plan;
}

/// Whether files of that name's folder lie in memory.
bool liesInMemory(const std::string& path) {
  struct statfs about {};
  return ::statfs(image::folderOf(path).c_str(), &about) == 0 && about.f_type == TMPFS_MAGIC;
}

Status copyInto(Plan& plan, Image& source, const std::string& path, const Invocation& invocation,
                const Program& program) {
  auto target = image::openImage(path, std::string(plan.driver->name), plan.write);
  if (!target) return std::move(target).error();
  ProgressBar bar(invocation, program);
  plan.copy.progress = bar.callback();
  if (plan.write.file.cache != image::CacheMode::none && !path.starts_with("nbd")) plan.copy.writers = 1;
  if (liesInMemory(path)) {
    plan.copy.pieceBytes = 256 << 10;
    bool fresh = path == plan.request.path && plan.write.file.cache == image::CacheMode::unsafe;
    if (fresh) plan.copy.writers = 2;
  }
  if (Status copied = image::copyContent(source, **target, plan.copy); !copied) return copied;
  if (invocation.has("bitmaps")) {
    Status bitmaps = image::copyBitmaps(source, **target, invocation.has("skip-broken-bitmaps"));
    if (!bitmaps) return bitmaps;
  }
  if (int error = (*target)->flush(); error != 0) return Error::fromErrno(error, "flush");
  return {};
}

Status convert(Plan& plan, const Invocation& invocation, const Program& program) {
  std::vector<std::unique_ptr<Image>> parts;
  for (const std::string& name : plan.sources) {
    auto part = image::openImage(name, invocation.value("format"), plan.read);
    if (!part) return std::move(part).error();
    parts.push_back(std::move(*part));
  }
  std::unique_ptr<Image> source = image::joinImages(std::move(parts));
  if (plan.from > source->size()) return Error(ErrorKind::invalidArgument, "cannot skip to specified offset");
  if (plan.from != 0 || plan.most < source->size())
    source = image::partOfImage(std::move(source), plan.from, plan.most);
  if (invocation.has("no-create")) {
    plan.copy.targetIsZero = invocation.has("target-is-zero");
    return copyInto(plan, *source, plan.target, invocation, program);
  }
  bool address = plan.target.starts_with("nbd");
  if (address) {
    plan.copy.targetIsZero = false;
    return copyInto(plan, *source, plan.target, invocation, program);
  }
  auto fresh = FreshFile::begin(plan.target, hasSeveralFiles(*plan.driver, plan.request));
  if (!fresh) return std::move(fresh).error();
  plan.request.path = (*fresh)->path();
  plan.request.finalPath = plan.target;
  plan.request.bytes = source->size();
  if (Status made = image::createImage(*plan.driver, plan.request); !made) return made;
  if (Status copied = copyInto(plan, *source, plan.request.path, invocation, program); !copied) return copied;
  return (*fresh)->commit();
}

int carryOut(Result<Plan> plan, const Invocation& invocation, const Program& program) {
  if (!plan) return imageFail(program, plan.error());
  ProgressBar signals(invocation, program);  // from here on a signal leaves nothing half made behind
  Status done = convert(*plan, invocation, program);
  if (!done)
    return imageFail(program, std::move(done).error().context("convert " + inQuotes(join(plan->sources, " "))));
  if (!wantsJson(invocation)) return exit_status::kSuccess;
  return printJson({{"source", join(plan->sources, " ")}, {"target", plan->target}, {"format", plan->driver->name}});
}

int run(const Invocation& invocation, const Program& program) {
  if (asksForSettings(invocation)) {
    auto driver = targetFormat(invocation.value("output-format"), invocation.arguments().back(), program);
    if (!driver) return imageFail(program, driver.error());
    return print(settingsHelp(**driver)) ? exit_status::kSuccess : exit_status::kLodgeError;
  }
  return carryOut(readPlan(invocation, program), invocation, program);
}

/// What dd's operands say. Errors: invalidArgument.
Result<Plan> readOperands(const Invocation& invocation, const Program& program) {
  constexpr std::uint64_t kMostBlock = INT32_MAX;
  std::map<std::string, std::string> given;
  for (const std::string& operand : invocation.arguments()) {
    std::string name = operand.substr(0, operand.find('='));
    constexpr std::string_view kNames[] = {"if", "of", "bs", "count", "skip"};
    if (std::ranges::count(kNames, name) == 0 || name.size() == operand.size())
      return Error(ErrorKind::invalidArgument, "unrecognized operand " + operand)
          .withHint("there are if=FILE, of=FILE, bs=BYTES, count=N and skip=N");
    given[name] = operand.substr(name.size() + 1);
  }
  if (given["if"].empty() || given["of"].empty())
    return Error(ErrorKind::invalidArgument, "Must specify both input and output files").withHint("if=FILE of=FILE");
  Plan plan;
  plan.sources = {given["if"]};
  plan.target = given["of"];
  std::map<std::string, std::uint64_t> numbers = {{"bs", 512}, {"count", 0}, {"skip", 0}};
  for (auto& [name, number] : numbers) {
    if (given[name].empty()) continue;
    auto value = imageSize(given[name]);
    if (!value) return std::move(value).error().context(name);
    number = *value;
  }
  std::uint64_t block = numbers["bs"];
  if (block == 0 || block > kMostBlock)
    return Error(ErrorKind::invalidArgument,
                 fmt::format("Invalid bs specified. Must be between 1 and {}.", kMostBlock));
  if (std::max(numbers["count"], numbers["skip"]) > UINT64_MAX / block)
    return Error(ErrorKind::invalidArgument, "count or skip is too large");
  plan.from = numbers["skip"] * block;
  if (given.contains("count") && !given["count"].empty()) plan.most = numbers["count"] * block;
  auto driver = targetFormat(invocation.value("output-format"), plan.target, program);
  if (!driver) return std::move(driver).error();
  plan.driver = *driver;
  auto read = openOptions(invocation, program, false);
  if (!read) return std::move(read).error();
  plan.read = std::move(*read);
  plan.write.file = {.readOnly = false, .cache = image::CacheMode::unsafe};
  plan.request.replace = true;
  return plan;
}

int runDd(const Invocation& invocation, const Program& program) {
  return carryOut(readOperands(invocation, program), invocation, program);
}

}  // namespace

VerbSpec imageConvert() {
  return {
      .name = "image convert",
      .summary = "copy a disk into another image or format",
      .description =
          "Copies a disk's content into a new image, in the format that the target's suffix tells. Backing images are "
          "followed: the target stands alone. The target appears under its name when it is complete; if the copy "
          "fails or is interrupted nothing is left of it, and an old file of that name stays. Several sources are "
          "joined: "
          "the target has one disk after the other.",
      .arguments = {{.name = "SOURCE", .complete = Complete::file},
                    {.name = "TARGET", .repeats = true, .complete = Complete::file}},
      .options = image_option::withUsual(
          {image_option::format("The source's format; otherwise by its content."),
           {.name = "output-format",
            .letter = 'O',
            .value = "FORMAT",
            .help = "The target's format; otherwise by its name's suffix, or raw."},
           image_option::settings(),
           {.name = "compress", .letter = 'c', .help = "Write compressed clusters."},
           {.name = "backing",
            .letter = 'B',
            .value = "FILE",
            .help =
                "The target's backing image, which has what the source's has: only the source's own content is copied.",
            .complete = Complete::file},
           {.name = "backing-format", .letter = 'F', .value = "FORMAT", .help = "Its format."},
           {.name = "snapshot",
            .letter = 'l',
            .value = "SNAPSHOT",
            .help = "Copy an internal snapshot's content, by its name or id."},
           {.name = "sparse",
            .letter = 'S',
            .value = "SIZE",
            .help = "How many zeroes in a row become a hole; 0: none. 4K if not given."},
           {.name = "threads", .letter = 'm', .value = "N", .help = "How many threads copy, 1 to 64."},
           {.name = "out-of-order",
            .letter = 'W',
            .help = "Accepted for qemu-img's sake: copies are always made out of order."},
           {.name = "no-create", .letter = 'n', .help = "Write into a target that exists already."},
           {.name = "target-is-zero",
            .help = "With --no-create: the target reads as zero, so zeroes need not be written."},
           {.name = "salvage", .help = "Take what cannot be read for zeroes, say where, and go on."},
           {.name = "bitmaps", .help = "Copy the persistent dirty bitmaps, too."},
           {.name = "skip-broken-bitmaps", .help = "With --bitmaps: leave out those that are inconsistent."},
           image_option::cache("unsafe"),
           image_option::sourceCache()}),
      .examples = {{"lodge image convert windows.vmdk windows.qcow2", "From VMware to here."},
                   {"lodge image convert -c -o compression_type=zstd disk.raw disk.qcow2", "As small as it gets."},
                   {"lodge image convert -l before-upgrade disk.qcow2 old.raw", "A snapshot's content."}},
      .run = run,
  };
}

VerbSpec imageDd() {
  return {
      .name = "image dd",
      .summary = "copy a part of a disk",
      .description =
          "Copies the disk's content, or COUNT blocks of it from the block SKIP on, into a new image. Operands are "
          "if=FILE, of=FILE, bs=BYTES (512 if not given), count=N and skip=N.",
      .arguments = {{.name = "OPERAND", .repeats = true, .complete = Complete::file}},
      .options = image_option::withUsual({image_option::format("The source's format; otherwise by its content."),
                                          {.name = "output-format",
                                           .letter = 'O',
                                           .value = "FORMAT",
                                           .help = "The target's format; otherwise by its name's suffix, or raw."}}),
      .examples = {{"lodge image dd if=disk.qcow2 of=start.raw bs=1M count=1", "The first megabyte."}},
      .run = runDd,
  };
}

}  // namespace lodge::cli
