// SPDX-License-Identifier: Apache-2.0
// compare, map and measure: looking at content.
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/image_target.h"
#include "cli/layout.h"

namespace lodge::cli {

using image::BlockStatus;
using image::Image;

namespace {

int runCompare(const Invocation& invocation, const Program& program) {
  auto trouble = [&](const Error& error) {
    int status = imageFail(program, error);
    return program.qemuImg ? 2 : status;
  };
  const auto& names = invocation.arguments();
  auto options = openOptions(invocation, program, false);
  if (!options) return trouble(options.error());
  auto one = image::openImage(names[0], invocation.value("format"), *options);
  if (!one) return trouble(one.error());
  auto other = image::openImage(names[1], invocation.value("second-format"), *options);
  if (!other) return trouble(other.error());
  Result<image::Difference> result = Error(ErrorKind::internal, "");
  {
    ProgressBar bar(invocation, program);
    result = image::compareContent(**one, **other, invocation.has("strict"), bar.callback());
  }
  if (!result) return trouble(result.error());
  if (wantsJson(invocation)) {
    Json out = {{"identical", result->same}};
    if (!result->same) out["offset"] = result->offset;
    printJson(out);
  } else if (!invocation.has("quiet")) {
    print(result->same    ? "Images are identical.\n"
          : result->sizes ? "Strict mode: Image size mismatch!\n"
                          : fmt::format("Content mismatch at offset {}!\n", result->offset));
  }
  if (result->same) return exit_status::kSuccess;
  return program.qemuImg ? 1 : exit_status::kUsage;
}

constexpr std::size_t kPrintAtOnce = 64 << 10;

/// A range of the disk, and what it comes from.
struct MapEntry {
  std::uint64_t start = 0, length = 0, depth = 0;
  bool present = true;  // allocated somewhere in the chain
  BlockStatus status{};
};

Result<MapEntry> entryAt(Image& top, std::uint64_t at, std::uint64_t length) {
  MapEntry entry{.start = at};
  for (Image* layer = &top;;) {
    if (int error = layer->blockStatus(at, length, entry.status); error != 0)
      return Error::fromErrno(error, fmt::format("status at 0x{:x}", at));
    entry.length = length = entry.status.length;
    if (entry.status.kind != BlockStatus::Kind::unallocated) return entry;
    Image* below = layer->backing();
    if (!below || at >= below->size()) {
      entry.present = false;
      return entry;
    }
    length = std::min(length, below->size() - at);
    layer = below;
    ++entry.depth;
  }
}

bool joins(const MapEntry& a, const MapEntry& b) {
  const BlockStatus &x = a.status, &y = b.status;
  if (a.depth != b.depth || a.present != b.present || x.kind != y.kind || x.compressed != y.compressed ||
      x.hole != y.hole || x.file != y.file || x.hostOffset.has_value() != y.hostOffset.has_value())
    return false;
  return !x.hostOffset || *x.hostOffset + a.length == *y.hostOffset;
}

/// Tells the ranges one by one: a disk may have more of them than fit into memory.
Status mapOf(Image& image, std::uint64_t begin, std::uint64_t end, const image::Progress& progress,
             const std::function<bool(const MapEntry&)>& tell) {
  std::uint64_t first = begin;
  std::optional<MapEntry> last;
  Error cut(ErrorKind::io, "the output is closed");
  while (begin < end) {
    auto entry = entryAt(image, begin, end - begin);
    if (!entry) return std::move(entry).error();
    begin += entry->length;
    if (last && joins(*last, *entry)) {
      last->length += entry->length;
    } else {
      if (last && !tell(*last)) return cut;
      last = *entry;
    }
    if (!progress(begin - first, end - first)) return Error(ErrorKind::interrupted, "interrupted");
  }
  return !last || tell(*last) ? Status() : Status(std::move(cut));
}

Json toJson(const MapEntry& e) {
  bool data = e.status.kind == BlockStatus::Kind::data;
  Json out = {{"start", e.start},     {"length", e.length}, {"depth", e.depth},
              {"present", e.present}, {"zero", !data},      {"data", data || e.status.hole}};
  if (e.status.hostOffset) out["offset"] = *e.status.hostOffset;
  if (e.status.compressed) out["compressed"] = true;
  return out;
}

std::string toText(const MapEntry& e, const std::string& path) {
  if (e.status.kind != BlockStatus::Kind::data) return {};
  auto hex = [](std::uint64_t number) { return number == 0 ? "0" : fmt::format("{:#x}", number); };
  return fmt::format("{:<16}{:<16}{:<16}{}\n", hex(e.start), hex(e.length),
                     e.status.hostOffset ? hex(*e.status.hostOffset) : "compressed",
                     e.status.file ? e.status.file->name() : path);
}

int runMap(const Invocation& invocation, const Program& program) {
  auto image = openFor(invocation, program, invocation.arguments()[0], false);
  if (!image) return imageFail(program, image.error());
  auto begin = imageSize(invocation.value("start-offset", "0"));
  if (!begin) return imageFail(program, begin.error());
  std::uint64_t from = std::min(*begin, (*image)->size()), end = (*image)->size();
  if (std::string text = invocation.value("max-length"); !text.empty()) {
    auto length = imageSize(text);
    if (!length) return imageFail(program, length.error());
    end = std::min(end, from + *length);
  }
  bool json = wantsJson(invocation), some = false;
  std::string text = json ? "[" : fmt::format("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File");
  // A bar and the list do not share a terminal.
  std::optional<ProgressBar> bar;
  if (!program.qemuImg && (invocation.has("progress") || ::isatty(STDOUT_FILENO) == 0))
    bar.emplace(invocation, program);
  image::Progress progress = bar ? bar->callback() : [](auto...) { return !ProgressBar::interrupted(); };
  Status told = mapOf(**image, from, end, progress, [&](const MapEntry& entry) {
    if (json)
      text += (std::exchange(some, true) ? ",\n" : "") + toJson(entry).dump();
    else
      text += toText(entry, invocation.arguments()[0]);
    return text.size() < kPrintAtOnce || print(std::exchange(text, {}));
  });
  if (!told) return imageFail(program, told.error());
  return print(text + (json ? "]\n" : "")) ? exit_status::kSuccess : exit_status::kLodgeError;
}

Result<image::Measure> measure(const Invocation& invocation, const Program& program) {
  auto driver = image::formatNamed(invocation.value("output-format", program.qemuImg ? "raw" : "qcow2"));
  if (!driver) return std::move(driver).error();
  image::CreateRequest request;
  auto settings = imageSettings(invocation);
  if (!settings) return std::move(settings).error();
  request.options = std::move(*settings);
  if (invocation.arguments().empty()) {
    if (!invocation.has("size")) return Error(ErrorKind::invalidArgument, "give an image, or --size");
    auto bytes = imageSize(invocation.value("size"));
    if (!bytes) return std::move(bytes).error();
    return image::measureImage(**driver, nullptr, *bytes, request);
  }
  auto options = openOptions(invocation, program, false);
  if (!options) return std::move(options).error();
  options->snapshot = snapshotName(invocation.value("snapshot"));
  auto source = image::openImage(invocation.arguments()[0], invocation.value("format"), *options);
  if (!source) return std::move(source).error();
  ProgressBar bar(invocation, program);
  return image::measureImage(**driver, source->get(), 0, request, bar.callback());
}

int runMeasure(const Invocation& invocation, const Program& program) {
  auto result = measure(invocation, program);
  if (!result) return imageFail(program, result.error());
  if (wantsJson(invocation)) {
    Json out = {{"required", result->required}, {"fully-allocated", result->fullyAllocated}};
    if (result->bitmaps) out["bitmaps"] = *result->bitmaps;
    return printJson(out);
  }
  std::string text =
      fmt::format("required size: {}\nfully allocated size: {}\n", result->required, result->fullyAllocated);
  if (result->bitmaps) text += fmt::format("bitmaps size: {}\n", *result->bitmaps);
  return print(text) ? exit_status::kSuccess : exit_status::kLodgeError;
}

}  // namespace

VerbSpec imageCompare() {
  return {
      .name = "image compare",
      .summary = "tell whether two disks have the same content",
      .description =
          "Compares two disks. The rest of a longer one must be zero. The exit status is 0 if they are the same, else "
          "2.",
      .arguments = {{.name = "FILE", .complete = Complete::file}, {.name = "OTHER", .complete = Complete::file}},
      .options = image_option::withUsual(
          {image_option::format("The first one's format; otherwise by its content."),
           {.name = "second-format", .letter = 'F', .value = "FORMAT", .help = "The other one's."},
           {.name = "strict", .letter = 's', .help = "The sizes must be the same, too."},
           image_option::sourceCache()}),
      .examples = {{"lodge image compare disk.vmdk disk.qcow2", "Whether a conversion was true."}},
      .run = runCompare,
  };
}

VerbSpec imageMap() {
  return {
      .name = "image map",
      .summary = "show where a disk's content lies",
      .description =
          "Lists the ranges of a disk that have content, the image of the chain that has it, and where in the file.",
      .arguments = {{.name = "FILE", .complete = Complete::file}},
      .options = {image_option::format(),
                  {.name = "start-offset", .letter = 's', .value = "SIZE", .help = "Begin there."},
                  {.name = "max-length", .letter = 'l', .value = "SIZE", .help = "End after that much."},
                  image_option::progress(),
                  image_option::output(),
                  image_option::json(),
                  image_option::share(),
                  image_option::allowPath()},
      .examples = {{"lodge image map --json disk.qcow2", "Every range, holes too."}},
      .run = runMap,
  };
}

VerbSpec imageMeasure() {
  return {
      .name = "image measure",
      .summary = "tell how large an image file would become",
      .description =
          "Computes the size of a new image file with a disk's content, and of one with everything allocated.",
      .arguments = {{.name = "FILE", .required = false, .complete = Complete::file}},
      .options = {{.name = "output-format", .letter = 'O', .value = "FORMAT", .help = "The new image's format."},
                  {.name = "size", .value = "SIZE", .help = "Of an empty disk of this size, instead of a file's."},
                  image_option::settings(),
                  {.name = "snapshot", .letter = 'l', .value = "SNAPSHOT", .help = "Of an internal snapshot."},
                  image_option::format(),
                  image_option::progress(),
                  image_option::output(),
                  image_option::json(),
                  image_option::share(),
                  image_option::allowPath()},
      .examples = {{"lodge image measure -O qcow2 disk.raw", "Whether it will fit."}},
      .run = runMeasure,
  };
}

}  // namespace lodge::cli
