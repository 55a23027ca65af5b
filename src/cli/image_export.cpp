// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "base/units.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/machine_description.h"
#include "image/ovf_package.h"

namespace lodge::cli {

namespace {

namespace ovf = image::ovf;

/// "lan" or "lan,52:54:00:12:34:56".
Result<ovf::Nic> nicFrom(const std::string& text) {
  std::vector<std::string> fields = splitFields(text, ',');
  if (fields.empty() || fields.size() > 2 || fields[0].empty()) {
    return Error(ErrorKind::invalidArgument, "--net " + inQuotes(text)).withHint("write NETWORK or NETWORK,MAC");
  }
  return ovf::Nic{fields[0], "", fields.size() > 1 ? fields[1] : ""};
}

Status takeSources(const Invocation& invocation, ovf::ExportRequest& request) {
  const auto& arguments = invocation.arguments();
  bool described = arguments.size() == 2 && arguments[1].ends_with(".json");
  if (described) {
    auto read = readDescription(arguments[1]);
    if (!read) return std::move(read).error();
    request.machine = std::move(read->machine);
    for (std::size_t i = 0; i < request.machine.disks.size(); ++i) {
      request.disks.push_back({request.machine.disks[i].file, read->formats[i]});
    }
    return {};
  }
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    request.disks.push_back({arguments[i], invocation.value("format")});
  }
  request.machine.nics.push_back({"NAT", "", ""});
  return {};
}

Status takeOptions(const Invocation& invocation, ovf::ExportRequest& request) {
  ovf::Machine& machine = request.machine;
  machine.name = invocation.value("name", machine.name);
  if (machine.name.empty()) machine.name = request.name.substr(0, request.name.rfind('.'));
  if (invocation.has("cpus")) {
    auto cpus = parseNumber(invocation.value("cpus"), 1024);
    if (!cpus || *cpus == 0) return Error(ErrorKind::invalidArgument, "--cpus " + inQuotes(invocation.value("cpus")));
    machine.cpus = static_cast<unsigned>(*cpus);
  }
  if (invocation.has("memory")) {
    auto memory = parseSize(invocation.value("memory"));
    if (!memory) return std::move(memory).error().context("--memory");
    machine.memory = *memory;
  }
  if (machine.memory == 0) machine.memory = 1_GiB;
  if (invocation.has("firmware")) machine.efi = invocation.value("firmware") == "uefi";
  machine.osType = invocation.value("os", machine.osType);
  if (!invocation.has("net")) return {};
  machine.nics.clear();
  for (const std::string& text : invocation.all("net")) {
    if (text == "none") continue;
    auto nic = nicFrom(text);
    if (!nic) return std::move(nic).error();
    machine.nics.push_back(std::move(*nic));
  }
  return {};
}

Status exportAll(const Invocation& invocation, const Program& program, ovf::ExportRequest& request) {
  const std::string& target = invocation.arguments()[0];
  request.name = image::fileNameOf(target);
  bool folder = request.name.ends_with(".ovf");
  if (!folder && !request.name.ends_with(".ova")) {
    return Error(ErrorKind::invalidArgument, "neither .ova nor .ovf").withHint("the suffix says what to write");
  }
  if (Status good = takeSources(invocation, request); !good) return good;
  if (Status good = takeOptions(invocation, request); !good) return good;
  auto options = openOptions(invocation, program, false);
  if (!options) return std::move(options).error();
  request.open = std::move(*options);
  request.copy = [&](image::Image& from, image::Image& to) {
    ProgressBar bar(invocation, program);
    image::CopyOptions how;
    how.progress = bar.callback();
    return image::copyContent(from, to, how);
  };
  auto fresh = FreshFile::begin(target, folder);
  if (!fresh) return std::move(fresh).error();
  request.path = (*fresh)->path();
  if (Status written = ovf::write(request); !written) return written;
  return (*fresh)->commit();
}

int run(const Invocation& invocation, const Program& program) {
  ovf::ExportRequest request;
  Status done = exportAll(invocation, program, request);
  const std::string& target = invocation.arguments()[0];
  if (!done) return imageFail(program, std::move(done).error().context("export to " + inQuotes(target)));
  if (!wantsJson(invocation)) return exit_status::kSuccess;
  Json disks = Json::array();
  for (const ovf::ExportDisk& disk : request.disks) disks.push_back(disk.path);
  return printJson({{"target", target}, {"name", request.machine.name}, {"disks", disks}});
}

}  // namespace

VerbSpec imageExport() {
  return {
      .name = "image export",
      .summary = "put disks and a machine's description into an OVA or OVF package",
      .description =
          "Writes a package that VMware, VirtualBox and cloud importers take: streamOptimized disks, an OVF "
          "descriptor, and a manifest with SHA-256. What to export is the 'machine.json' of an import, or disks, with "
          "the machine's properties as options. '.ova' makes one archive, '.ovf' files beside each other.",
      .arguments = {{.name = "TARGET", .complete = Complete::file},
                    {.name = "SOURCE", .repeats = true, .complete = Complete::file}},
      .options = image_option::withUsual(
          {image_option::format("The disks' format; otherwise by their content."),
           {.name = "name", .value = "NAME", .help = "The machine's name; the target's if not given."},
           {.name = "cpus", .value = "N", .help = "How many CPUs; 1 if not given."},
           {.name = "memory", .letter = 'm', .value = "SIZE", .help = "How much memory; 1G if not given."},
           {.name = "firmware", .value = "KIND", .help = "What boots it.", .choices = {"bios", "uefi"}},
           {.name = "os", .value = "TYPE", .help = "The guest system, by VMware's names (ubuntu64Guest)."},
           {.name = "net",
            .value = "NETWORK[,MAC]",
            .help = "A network card, or 'none'. One on NAT if not given.",
            .repeats = true}}),
      .examples = {{"lodge image export -m 4G --cpus 2 web.ova web.qcow2", "One disk as a machine."},
                   {"lodge image export web.ova web/machine.json", "What was imported, changed or not."}},
      .run = run,
  };
}

}  // namespace lodge::cli
