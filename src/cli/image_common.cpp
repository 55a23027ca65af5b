// SPDX-License-Identifier: Apache-2.0
#include "cli/image_common.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/layout.h"

namespace lodge::cli {

namespace image_option {

OptionSpec format(std::string help) {
  return {.name = "format", .letter = 'f', .value = "FORMAT", .help = std::move(help)};
}
OptionSpec output() {
  return {.name = "output", .value = "KIND", .help = "How to print the result.", .choices = {"human", "json"}};
}
OptionSpec json() {
  return {.name = "json", .help = "The same as --output json."};
}
OptionSpec progress() {
  return {.name = "progress", .letter = 'p', .help = "Show the progress even if standard error is no terminal."};
}
OptionSpec quiet() {
  return {.name = "quiet", .letter = 'q', .help = "Print nothing but errors."};
}
OptionSpec share() {
  return {.name = "force-share",
          .letter = 'U',
          .help = "Read even an image that a running machine writes; what is read may be out of date."};
}
OptionSpec allowPath() {
  return {.name = "allow-path",
          .value = "PATH",
          .help =
              "A file or folder that names inside images (backing images, extents) may lead to; without it they "
              "lead into the image's own folder and below.",
          .complete = Complete::file,
          .repeats = true};
}
OptionSpec cache(const std::string& initial) {
  return {.name = "cache",
          .letter = 't',
          .value = "MODE",
          .help = "How to write: through the host's page cache, past it, or without ever waiting for the disk; " +
                  initial + " if not given.",
          .choices = {"none", "writeback", "writethrough", "directsync", "unsafe"}};
}
OptionSpec sourceCache() {
  return {.name = "source-cache",
          .letter = 'T',
          .value = "MODE",
          .help = "How to read.",
          .choices = {"none", "writeback", "writethrough", "directsync", "unsafe"}};
}
OptionSpec settings() {
  return {.name = "option",
          .letter = 'o',
          .value = "NAME=VALUE[,...]",
          .help = "Settings of the new image; 'help' lists those of its format.",
          .repeats = true};
}

std::vector<OptionSpec> withUsual(std::vector<OptionSpec> own) {
  for (const OptionSpec& each : {progress(), quiet(), share(), allowPath(), output(), json()}) own.push_back(each);
  return own;
}

}  // namespace image_option

int imageFail(const Program& program, const Error& error) {
  if (!program.qemuImg) return fail(error);
  std::string line = "qemu-img: " + error.message() + (error.hint().empty() ? "" : " (" + error.hint() + ")");
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20) c = '?';
  }
  line += "\n";
  [[maybe_unused]] ssize_t n = ::write(STDERR_FILENO, line.data(), line.size());
  return 1;
}

int printJson(const Json& value) {
  return print(value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n") ? exit_status::kSuccess
                                                                                 : exit_status::kLodgeError;
}

bool wantsJson(const Invocation& invocation) {
  return invocation.has("json") || invocation.value("output") == "json";
}

Result<std::uint64_t> imageSize(const std::string& text) {
  std::size_t digits = text.find_first_not_of("0123456789.");
  std::string number = text.substr(0, digits), unit = digits == std::string::npos ? "" : text.substr(digits);
  Error bad =
      Error(ErrorKind::invalidArgument, "size " + inQuotes(text)).withHint("write bytes, or 10G, 1.5T, 512M, 64K");
  if (number.empty()) return bad;
  if (unit.ends_with("iB") && unit.size() == 3) unit.resize(1);
  if (unit == "b" || unit == "B") unit.clear();
  constexpr std::string_view kUnits = "KMGTPE";
  double scale = 1;
  if (!unit.empty()) {
    std::size_t at = kUnits.find(static_cast<char>(std::toupper(static_cast<unsigned char>(unit[0]))));
    if (unit.size() != 1 || at == std::string_view::npos) return bad;
    scale = std::ldexp(1.0, 10 * (static_cast<int>(at) + 1));
  }
  if (number.find('.') == std::string::npos) {
    auto whole = parseNumber(number, static_cast<std::uint64_t>(std::ldexp(1.0, 62) / scale));
    if (!whole) return bad;
    return *whole * static_cast<std::uint64_t>(scale);
  }
  char* end = nullptr;
  double value = std::strtod(number.c_str(), &end) * scale;
  if (*end != 0 || !(value >= 0) || value > std::ldexp(1.0, 62)) return bad;
  return static_cast<std::uint64_t>(value);
}

Result<std::map<std::string, std::string>> imageSettings(const Invocation& invocation) {
  std::map<std::string, std::string> settings;
  for (const std::string& given : invocation.all("option")) {
    for (const std::string& field : splitFields(given, ',')) {
      std::size_t equals = field.find('=');
      if (field.empty()) continue;
      settings[field.substr(0, equals)] = equals == std::string::npos ? "on" : field.substr(equals + 1);
    }
  }
  return settings;
}

std::string snapshotName(const std::string& text) {
  for (const std::string& field : splitFields(text, ',')) {
    for (std::string_view key : {"snapshot.id=", "snapshot.name="}) {
      if (field.starts_with(key)) return field.substr(key.size());
    }
  }
  return text;
}

Result<image::CacheMode> cacheMode(const std::string& name) {
  if (name.empty() || name == "writeback" || name == "writethrough") return image::CacheMode::writeback;
  if (name == "none" || name == "directsync") return image::CacheMode::none;
  if (name == "unsafe") return image::CacheMode::unsafe;
  return Error(ErrorKind::invalidArgument, "unknown cache mode " + inQuotes(name))
      .withHint("use none, writeback or unsafe");
}

Result<image::OpenOptions> openOptions(const Invocation& invocation, const Program& program, bool writing) {
  auto cache = cacheMode(invocation.value(writing ? "cache" : "source-cache"));
  if (!cache) return std::move(cache).error();
  image::OpenOptions options;
  options.file.readOnly = !writing;
  options.file.cache = *cache;
  if (invocation.has("force-share")) options.file.lock = image::LockMode::share;
  options.allowedPaths = invocation.all("allow-path");
  if (program.qemuImg) options.paths = image::PathPolicy::anywhere;
  return options;
}

Result<std::unique_ptr<image::Image>> openFor(const Invocation& invocation, const Program& program,
                                              const std::string& path, bool writing, bool withBacking) {
  auto options = openOptions(invocation, program, writing);
  if (!options) return std::move(options).error();
  options->openBacking = withBacking;
  return image::openImage(path, invocation.value("format"), *options);
}

}  // namespace lodge::cli
