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
  if (program.qemuImg && !name.empty() && format.empty())
    return Error(ErrorKind::invalidArgument,
                 fmt::format("Could not change the backing file to '{}': backing format must "
                             "be specified",
                             name))
        .withHint("give -F");
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

struct Layer {
  std::string path, format;
};

/// What an image is based on. Errors: invalidArgument (nothing).
Result<Layer> behind(const Layer& layer, const image::OpenOptions& options) {
  image::OpenOptions look = options;
  look.openBacking = false;
  look.file.readOnly = true;
  auto image = image::openImage(layer.path, layer.format, look);
  if (!image) return std::move(image).error();
  auto info = (*image)->info();
  if (!info) return std::move(info).error();
  if (info->backingName.empty())
    return Error(ErrorKind::invalidArgument, inQuotes(layer.path) + " has no backing image");
  auto path = pathOf(layer.path, info->backingName, look);
  if (!path) return std::move(path).error();
  return Layer{*path, info->backingFormat};
}

bool sameFile(const std::string& a, const std::string& b) {
  auto one = image::hostFiles().canonical(a), other = image::hostFiles().canonical(b);
  return one && other ? *one == *other : a == b;
}

/// From the top to the image that takes the content, that one included: the one right behind, or the one that -b names.
Result<std::vector<Layer>> layersToCommit(const Invocation& invocation, const image::OpenOptions& options) {
  constexpr std::size_t kMost = 256;
  std::string base = invocation.value("backing");
  std::vector<Layer> layers = {{invocation.arguments()[0], invocation.value("format")}};
  do {
    auto next = behind(layers.back(), options);
    if (!next && layers.size() > 1)
      return Error(ErrorKind::invalidArgument, inQuotes(base) + " is not among the images that it is based on")
          .withHint("'lodge image info --backing-chain' lists them");
    if (!next) return std::move(next).error();
    layers.push_back(std::move(*next));
    if (layers.size() > kMost) return Error(ErrorKind::corrupt, "the backing chain is too long, or a loop");
  } while (!base.empty() && !sameFile(layers.back().path, base));
  return layers;
}

Status commit(const Invocation& invocation, const Program& program) {
  auto options = openOptions(invocation, program, true);
  if (!options) return std::move(options).error();
  auto layers = layersToCommit(invocation, *options);
  if (!layers) return std::move(layers).error();
  // Images between the two would read as something else without theirs, so the top one keeps its content.
  bool empty = !invocation.has("keep") && layers->size() == 2;
  // Each alone: the base is opened for writing. What the others do not have is there already.
  std::vector<std::unique_ptr<image::Image>> open;
  for (std::size_t i = 0; i + 1 < layers->size(); ++i) {
    image::OpenOptions alone = *options;
    alone.openBacking = false;
    alone.file.readOnly = i != 0 || !empty;
    auto layer = image::openImage((*layers)[i].path, (*layers)[i].format, alone);
    if (!layer) return std::move(layer).error();
    open.push_back(std::move(*layer));
  }
  auto base = image::openImage(layers->back().path, layers->back().format, *options);
  if (!base) return std::move(base).error().context("backing image");
  ProgressBar bar(invocation, program);
  if (Status done = image::commitContent(open, **base, bar.callback()); !done) return done;
  return empty ? open.front()->makeEmpty() : Status();
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
      .options = image_option::withUsual(
          {{.name = "backing",
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
           image_option::sourceCache()}),
      .examples = {{"lodge image rebase -b '' web.qcow2", "All of the content into the image itself."}},
      .run = [](const Invocation& invocation,
                const Program& program) { return finish(invocation, program, rebase(invocation, program), ""); },
  };
}

VerbSpec imageCommit() {
  return {
      .name = "image commit",
      .summary = "write an image's changes into its backing image",
      .description =
          "Writes what an image has of its own into the image that it is based on, and empties it. With -b the changes "
          "of several layers go into one further down; the top one is not emptied then.",
      .arguments = {{.name = "FILE", .complete = Complete::file}},
      .options = {{.name = "keep", .letter = 'd', .help = "Do not empty the image."},
                  {.name = "backing",
                   .letter = 'b',
                   .value = "FILE",
                   .help = "The image of the chain that takes the changes; the one right behind if not given. Those "
                           "between are not to be used any more.",
                   .complete = Complete::file},
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
