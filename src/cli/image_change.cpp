// SPDX-License-Identifier: Apache-2.0
// resize and snapshot.
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/image_snapshot_list.h"
#include "cli/layout.h"

namespace lodge::cli {

namespace {

Status resize(const Invocation& invocation, const Program& program, std::uint64_t& newBytes) {
  std::string size = invocation.arguments()[1];
  char sign = size.empty() ? '\0' : size[0];
  bool relative = sign == '+' || sign == '-';
  auto bytes = imageSize(relative ? size.substr(1) : size);
  if (!bytes) return std::move(bytes).error();
  auto preallocation = image::parsePreallocation(invocation.value("preallocation", "off"));
  if (!preallocation) return std::move(preallocation).error();
  auto image = openFor(invocation, program, invocation.arguments()[0], true);
  if (!image) return std::move(image).error();
  std::uint64_t old = (*image)->size();
  if (sign == '-' && *bytes > old) return Error(ErrorKind::invalidArgument, "the disk is smaller than that");
  newBytes = relative ? (sign == '+' ? old + *bytes : old - *bytes) : *bytes;
  // Disks consist of sectors. The program qemu-img says so, but for raw images.
  if (program.qemuImg && newBytes % 512 != 0) {
    auto info = (*image)->info();
    if (!info || info->format != "raw")
      return Error(ErrorKind::invalidArgument, "The new size must be a multiple of 512");
  }
  newBytes = (newBytes + 511) / 512 * 512;
  if (newBytes < old && !invocation.has("shrink"))
    return Error(ErrorKind::invalidArgument, fmt::format("the disk has {} now: what lies beyond {} would be lost",
                                                         formatSize(old), formatSize(newBytes)))
        .withHint("shrink the file systems in it first, then give --shrink");
  ProgressBar bar(invocation, program);
  if (*preallocation != image::Preallocation::off) (*image)->onProgress(bar.callback());
  if (Status done = (*image)->resize(newBytes, *preallocation); !done) return done;
  if (int error = (*image)->flush(); error != 0) return Error::fromErrno(error, "flush");
  return {};
}

int runResize(const Invocation& invocation, const Program& program) {
  std::uint64_t bytes = 0;
  if (Status done = resize(invocation, program, bytes); !done) return imageFail(program, done.error());
  if (wantsJson(invocation)) return printJson({{"filename", invocation.arguments()[0]}, {"virtual-size", bytes}});
  if (program.qemuImg && !invocation.has("quiet")) print("Image resized.\n");
  return exit_status::kSuccess;
}

int listSnapshots(const Invocation& invocation, const Program& program) {
  auto image = openFor(invocation, program, invocation.arguments()[0], false, false);
  if (!image) return imageFail(program, image.error());
  auto info = (*image)->info();
  if (!info) return imageFail(program, info.error());
  if (wantsJson(invocation)) {
    Json all = Json::array();
    for (const auto& s : info->snapshots) all.push_back(snapshotJson(s));
    return printJson(all);
  }
  if (info->snapshots.empty()) return exit_status::kSuccess;
  return print("Snapshot list:\n" + snapshotTable(info->snapshots)) ? exit_status::kSuccess : exit_status::kLodgeError;
}

int runSnapshot(const Invocation& invocation, const Program& program) {
  int asked = 0;
  for (const char* action : {"create", "apply", "delete"}) asked += invocation.has(action) ? 1 : 0;
  if (asked == 0) return listSnapshots(invocation, program);
  if (asked > 1 || invocation.has("list"))
    return imageFail(program, Error(ErrorKind::invalidArgument, "one of -l, -c, -a and -d at a time"));
  auto image = openFor(invocation, program, invocation.arguments()[0], true, false);
  if (!image) return imageFail(program, image.error());
  Status done;
  if (invocation.has("create"))
    done = (*image)->createSnapshot(invocation.value("create"));
  else if (invocation.has("apply"))
    done = (*image)->applySnapshot(invocation.value("apply"));
  else
    done = (*image)->deleteSnapshot(invocation.value("delete"));
  if (!done) return imageFail(program, done.error());
  return wantsJson(invocation) ? printJson({{"filename", invocation.arguments()[0]}, {"done", true}})
                               : exit_status::kSuccess;
}

}  // namespace

VerbSpec imageResize() {
  return {
      .name = "image resize",
      .summary = "make a disk larger or smaller",
      .description = "Changes the disk's size, to SIZE or by +SIZE or -SIZE. What is added reads as zero.",
      .arguments = {{.name = "FILE", .complete = Complete::file}, {.name = "[+|-]SIZE"}},
      .options = {image_option::format(),
                  {.name = "shrink", .help = "Allow the disk to become smaller: what lies beyond is lost."},
                  {.name = "preallocation",
                   .value = "MODE",
                   .help = "Reserve room for what is added.",
                   .choices = {"off", "metadata", "falloc", "full"}},
                  image_option::progress(),
                  image_option::quiet(),
                  image_option::allowPath(),
                  image_option::output(),
                  image_option::json()},
      .examples = {{"lodge image resize disk.qcow2 +10G", "Ten gigabytes more."}},
      .run = runResize,
  };
}

VerbSpec imageSnapshot() {
  return {
      .name = "image snapshot",
      .summary = "list, make, go back to and delete internal snapshots",
      .description =
          "Works on the snapshots that an image keeps inside. Without an action they are listed. No machine may be "
          "using the image.",
      .arguments = {{.name = "FILE", .complete = Complete::file}},
      .options =
          {{.name = "list", .letter = 'l', .help = "List them."},
           {.name = "create", .letter = 'c', .value = "NAME", .help = "Keep the disk's content under this name."},
           {.name = "apply",
            .letter = 'a',
            .value = "SNAPSHOT",
            .help = "Go back to a snapshot: what is on the disk now is lost."},
           {.name = "delete", .letter = 'd', .value = "SNAPSHOT", .help = "Forget a snapshot."},
           image_option::format(),
           image_option::quiet(),
           image_option::share(),
           image_option::allowPath(),
           image_option::output(),
           image_option::json()},
      .examples = {{"lodge image snapshot -c clean disk.qcow2", "Keep what is on the disk now."},
                   {"lodge image snapshot -a clean disk.qcow2", "Go back to it."}},
      .run = runSnapshot,
  };
}

}  // namespace lodge::cli
