// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/layout.h"

namespace lodge::cli {

using image::CheckResult;
using image::Repair;

namespace {

Json toJson(const std::string& path, const std::string& format, const CheckResult& r) {
  Json out = {{"filename", path}, {"format", format}, {"check-errors", r.checkErrors}};
  auto add = [&](const char* name, std::uint64_t value) {
    if (value != 0) out[name] = value;
  };
  add("image-end-offset", r.imageEnd);
  add("total-clusters", r.totalClusters);
  add("allocated-clusters", r.allocatedClusters);
  add("fragmented-clusters", r.fragmentedClusters);
  add("compressed-clusters", r.compressedClusters);
  add("corruptions", r.corruptions);
  add("leaks", r.leaks);
  add("corruptions-fixed", r.corruptionsFixed);
  add("leaks-fixed", r.leaksFixed);
  return out;
}

std::string toText(const CheckResult& r) {
  std::string out;
  for (const std::string& message : r.messages) out += message + "\n";
  if (r.corruptionsFixed + r.leaksFixed != 0)
    out += fmt::format("Repaired: {} leaked, {} corrupt.\n", r.leaksFixed, r.corruptionsFixed);
  if (r.corruptions != 0)
    out += fmt::format(
        "\n{} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n",
        r.corruptions);
  if (r.leaks != 0)
    out += fmt::format(
        "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n",
        r.leaks);
  if (r.checkErrors != 0) out += fmt::format("\n{} places could not be checked.\n", r.checkErrors);
  if (r.corruptions + r.leaks + r.checkErrors == 0) out += "No errors were found on the image.\n";
  if (r.totalClusters != 0) {
    auto percent = [](std::uint64_t part, std::uint64_t whole) {
      return whole == 0 ? 0.0 : static_cast<double>(part) * 100 / static_cast<double>(whole);
    };
    out += fmt::format("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n",
                       r.allocatedClusters, r.totalClusters, percent(r.allocatedClusters, r.totalClusters),
                       percent(r.fragmentedClusters, r.allocatedClusters),
                       percent(r.compressedClusters, r.allocatedClusters));
  }
  if (r.imageEnd != 0) out += fmt::format("Image end offset: {}\n", r.imageEnd);
  return out;
}

int statusOf(const Program& program, const CheckResult& r) {
  if (program.qemuImg) return r.checkErrors != 0 ? 1 : r.corruptions != 0 ? 2 : r.leaks != 0 ? 3 : 0;
  return r.checkErrors + r.corruptions + r.leaks == 0 ? exit_status::kSuccess : exit_status::kUsage;
}

int run(const Invocation& invocation, const Program& program) {
  const std::string& path = invocation.arguments()[0];
  Repair repair = Repair::none;
  if (invocation.has("repair")) repair = invocation.value("repair") == "all" ? Repair::all : Repair::leaks;
  auto options = openOptions(invocation, program, repair != Repair::none);
  if (!options) return imageFail(program, options.error());
  options->openBacking = false;
  options->forCheck = true;
  auto image = image::openImage(path, invocation.value("format"), *options);
  if (!image) return imageFail(program, image.error());
  auto info = (*image)->info();
  auto result = [&] {
    ProgressBar bar(invocation, program);
    (*image)->onProgress(bar.callback());
    return (*image)->check(repair);
  }();
  if (!result) {
    if (ProgressBar::interrupted()) return imageFail(program, Error(ErrorKind::interrupted, "interrupted"));
    int status = imageFail(program, std::move(result).error().context("check " + inQuotes(path)));
    return program.qemuImg ? 63 : status;
  }
  if (wantsJson(invocation)) {
    printJson(toJson(path, info ? info->format : "", *result));
  } else if (!invocation.has("quiet")) {
    print(toText(*result));
  }
  return statusOf(program, *result);
}

}  // namespace

VerbSpec imageCheck() {
  return {
      .name = "image check",
      .summary = "look for errors in a disk image, and repair them",
      .description =
          "Checks an image's own tables. Leaked clusters waste room and are harmless; corruption endangers data. The "
          "exit "
          "status is 0 if nothing is left to complain about, else 2.",
      .arguments = {{.name = "FILE", .complete = Complete::file}},
      .options = {image_option::format(),
                  {.name = "repair",
                   .letter = 'r',
                   .value = "WHAT",
                   .help = "Repair: reclaim what leaked, or correct all that can be.",
                   .choices = {"leaks", "all"}},
                  image_option::output(),
                  image_option::json(),
                  image_option::progress(),
                  image_option::quiet(),
                  image_option::sourceCache(),
                  image_option::cache("writeback"),
                  image_option::share(),
                  image_option::allowPath()},
      .examples = {{"lodge image check -r leaks disk.qcow2", "Give back what a crash left."}},
      .run = run,
  };
}

}  // namespace lodge::cli
