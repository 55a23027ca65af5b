// SPDX-License-Identifier: Apache-2.0
// Any bytes as a qcow2 image: opened, described, checked, read, repaired, written. What may come of it is errors.
#include <algorithm>

#include "base/log.h"
#include "image/format.h"

namespace {

using namespace lodge;
using namespace lodge::image;

void readSome(Image& image) {
  std::vector<std::byte> bytes(70000);
  std::uint64_t size = image.size();
  for (std::uint64_t at : {std::uint64_t{0}, size / 2, size - std::min<std::uint64_t>(size, bytes.size())}) {
    iovec v{bytes.data(), std::min<std::uint64_t>(bytes.size(), size - at)};
    if (v.iov_len != 0) (void)image.read(at, {&v, 1});
  }
  BlockStatus status;
  std::uint64_t at = 0;
  for (int i = 0; i < 200 && at < size; ++i) {
    if (image.blockStatus(at, size - at, status) != 0) break;
    at += status.length;
  }
}

void changeBitmaps(Image& image) {
  if (image.size() > (std::uint64_t{1} << 30)) return;  // a larger disk's bitmaps only take longer
  BitmapStore& store = *image.bitmaps();
  auto all = store.list();
  (void)store.add("y", 65536, false);
  for (std::size_t i = 0; all && i < std::min<std::size_t>(all->size(), 3); ++i) {
    const std::string& name = (*all)[i].name;
    (void)store.merge("y", store, name);
    (void)store.clear(name);
    (void)store.setRecording(name, i % 2 == 0);
    if (i == 1) (void)store.remove(name);
  }
  (void)image.resize(image.size() + 66048, Preallocation::off);
}

void change(Image& image) {
  std::vector<std::byte> bytes(9000, std::byte{7});
  iovec v{bytes.data(), std::min<std::uint64_t>(bytes.size(), image.size())};
  if (v.iov_len != 0) (void)image.write(0, {&v, 1});
  (void)image.discard(0, std::min<std::uint64_t>(image.size(), 300000));
  (void)image.createSnapshot("x");
  (void)image.applySnapshot("x");
  (void)image.deleteSnapshot("1");
  changeBitmaps(image);
  (void)image.flush();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool quiet = (setLogFile(-1), setLogLevel(LogLevel::error), true);
  (void)quiet;
  for (bool writing : {false, true}) {
    auto files = makeMemoryFiles();
    auto file = files->create("a", true);
    if (!file || (*file)->write(0, data, size) != 0) return 0;
    OpenOptions options;
    options.file.readOnly = !writing;
    options.forCheck = writing;
    auto image = openImage("a", "qcow2", options, *files);
    if (!image) continue;
    (void)(*image)->info();
    readSome(**image);
    (void)(*image)->check(writing ? Repair::all : Repair::none);
    if (writing) change(**image);
  }
  return 0;
}
