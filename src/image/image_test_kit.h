// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "image/format.h"

namespace lodge::image {

/// Files in memory, and calls that fail the test where they fail.
struct ImageKit {
  std::unique_ptr<FileSpace> files = makeMemoryFiles();

  using Options = std::map<std::string, std::string>;
  void create(const std::string& format, const std::string& path, std::uint64_t bytes, const Options& options = {},
              const std::string& backing = {}, const std::string& backingFormat = {}) {
    CreateRequest request{.path = path,
                          .bytes = bytes,
                          .options = options,
                          .backingName = backing,
                          .backingFormat = backingFormat,
                          .files = files.get(),
                          .replace = true};
    Status made = createImage(*findFormat(format), request);
    ASSERT_TRUE(made) << made.error().message();
  }
  std::unique_ptr<Image> open(const std::string& path, bool readOnly = false, const std::string& snapshot = {}) {
    OpenOptions options;
    options.file.readOnly = readOnly;
    options.snapshot = snapshot;
    auto image = openImage(path, "", options, *files);
    EXPECT_TRUE(image) << (image ? "" : image.error().message());
    return image ? std::move(*image) : nullptr;
  }
  static int write(Image& image, std::uint64_t at, const std::vector<std::uint8_t>& bytes) {
    iovec v{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
    return image.write(at, {&v, 1});
  }
  static std::vector<std::uint8_t> read(Image& image, std::uint64_t at, std::size_t length) {
    std::vector<std::uint8_t> bytes(length, 0xee);
    iovec v[2] = {{bytes.data(), length / 3}, {bytes.data() + length / 3, length - length / 3}};
    EXPECT_EQ(image.read(at, v), 0);
    return bytes;
  }
  static void expectClean(Image& image, bool leaksToo = true) {
    auto result = image.check(Repair::none);
    ASSERT_TRUE(result) << result.error().message();
    EXPECT_EQ(result->corruptions, 0u) << (result->messages.empty() ? "" : result->messages[0]);
    EXPECT_EQ(result->checkErrors, 0u);
    if (!leaksToo) return;
    EXPECT_EQ(result->leaks, 0u) << (result->messages.empty() ? "" : result->messages[0]);
  }
};

}  // namespace lodge::image
