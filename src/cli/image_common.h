// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "cli/spec.h"
#include "control/json_fields.h"
#include "image/convert.h"

namespace lodge::cli {

using control::Json;

// One function a command of 'lodge image'.
VerbSpec imageCreate();
VerbSpec imageInfo();
VerbSpec imageCheck();
VerbSpec imageConvert();
VerbSpec imageDd();
VerbSpec imageResize();
VerbSpec imageSnapshot();
VerbSpec imageRebase();
VerbSpec imageCommit();
VerbSpec imageCompare();
VerbSpec imageMap();
VerbSpec imageMeasure();
VerbSpec imageBitmap();
VerbSpec imageServe();
VerbSpec imageBench();
VerbSpec imageImport();
VerbSpec imageExport();

/// The options that several of the commands share.
namespace image_option {
OptionSpec format(std::string help = "The image's format; otherwise by its content.");
OptionSpec output();  ///< --output human|json
OptionSpec json();
OptionSpec progress();
OptionSpec quiet();
OptionSpec share();
OptionSpec allowPath();
OptionSpec cache(const std::string& initial);
OptionSpec sourceCache();
OptionSpec settings();
/// Those of a command, and behind them what all that take long have: progress, quiet, share, allowPath, output, json.
std::vector<OptionSpec> withUsual(std::vector<OptionSpec> own);
}  // namespace image_option

/// Prints the error as the program does, or as qemu-img where it is called by that name; returns the exit status.
int imageFail(const Program& program, const Error& error);
/// Prints JSON, two spaces deep. Returns the exit status.
int printJson(const Json& value);
bool wantsJson(const Invocation& invocation);

/// "1073741824" (bytes), "512", "10G", "1.5T", "64k". Errors: invalidArgument.
Result<std::uint64_t> imageSize(const std::string& text);
/// "a=1,b=2" of each -o given.
Result<std::map<std::string, std::string>> imageSettings(const Invocation& invocation);
/// -l: "snapshot.name=X", "snapshot.id=1", or either alone.
std::string snapshotName(const std::string& text);
Result<image::CacheMode> cacheMode(const std::string& name);

/// What the options say about opening; `writing` takes the cache mode of -t, otherwise that of -T.
Result<image::OpenOptions> openOptions(const Invocation& invocation, const Program& program, bool writing);
Result<std::unique_ptr<image::Image>> openFor(const Invocation& invocation, const Program& program,
                                              const std::string& path, bool writing, bool withBacking = true);

/// A bar on standard error while something long goes on: on a terminal, or where -p asks for it. Ctrl-C and SIGTERM
/// make the callback return false; a second Ctrl-C ends the program at once.
class ProgressBar {
 public:
  ProgressBar(const Invocation& invocation, const Program& program);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  image::Progress callback();
  /// Whether a signal has come.
  static bool interrupted();

 private:
  void draw(std::uint64_t done, std::uint64_t total);

  bool shown_, qemu_;
  int drawn_ = -1;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// A file that is being made under a temporary name beside its final one, or, where the format has several files, in a
/// temporary folder. Unless commit() is called, nothing of it is left.
class FreshFile {
 public:
  /// Errors: busy (the old file is in use), io.
  static Result<std::unique_ptr<FreshFile>> begin(const std::string& path, bool severalFiles);
  ~FreshFile();
  FreshFile(const FreshFile&) = delete;
  FreshFile& operator=(const FreshFile&) = delete;
  const std::string& path() const { return path_; }
  /// Moves it to its final name; an old file there goes.
  Status commit();

 private:
  FreshFile() = default;
  std::string final_, path_, folder_;  // folder_: empty for a single file
  bool inPlace_ = false;               // a device: it cannot be moved
};

}  // namespace lodge::cli
