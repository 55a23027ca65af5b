// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "image/disk.h"
#include "storage/scsi_unit.h"

namespace lodge {

/// A SCSI disk with blocks of 512 bytes (SBC-3, SPC-4): reads and writes of all sizes, flush, unmap, write same,
/// identification pages.
class ScsiDisk : public ScsiUnit {
 public:
  /// `serial`: up to 20 characters.
  ScsiDisk(std::shared_ptr<Disk> disk, std::string serial) : disk_(std::move(disk)), serial_(std::move(serial)) {}
  void execute(const ScsiCommand& command, Completion done) override;
  int quiesce() override { return disk_->settle(); }

 private:
  static constexpr unsigned kBlock = 512;
  using Bytes = std::vector<std::uint8_t>;
  struct Extent {
    std::uint64_t first = 0, count = 0;
  };

  std::uint64_t blocks() const { return disk_->sizeBytes() / kBlock; }
  bool inRange(const Extent& e) const { return e.first <= blocks() && e.count <= blocks() - e.first; }
  bool executeMedium(const ScsiCommand& command, const Completion& done);
  void transfer(const ScsiCommand& command, const Extent& extent, bool write, const Completion& done);
  void writeSame(const ScsiCommand& command, const Extent& extent, const Completion& done);
  void unmap(const ScsiCommand& command, const Completion& done);
  void inquiry(const ScsiCommand& command, const Completion& done) const;
  bool productData(unsigned page, Bytes& data) const;
  void modeSense(const ScsiCommand& command, bool wide, const Completion& done) const;
  void capacity16(const ScsiCommand& command, const Completion& done) const;

  std::shared_ptr<Disk> disk_;
  std::string serial_;
};

}  // namespace lodge
