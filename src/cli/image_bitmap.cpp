// SPDX-License-Identifier: Apache-2.0
// bitmap: the persistent dirty bitmaps of an image.
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/layout.h"

namespace lodge::cli {

using image::BitmapStore;
using image::Image;

namespace {

Result<BitmapStore*> bitmapsOf(Image& image, const std::string& path) {
  BitmapStore* store = image.bitmaps();
  if (!store) return Error(ErrorKind::unsupported, inQuotes(path) + ": its format has no dirty bitmaps");
  return store;
}

Status merge(const Invocation& invocation, const Program& program, BitmapStore& store, const std::string& name,
             const std::string& other) {
  std::string path = invocation.value("source-file");
  if (path.empty()) return store.merge(name, store, other);
  auto options = openOptions(invocation, program, false);
  if (!options) return std::move(options).error();
  options->openBacking = false;
  auto source = image::openImage(path, invocation.value("source-format"), *options);
  if (!source) return std::move(source).error();
  auto from = bitmapsOf(**source, path);
  if (!from) return std::move(from).error();
  return store.merge(name, **from, other);
}

/// Whatever the order they are given in: what makes sense together does so in this one.
Status change(const Invocation& invocation, const Program& program, BitmapStore& store, const std::string& name) {
  std::uint64_t granularity = 0;
  if (invocation.has("granularity")) {
    auto bytes = imageSize(invocation.value("granularity"));
    if (!bytes) return std::move(bytes).error();
    if (*bytes == 0) return Error(ErrorKind::invalidArgument, "granularity 0").withHint("use a power of two from 512");
    granularity = *bytes;
  }
  auto asked = [&](const char* action) { return invocation.has(action); };
  Status done;
  if (asked("remove")) done = store.remove(name);
  if (done && asked("add")) done = store.add(name, granularity, true);
  if (done && asked("clear")) done = store.clear(name);
  for (const std::string& other : invocation.all("merge")) {
    if (done) done = merge(invocation, program, store, name, other);
  }
  if (done && (asked("enable") || asked("disable"))) done = store.setRecording(name, asked("enable"));
  return done;
}

Json bitmapJson(const image::BitmapInfo& bitmap) {
  return {{"name", bitmap.name},
          {"granularity", bitmap.granularity},
          {"recording", bitmap.recording},
          {"inconsistent", bitmap.inUse}};
}

int list(const Invocation& invocation, const Program& program) {
  const std::string& path = invocation.arguments()[0];
  auto image = openFor(invocation, program, path, false, false);
  if (!image) return imageFail(program, image.error());
  auto store = bitmapsOf(**image, path);
  auto all = store ? (*store)->list() : Result<std::vector<image::BitmapInfo>>(store.error());
  if (!all) return imageFail(program, all.error());
  if (wantsJson(invocation)) {
    Json out = Json::array();
    for (const image::BitmapInfo& bitmap : *all) out.push_back(bitmapJson(bitmap));
    return printJson(out);
  }
  std::vector<std::vector<std::string>> rows = {{"NAME", "GRANULARITY", "STATE"}};
  for (const image::BitmapInfo& bitmap : *all) {
    std::string state = bitmap.inUse ? "inconsistent" : bitmap.recording ? "recording" : "disabled";
    rows.push_back({inQuotes(bitmap.name), formatSize(bitmap.granularity), state});
  }
  return all->empty() || print(columns(rows, {1})) ? exit_status::kSuccess : exit_status::kLodgeError;
}

int run(const Invocation& invocation, const Program& program) {
  int asked = 0;
  for (const char* action : {"add", "remove", "clear", "enable", "disable", "merge"})
    asked += invocation.has(action) ? 1 : 0;
  auto wrong = [&](const char* what) { return imageFail(program, Error(ErrorKind::invalidArgument, what)); };
  if (asked == 0 && invocation.arguments().size() == 1 && !program.qemuImg) return list(invocation, program);
  if (asked == 0) return wrong("need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
  if (invocation.arguments().size() < 2) return wrong("Expecting filename and bitmap name");
  if (invocation.has("granularity") && !invocation.has("add")) return wrong("granularity only supported with --add");
  if (invocation.has("source-file") && !invocation.has("merge"))
    return wrong("Merge bitmap source file only supported with --merge");
  if (invocation.has("enable") && invocation.has("disable")) return wrong("either --enable or --disable");
  const std::string& path = invocation.arguments()[0];
  auto image = openFor(invocation, program, path, true, false);
  if (!image) return imageFail(program, image.error());
  auto store = bitmapsOf(**image, path);
  if (!store) return imageFail(program, store.error());
  if (Status done = change(invocation, program, **store, invocation.arguments()[1]); !done)
    return imageFail(program, done.error());
  return wantsJson(invocation) ? printJson({{"filename", path}, {"done", true}}) : exit_status::kSuccess;
}

}  // namespace

VerbSpec imageBitmap() {
  return {
      .name = "image bitmap",
      .summary = "list, make, change and remove dirty bitmaps",
      .description =
          "Works on the persistent dirty bitmaps that a qcow2 image keeps: what has changed since a backup. Without an "
          "action they are listed. Several actions are done in this order: remove, add, clear, merge, enable or "
          "disable. No "
          "machine may be using the image.",
      .arguments = {{.name = "FILE", .complete = Complete::file}, {.name = "BITMAP", .required = false}},
      .options =
          {{.name = "add", .help = "Make a bitmap in which nothing is dirty, and which records changes."},
           {.name = "remove", .help = "Remove it."},
           {.name = "clear", .help = "Forget what it noted."},
           {.name = "enable", .help = "Record changes from now on."},
           {.name = "disable", .help = "Keep it as it is."},
           {.name = "merge", .value = "SOURCE", .help = "Add what the bitmap SOURCE has noted.", .repeats = true},
           {.name = "granularity",
            .letter = 'g',
            .value = "SIZE",
            .help = "With --add: how much of the disk one bit stands for; the cluster size if not given, within "
                    "4 KiB and 64 KiB."},
           {.name = "source-file",
            .letter = 'b',
            .value = "FILE",
            .help = "With --merge: the image that has SOURCE.",
            .complete = Complete::file},
           {.name = "source-format", .letter = 'F', .value = "FORMAT", .help = "Its format."},
           image_option::format(),
           image_option::allowPath(),
           image_option::output(),
           image_option::json()},
      .examples = {{"lodge image bitmap --add disk.qcow2 monday", "Note from now on what changes."},
                   {"lodge image bitmap disk.qcow2", "Which there are."}},
      .run = run,
  };
}

}  // namespace lodge::cli
