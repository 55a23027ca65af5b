// SPDX-License-Identifier: Apache-2.0
#include <time.h>

#include <algorithm>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/image_snapshot_list.h"
#include "cli/layout.h"

namespace lodge::cli {

using image::ImageInfo;
using image::InfoValue;

namespace {

/// An image of the chain that is described.
struct Layer {
  std::string path;
  ImageInfo info;
};

std::string dashed(std::string name) {
  std::replace(name.begin(), name.end(), ' ', '-');
  return name;
}

/// As JSON and as text a format is called what the program's users call it.
std::string nameOf(const std::string& format, bool qemu) {
  return qemu && format == "vhd" ? "vpc" : format;
}

Json toJson(const image::InfoField& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

Json toJson(const InfoValue& value) {
  const auto* rows = std::get_if<image::InfoRows>(&value);
  if (!rows) {
    return std::visit(
        [](const auto& v) {
          if constexpr (std::is_same_v<std::decay_t<decltype(v)>, image::InfoRows>)
            return Json();
          else
            return Json(v);
        },
        value);
  }
  Json out = Json::array();
  for (const auto& row : *rows) {
    Json object = Json::object();
    for (const auto& [name, field] : row) object[dashed(name)] = toJson(field);
    out.push_back(std::move(object));
  }
  return out;
}

std::string printable(const std::string& text) {
  std::string quoted = inQuotes(text);
  return quoted.substr(1, quoted.size() - 2);
}

template <class Value>
std::string toText(const Value& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return std::to_string(*number);
  if (const auto* text = std::get_if<std::string>(&value)) return printable(*text);
  if (const auto* list = std::get_if<std::vector<std::string>>(&value)) return printable(join(*list, ", "));
  return {};
}

std::string rowsText(const image::InfoRows& rows) {
  std::string out;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    out += fmt::format("        [{}]:\n", i);
    for (const auto& [name, field] : rows[i]) out += fmt::format("            {}: {}\n", name, toText(field));
  }
  return out;
}

std::string backingPath(const Layer& layer) {
  const std::string& name = layer.info.backingName;
  if (name.starts_with("/") || name.find(':') != std::string::npos) return name;
  std::string folder = image::folderOf(layer.path);
  return folder == "." ? name : folder + "/" + name;
}

Json describe(const Layer& layer, bool qemu) {
  const ImageInfo& info = layer.info;
  Json out = {{"filename", layer.path},
              {"format", nameOf(info.format, qemu)},
              {"virtual-size", info.virtualBytes},
              {"actual-size", info.allocatedBytes},
              {"dirty-flag", info.dirty}};
  if (info.clusterBytes != 0) out["cluster-size"] = info.clusterBytes;
  if (info.encrypted) out["encrypted"] = true;
  if (!info.backingName.empty()) {
    out["backing-filename"] = info.backingName;
    out["full-backing-filename"] = backingPath(layer);
    if (!info.backingFormat.empty()) out["backing-filename-format"] = info.backingFormat;
  }
  for (const image::SnapshotInfo& s : info.snapshots) out["snapshots"].push_back(snapshotJson(s));
  if (!info.files.empty()) out["files"] = info.files;
  Json details = Json::object();
  for (const auto& [name, value] : info.details) details[dashed(name)] = toJson(value);
  if (!details.empty()) out["format-specific"] = {{"type", nameOf(info.format, qemu)}, {"data", details}};
  return out;
}

std::string text(const Layer& layer, bool qemu) {
  const ImageInfo& info = layer.info;
  std::string out = fmt::format("image: {}\nfile format: {}\nvirtual size: {} ({} bytes)\ndisk size: {}\n", layer.path,
                                nameOf(info.format, qemu), formatSize(info.virtualBytes), info.virtualBytes,
                                formatSize(info.allocatedBytes));
  if (info.encrypted) out += "encrypted: yes\n";
  if (info.clusterBytes != 0) out += fmt::format("cluster_size: {}\n", info.clusterBytes);
  if (info.dirty) out += "cleanly shut down: no\n";
  if (!info.backingName.empty()) {
    std::string path = backingPath(layer);
    out +=
        "backing file: " + info.backingName + (path == info.backingName ? "" : " (actual path: " + path + ")") + "\n";
    if (!info.backingFormat.empty()) out += "backing file format: " + info.backingFormat + "\n";
  }
  for (const std::string& file : info.files) out += "further file: " + file + "\n";
  if (!info.snapshots.empty()) out += "Snapshot list:\n" + snapshotTable(info.snapshots);
  if (!info.details.empty()) out += "Format specific information:\n";
  for (const auto& [name, value] : info.details) {
    const auto* rows = std::get_if<image::InfoRows>(&value);
    out += "    " + name + (rows ? ":\n" + rowsText(*rows) : ": " + toText(value) + "\n");
  }
  return out;
}

/// The image, and those behind it where they are asked for.
Result<std::vector<Layer>> layersOf(const Invocation& invocation, const Program& program) {
  std::string path = invocation.arguments()[0], format = invocation.value("format");
  auto options = openOptions(invocation, program, false);
  if (!options) return std::move(options).error();
  options->openBacking = false;
  std::vector<Layer> layers;
  for (;;) {
    auto image = image::openImage(path, format, *options);
    if (!image) return std::move(image).error();
    auto info = (*image)->info();
    if (!info) return std::move(info).error();
    layers.push_back({path, std::move(*info)});
    const Layer& layer = layers.back();
    if (!invocation.has("backing-chain") || layer.info.backingName.empty()) return layers;
    if (layers.size() > 256) return Error(ErrorKind::corrupt, "the backing chain does not end");
    image::OpenContext context;
    context.path = path;
    context.options = *options;
    context.files = &image::hostFiles();
    auto next = image::resolveName(context, layer.info.backingName);
    if (!next) return std::move(next).error();
    path = *next;
    format = layer.info.backingFormat;
  }
}

int run(const Invocation& invocation, const Program& program) {
  auto layers = layersOf(invocation, program);
  if (!layers) return imageFail(program, layers.error());
  if (wantsJson(invocation)) {
    if (!invocation.has("backing-chain")) return printJson(describe(layers->front(), program.qemuImg));
    Json all = Json::array();
    for (const Layer& layer : *layers) all.push_back(describe(layer, program.qemuImg));
    return printJson(all);
  }
  std::string out;
  for (const Layer& layer : *layers) out += (out.empty() ? "" : "\n") + text(layer, program.qemuImg);
  return print(out) ? exit_status::kSuccess : exit_status::kLodgeError;
}

}  // namespace

Json snapshotJson(const image::SnapshotInfo& s) {
  return {{"id", s.id},
          {"name", s.name},
          {"vm-state-size", s.vmStateBytes},
          {"date-sec", s.unixSeconds},
          {"date-nsec", s.nanoseconds},
          {"vm-clock-sec", s.vmClock / 1000000000},
          {"vm-clock-nsec", s.vmClock % 1000000000}};
}

std::string snapshotTable(const std::vector<image::SnapshotInfo>& snapshots) {
  std::vector<std::vector<std::string>> rows = {{"ID", "TAG", "VM SIZE", "DATE", "VM CLOCK"}};
  for (const image::SnapshotInfo& s : snapshots) {
    char date[32] = "";
    time_t when = static_cast<time_t>(s.unixSeconds);
    struct tm parts {};
    if (::localtime_r(&when, &parts)) ::strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &parts);
    std::uint64_t ms = s.vmClock / 1000000;
    std::string clock =
        fmt::format("{:02}:{:02}:{:02}.{:03}", ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, ms % 1000);
    rows.push_back({s.id, printable(s.name), formatSize(s.vmStateBytes), date, clock});
  }
  return columns(rows, {2});
}

VerbSpec imageInfo() {
  return {
      .name = "image info",
      .summary = "describe a disk image",
      .description = "Prints an image's format, sizes, backing image, snapshots and what is particular to its format.",
      .arguments = {{.name = "FILE", .complete = Complete::file}},
      .options = {image_option::format(),
                  {.name = "backing-chain", .help = "Also the images behind it."},
                  image_option::output(),
                  image_option::json(),
                  image_option::share(),
                  image_option::allowPath()},
      .examples = {{"lodge image info --backing-chain web.qcow2", "It, and what it is based on."},
                   {"lodge image info --json disk.vmdk | jq '.\"virtual-size\"'", "The disk's size in bytes."}},
      .run = run,
  };
}

}  // namespace lodge::cli
