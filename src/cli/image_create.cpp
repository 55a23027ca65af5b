// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/image_target.h"
#include "cli/layout.h"

namespace lodge::cli {

using image::FormatDriver;

std::string settingsHelp(const FormatDriver& driver) {
  std::string text = fmt::format("Settings of {} images:\n", driver.name);
  for (const image::FormatOption& option : driver.options) {
    std::string term = fmt::format("{}={}", option.name, option.value);
    std::string about(option.help);
    if (!option.initial.empty()) about += fmt::format(" {} if not given.", option.initial);
    text += definition(term, about, 40, outputWidth());
  }
  return driver.options.empty() ? fmt::format("{} images have no settings.\n", driver.name) : text;
}

bool asksForSettings(const Invocation& invocation) {
  for (const std::string& given : invocation.all("option")) {
    if (given == "help" || given == "?") return true;
  }
  return false;
}

Result<const FormatDriver*> targetFormat(const std::string& named, const std::string& path, const Program& program) {
  if (!named.empty()) return image::formatNamed(named);
  const FormatDriver* driver = program.qemuImg ? nullptr : image::formatOfSuffix(path);
  return driver ? driver : image::findFormat("raw");
}

namespace {

/// In qemu-img's words.
Error noBackingFormat(const std::string& path, std::string hint) {
  return Error(ErrorKind::invalidArgument, path + ": Backing file specified without backing format")
      .withHint(std::move(hint));
}

/// The backing image's size, and its format where it was not given.
Status lookAtBacking(const Invocation& invocation, const Program& program, image::CreateRequest& request,
                     std::uint64_t& bytes) {
  // The name counts from the new image's folder.
  image::OpenContext context;
  context.path = request.path;
  context.files = &image::hostFiles();
  context.options.paths = image::PathPolicy::anywhere;
  auto path = image::resolveName(context, request.backingName);
  if (!path) return std::move(path).error();
  auto options = openOptions(invocation, program, false);
  if (!options) return std::move(options).error();
  auto backing = image::openImage(*path, request.backingFormat, *options);
  if (!backing) return std::move(backing).error().context("backing image");
  bytes = (*backing)->size();
  auto info = (*backing)->info();
  if (request.backingFormat.empty() && info && program.qemuImg)
    return noBackingFormat(request.path, "Detected format of " + info->format);
  if (request.backingFormat.empty() && info) request.backingFormat = info->format;
  return {};
}

/// What was made.
struct Made {
  std::string path;
  std::string_view format;
  std::uint64_t bytes = 0;
};

Status create(const Invocation& invocation, const Program& program, const FormatDriver& driver, Made& made) {
  image::CreateRequest request{.path = invocation.arguments()[0], .replace = true};
  auto settings = imageSettings(invocation);
  if (!settings) return std::move(settings).error();
  request.options = std::move(*settings);
  request.backingName = takeSetting(request, "backing_file", invocation.value("backing"));
  request.backingFormat = takeSetting(request, "backing_fmt", invocation.value("backing-format"));
  std::string sizeText = takeSetting(request, "size", "");
  if (invocation.arguments().size() > 1) sizeText = invocation.arguments()[1];
  std::uint64_t backingBytes = 0;
  if (!request.backingName.empty() && !(invocation.has("unsafe") && !sizeText.empty())) {
    if (Status seen = lookAtBacking(invocation, program, request, backingBytes); !seen) return seen;
  }
  if (program.qemuImg && !request.backingName.empty() && request.backingFormat.empty())
    return noBackingFormat(request.path, "give -F");
  if (sizeText.empty() && request.backingName.empty())
    return Error(ErrorKind::invalidArgument, "the new disk needs a size").withHint("lodge image create FILE SIZE");
  auto bytes = sizeText.empty() ? Result<std::uint64_t>(backingBytes) : imageSize(sizeText);
  if (!bytes) return std::move(bytes).error();
  request.bytes = *bytes;
  made = {request.path, driver.name, request.bytes};
  if (program.qemuImg && !invocation.has("quiet"))
    print(fmt::format("Formatting '{}', fmt={} size={}\n", request.path, driver.name == "vhd" ? "vpc" : driver.name,
                      request.bytes));
  bool several = hasSeveralFiles(driver, request);
  std::string path = request.path;
  ProgressBar bar(invocation, program);
  if (request.options.contains("preallocation")) request.progress = bar.callback();
  auto fresh = FreshFile::begin(path, several);
  if (!fresh) return std::move(fresh).error();
  request.path = (*fresh)->path();
  request.finalPath = path;
  if (Status done = image::createImage(driver, request); !done) return std::move(done).error().context(inQuotes(path));
  return (*fresh)->commit();
}

int run(const Invocation& invocation, const Program& program) {
  auto driver = targetFormat(invocation.value("format"), invocation.arguments()[0], program);
  if (!driver) return imageFail(program, driver.error());
  if (asksForSettings(invocation))
    return print(settingsHelp(**driver)) ? exit_status::kSuccess : exit_status::kLodgeError;
  Made made;
  if (Status done = create(invocation, program, **driver, made); !done) return imageFail(program, done.error());
  if (!wantsJson(invocation)) return exit_status::kSuccess;
  return printJson({{"filename", made.path}, {"format", made.format}, {"virtual-size", made.bytes}});
}

}  // namespace

VerbSpec imageCreate() {
  return {
      .name = "image create",
      .summary = "make an empty disk image",
      .description =
          "Makes an image of an empty disk, in the format that its name's suffix tells. With a backing image the new "
          "disk has that one's content, and keeps only what is changed. An old file of that name is replaced.",
      .arguments = {{.name = "FILE", .complete = Complete::file}, {.name = "SIZE", .required = false}},
      .options = {image_option::format("The new image's format; otherwise by its name's suffix, or raw."),
                  image_option::settings(),
                  {.name = "backing",
                   .letter = 'b',
                   .value = "FILE",
                   .help = "The backing image.",
                   .complete = Complete::file},
                  {.name = "backing-format",
                   .letter = 'F',
                   .value = "FORMAT",
                   .help = "Its format; otherwise by its content."},
                  {.name = "unsafe", .letter = 'u', .help = "Do not look at the backing image."},
                  image_option::progress(),
                  image_option::quiet(),
                  image_option::allowPath(),
                  image_option::output(),
                  image_option::json()},
      .examples = {{"lodge image create disk.qcow2 20G", "An empty disk that grows as it is written."},
                   {"lodge image create -b base.qcow2 web.qcow2", "A disk with the content of another."},
                   {"lodge image create -f vmdk -o help x", "The settings that VMDK images have."}},
      .run = run,
  };
}

}  // namespace lodge::cli
