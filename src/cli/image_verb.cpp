// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "cli/image_common.h"
#include "cli/verbs.h"

namespace lodge::cli {

VerbSpec imageVerb() {
  std::vector<VerbSpec> verbs = {imageCreate(),   imageInfo(),   imageCheck(),  imageConvert(), imageResize(),
                                 imageSnapshot(), imageRebase(), imageCommit(), imageCompare(), imageMap(),
                                 imageMeasure(),  imageBitmap(), imageDd(),     imageBench(),   imageImport(),
                                 imageExport(),   imageServe()};
  std::vector<Item> formats;
  for (const image::FormatDriver* driver : image::allFormats()) {
    std::string suffixes;
    for (std::string_view suffix : driver->suffixes) suffixes += fmt::format(" .{}", suffix);
    formats.push_back(
        {std::string(driver->name),
         fmt::format("{} ({})", driver->summary, suffixes.substr(std::min<std::size_t>(1, suffixes.size())))});
  }
  return {
      .name = "image",
      .summary = "make, convert, check and change disk images",
      .description =
          "Works on disk images of all kinds. The format of what is read is found by its content, that of what is "
          "written by its name's suffix. Wherever a file is named, an address of an NBD server can be, too.",
      .sections = {{"Formats", "", formats}},
      .examples = {{"lodge image convert windows.vmdk windows.qcow2", "From VMware to here."}},
      .verbs = std::move(verbs),
  };
}

}  // namespace lodge::cli
