// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "engine/kvm/probe.h"

namespace lodge::kvm {

/// The verdicts of probes of one device file, kept in a file for as long as the host runs (and the device file is the
/// same). A cache that cannot be read or written is as good as an empty one.
class ProbeCache {
 public:
  /// `file`: where verdicts are kept, empty for nowhere; `bootId`: what is different after each start of the host.
  ProbeCache(std::string device, std::string file, std::string bootId)
      : device_(std::move(device)), file_(std::move(file)), bootId_(std::move(bootId)) {}
  /// Of /dev/kvm: the user's cache folder (XDG_CACHE_HOME, or .cache in the home folder), and the kernel's boot_id.
  static ProbeCache ofHost();

  /// The verdict of this boot; none if there is none, or the device cannot be opened now (which a probe finds out
  /// fast).
  std::optional<ProbeResult> load() const;
  void store(const ProbeResult& result) const;
  /// load(), or else `probe` and store(). A probe that found no device, or one that may not be opened, is not kept.
  ProbeResult get(const std::function<ProbeResult()>& probe) const;

 private:
  std::string key() const;

  std::string device_, file_, bootId_;
};

}  // namespace lodge::kvm
