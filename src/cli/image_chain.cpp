// SPDX-License-Identifier: Apache-2.0
// rebase and commit: images and what they are based on.
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/layout.h"

namespace lodge::cli {

namespace {

Result<std::string> pathOf(const std::string& top, const std::string& backing, const image::OpenOptions& options) {
  image::OpenContext context;
  context.path = top;
  context.options = options;
  context.files = &image::hostFiles();
  return image::resolveName(context, backing);
}

Status rebase(const Invocation& invocation, const Program& program) {
  const std::string& path = invocation.arguments()[0];
  if (!invocation.has("backing"))
    return Error(ErrorKind::invalidArgument, "which backing image?").withHint("give -b FILE, or -b '' for none");
  std::string name = invocation.value("backing"), format = invocation.value("backing-format");
  auto options = openOptions(invocation, program, true);
  if (!options) return std::move(options).error();
  std::unique_ptr<image::Image> backing;
  if (!name.empty() && !invocation.has("unsafe")) {
    image::OpenOptions own = *options;
    own.file.readOnly = true;
    own.paths = image::PathPolicy::anywhere;  // the user names it
    auto where = pathOf(path, name, own);
    if (!where) return std::move(where).error();
    auto opened = image::openImage(*where, format, own);
    if (!opened) return std::move(opened).error().context("new backing image");
    backing = std::move(*opened);
    auto info = backing->info();
    if (format.empty() && info) format = info->format;
  }
  auto image = openFor(invocation, program, path, true, !invocation.has("unsafe"));
  if (!image) return std::move(image).error();
  if (!invocation.has("unsafe")) {
    ProgressBar bar(invocation, program);
    if (Status done = image::rebaseContent(**image, backing.get(), bar.callback()); !done) return done;
  }
  return (*image)->changeBacking(name, format);
}

/// The image of the chain that takes the content: the one right behind, or the one that -b names.
Status commit(const Invocation& invocation, const Program& program) {
  const std::string& path = invocation.arguments()[0];
  if (invocation.has("backing"))
    return Error(ErrorKind::unsupported, "commit goes to the image right behind")
        .withHint("commit one after the other");
  auto options = openOptions(invocation, program, true);
  if (!options) return std::move(options).error();
  std::string base, format;
  {
    image::OpenOptions look = *options;
    look.openBacking = false;
    look.file.readOnly = true;
    auto top = image::openImage(path, invocation.value("format"), look);
    if (!top) return std::move(top).error();
    auto info = (*top)->info();
    if (!info) return std::move(info).error();
    if (info->backingName.empty()) return Error(ErrorKind::invalidArgument, inQuotes(path) + " has no backing image");
    auto where = pathOf(path, info->backingName, look);
    if (!where) return std::move(where).error();
    base = *where;
    format = info->backingFormat;
  }
  // Alone: its backing image is opened for writing. What it does not have is there already.
  image::OpenOptions alone = *options;
  alone.openBacking = false;
  auto top = image::openImage(path, invocation.value("format"), alone);
  if (!top) return std::move(top).error();
  auto below = image::openImage(base, format, *options);
  if (!below) return std::move(below).error().context("backing image");
  ProgressBar bar(invocation, program);
  if (Status done = image::commitContent(**top, **below, bar.callback()); !done) return done;
  return invocation.has("keep") ? Status() : (*top)->makeEmpty();
}

int finish(const Invocation& invocation, const Program& program, const Status& done, const char* text) {
  if (!done) return imageFail(program, done.error());
  if (wantsJson(invocation)) return printJson({{"filename", invocation.arguments()[0]}, {"done", true}});
  if (program.qemuImg && *text && !invocation.has("quiet")) print(text);
  return exit_status::kSuccess;
}

}  // namespace

VerbSpec imageRebase() {
  return {
      .name = "image rebase",
      .summary = "give an image another backing image",
      .description =
          "Changes what an image is based on. Where the new backing image has other content than the old one, that is "
          "copied into the image, so that its disk stays the same. An empty name makes it stand alone.",
      .arguments = {{.name = "FILE", .complete = Complete::file}},
      .options = {{.name = "backing",
                   .letter = 'b',
                   .value = "FILE",
                   .help = "The new backing image, as seen from the image's folder.",
                   .complete = Complete::file},
                  {.name = "backing-format",
                   .letter = 'F',
                   .value = "FORMAT",
                   .help = "Its format; otherwise by its content."},
                  {.name = "unsafe",
                   .letter = 'u',
                   .help = "Only write the name: the content is known to be the same, or the old one is gone."},
                  image_option::format(),
                  image_option::cache("writeback"),
                  image_option::sourceCache(),
                  image_option::progress(),
                  image_option::quiet(),
                  image_option::share(),
                  image_option::allowPath(),
                  image_option::output(),
                  image_option::json()},
      .examples = {{"lodge image rebase -b '' web.qcow2", "All of the content into the image itself."}},
      .run = [](const Invocation& invocation,
                const Program& program) { return finish(invocation, program, rebase(invocation, program), ""); },
  };
}

VerbSpec imageCommit() {
  return {
      .name = "image commit",
      .summary = "write an image's changes into its backing image",
      .description = "Writes what an image has of its own into the image that it is based on, and empties it.",
      .arguments = {{.name = "FILE", .complete = Complete::file}},
      .options = {{.name = "keep", .letter = 'd', .help = "Do not empty the image."},
                  {.name = "backing",
                   .letter = 'b',
                   .value = "FILE",
                   .help = "Must be left out: the changes go to the image right behind."},
                  image_option::format(),
                  image_option::cache("writeback"),
                  image_option::progress(),
                  image_option::quiet(),
                  image_option::allowPath(),
                  image_option::output(),
                  image_option::json()},
      .examples = {{"lodge image commit web.qcow2", "Make the changes permanent."}},
      .run =
          [](const Invocation& invocation, const Program& program) {
            return finish(invocation, program, commit(invocation, program), "Image committed.\n");
          },
  };
}

}  // namespace lodge::cli
