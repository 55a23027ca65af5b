// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "storage/nvme_controller.h"
#include "storage/test_disk.h"

namespace lodge {
namespace {

using nvme::Command;
using nvme::Completion;

constexpr std::uint64_t kAsq = 0x1000, kAcq = 0x2000, kSq = 0x3000, kCq = 0x4000, kData = 0x10000, kList = 0x8000;

class NvmeTest : public testing::Test {
 protected:
  NvmeTest() {
    for (std::size_t n = 0; n < disk_->content.size(); n += 512) disk_->content[n] = static_cast<std::uint8_t>(n >> 9);
    set(nvme::reg::aqa, 7 << 16 | 7);
    set(nvme::reg::asq, kAsq);
    set(nvme::reg::acq, kAcq);
    set(nvme::reg::cc, 6 << 16 | 4 << 20 | 1);
  }
  void set(unsigned offset, std::uint32_t value) { nvme_.registers().write(offset, 4, value); }
  std::uint32_t get(unsigned offset) { return static_cast<std::uint32_t>(nvme_.registers().read(offset, 4)); }
  struct Queue {
    unsigned id;
    std::uint64_t sq, cq;
    unsigned size, tail = 0, head = 0;
    bool phase = true;
  };
  void submit(Queue& q, const Command& c) {
    ASSERT_TRUE(memory_->writeObject(Gpa{q.sq + q.tail * sizeof c}, c));
    q.tail = (q.tail + 1) % q.size;
    set(0x1000 + 8 * q.id, q.tail);
  }
  std::optional<Completion> take(Queue& q) {
    Completion c{};
    EXPECT_TRUE(memory_->readObject(Gpa{q.cq + q.head * sizeof c}, c));
    if ((c.status & 1) != (q.phase ? 1 : 0)) return std::nullopt;
    if (++q.head == q.size) q.head = 0, q.phase = !q.phase;
    set(0x1000 + 8 * q.id + 4, q.head);
    return c;
  }
  unsigned run(Queue& q, Command c) {
    c.id = ++id_;
    submit(q, c);
    auto done = take(q);
    if (!done) return 0xffff;
    EXPECT_EQ(done->id, id_);
    result_ = done->result;
    return done->status >> 1 & 0x7ff;
  }
  void createQueues() {
    ASSERT_EQ(run(admin_, {.opcode = 5, .prp1 = kCq, .dw10 = 7 << 16 | 1, .dw11 = 3}), 0u);
    ASSERT_EQ(run(admin_, {.opcode = 1, .prp1 = kSq, .dw10 = 7 << 16 | 1, .dw11 = 1 << 16 | 1}), 0u);
  }
  std::uint8_t byteAt(std::uint64_t gpa) {
    std::uint8_t value = 0;
    EXPECT_TRUE(memory_->readObject(Gpa{gpa}, value));
    return value;
  }
  bool intx() { return (nvme_.readConfig(6, 2) & 8) != 0; }

  std::shared_ptr<TestDisk> disk_ = std::make_shared<TestDisk>(4_MiB);
  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(4_MiB));
  NvmeController nvme_{*memory_, disk_, "disk0"};
  Queue admin_{0, kAsq, kAcq, 8}, io_{1, kSq, kCq, 8};
  std::uint16_t id_ = 0;
  std::uint32_t result_ = 0;
};

TEST_F(NvmeTest, RegistersTellWhatItIs) {
  EXPECT_EQ(get(nvme::reg::vs), 0x00010400u);
  EXPECT_EQ(get(0) & 0xffff, 1023u);
  EXPECT_EQ(nvme_.registers().read(0, 8) >> 37 & 1, 1u);
  EXPECT_EQ(get(nvme::reg::csts), 1u);
  set(nvme::reg::cc, 0);
  EXPECT_EQ(get(nvme::reg::csts), 0u);
  set(nvme::reg::cc, 1 << 7 | 1);
  EXPECT_EQ(get(nvme::reg::csts), 2u) << "pages of 8 KiB are not offered";
}

TEST_F(NvmeTest, IdentifiesControllerAndNamespace) {
  EXPECT_EQ(run(admin_, {.opcode = 6, .prp1 = kData, .dw10 = 1}), 0u);
  char serial[21] = {};
  ASSERT_TRUE(memory_->read(Gpa{kData + 4}, std::as_writable_bytes(std::span(serial, 20))));
  EXPECT_STREQ(serial, "disk0               ");
  EXPECT_EQ(run(admin_, {.opcode = 6, .nsid = 1, .prp1 = kData, .dw10 = 0}), 0u);
  std::uint64_t blocks = 0;
  ASSERT_TRUE(memory_->readObject(Gpa{kData}, blocks));
  EXPECT_EQ(blocks, 8192u);
  EXPECT_EQ(byteAt(kData + 130), 9);
  EXPECT_EQ(run(admin_, {.opcode = 6, .nsid = 2, .prp1 = kData}), unsigned{nvme::status::invalidNamespace});
  EXPECT_EQ(run(admin_, {.opcode = 0x7f}), unsigned{nvme::status::invalidOpcode});
  EXPECT_EQ(run(admin_, {.opcode = 2, .nsid = 0xffffffff, .prp1 = kData, .dw10 = 127 << 16 | 2}), 0u);
  EXPECT_EQ(run(admin_, {.opcode = 9, .dw10 = 7, .dw11 = 0x001f001f}), 0u);
  EXPECT_EQ(result_, 0x000f000fu);
}

TEST_F(NvmeTest, ReadsAndWritesByPrps) {
  createQueues();
  EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 1, .prp1 = kData + 512, .dw10 = 5, .dw12 = 1}), 0u);
  EXPECT_EQ(byteAt(kData + 512), 5);
  EXPECT_EQ(byteAt(kData + 1024), 6);
  EXPECT_TRUE(intx() == false) << "the queue was emptied";
  // 64 KiB: a list of pages, not in order.
  for (std::uint64_t n = 0; n < 16; ++n) {
    std::uint64_t page = kData + (16 - n) * 4096;
    ASSERT_TRUE(memory_->writeObject(Gpa{kList + 8 * n}, page));
  }
  EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 1, .prp1 = kData + 17 * 4096, .prp2 = kList, .dw10 = 0, .dw12 = 127}), 0u);
  EXPECT_EQ(byteAt(kData + 17 * 4096), 0);
  EXPECT_EQ(byteAt(kData + 16 * 4096), 8);
  EXPECT_EQ(byteAt(kData + 2 * 4096 + 512), 121);
  EXPECT_EQ(run(io_, {.opcode = 1, .nsid = 1, .prp1 = kData + 2 * 4096, .dw10 = 1000, .dw12 = 0}), 0u);
  EXPECT_EQ(disk_->content[1000 * 512], 120);
  EXPECT_EQ(run(io_, {.opcode = 0, .nsid = 1}), 0u);
  EXPECT_EQ(disk_->flushes, 1);
  EXPECT_EQ(run(io_, {.opcode = 8, .nsid = 1, .dw10 = 1000, .dw12 = 3}), 0u);
  struct {
    std::uint32_t attributes = 0, length = 8;
    std::uint64_t first = 16;
  } range;
  range.length = 9000;
  ASSERT_TRUE(memory_->writeObject(Gpa{kData}, range));
  EXPECT_EQ(run(io_, {.opcode = 9, .nsid = 1, .prp1 = kData, .dw11 = 4}), unsigned{nvme::status::lbaOutOfRange});
  range.length = 8;
  ASSERT_TRUE(memory_->writeObject(Gpa{kData}, range));
  EXPECT_EQ(run(io_, {.opcode = 9, .nsid = 1, .prp1 = kData, .dw10 = 0, .dw11 = 4}), 0u);
}

TEST_F(NvmeTest, BadAddressesAreErrors) {
  createQueues();
  EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 1, .prp1 = kData, .dw10 = 8192}), unsigned{nvme::status::lbaOutOfRange});
  EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 1, .prp1 = 0xffff'0000}), unsigned{nvme::status::dataTransferError});
  EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 1, .prp1 = kData, .prp2 = 8, .dw12 = 8}),
            unsigned{nvme::status::invalidField});
  EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 2, .prp1 = kData}), unsigned{nvme::status::invalidNamespace});
  EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 1, .prp1 = kData, .dw12 = 0xffff}), unsigned{nvme::status::invalidField});
  disk_->fail = EIO;
  EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 1, .prp1 = kData}), unsigned{nvme::status::unrecoveredRead});
  EXPECT_EQ(run(io_, {.opcode = 1, .nsid = 1, .prp1 = kData}), unsigned{nvme::status::writeFault});
  disk_->isReadOnly = true;
  EXPECT_EQ(run(io_, {.opcode = 1, .nsid = 1, .prp1 = kData}), unsigned{nvme::status::readOnlyRange});
  // A list that leads to itself.
  std::uint64_t self = kList + 4088;
  ASSERT_TRUE(memory_->writeObject(Gpa{self}, self));
  EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 1, .prp1 = kData, .prp2 = self, .dw12 = 99}),
            unsigned{nvme::status::invalidField});
}

TEST_F(NvmeTest, QueuesAreMadeAndRemovedInOrder) {
  EXPECT_EQ(run(admin_, {.opcode = 1, .prp1 = kSq, .dw10 = 7 << 16 | 1, .dw11 = 1 << 16 | 1}),
            unsigned{nvme::status::cqInvalid});
  EXPECT_EQ(run(admin_, {.opcode = 5, .prp1 = kCq, .dw10 = 7 << 16 | 99, .dw11 = 3}),
            unsigned{nvme::status::invalidQueueId});
  EXPECT_EQ(run(admin_, {.opcode = 5, .prp1 = kCq, .dw10 = 1, .dw11 = 3}), unsigned{nvme::status::invalidQueueSize});
  createQueues();
  EXPECT_EQ(run(admin_, {.opcode = 4, .dw10 = 1}), unsigned{nvme::status::invalidQueueDeletion});
  EXPECT_EQ(run(admin_, {.opcode = 0, .dw10 = 1}), 0u);
  EXPECT_EQ(run(admin_, {.opcode = 4, .dw10 = 1}), 0u);
  EXPECT_EQ(run(admin_, {.opcode = 4, .dw10 = 1}), unsigned{nvme::status::invalidQueueId});
}

TEST_F(NvmeTest, AFullCompletionQueueHoldsEntriesBack) {
  createQueues();
  disk_->hold = true;
  for (unsigned n = 0; n < 7; ++n)
    submit(io_, {.opcode = 2, .id = static_cast<std::uint16_t>(n), .nsid = 1, .prp1 = kData});
  EXPECT_FALSE(take(io_));
  disk_->completeHeld();
  EXPECT_TRUE(intx());
  // Seven entries fill a queue of eight; seven more commands have to wait until these are taken.
  for (unsigned n = 0; n < 7; ++n)
    submit(io_, {.opcode = 2, .id = static_cast<std::uint16_t>(100 + n), .nsid = 1, .prp1 = kData});
  disk_->completeHeld();
  for (unsigned n = 0; n < 7; ++n) EXPECT_EQ(take(io_)->id, n);
  disk_->completeHeld();
  for (unsigned n = 0; n < 7; ++n) EXPECT_EQ(take(io_)->id, 100 + n);
  EXPECT_FALSE(intx());
}

TEST_F(NvmeTest, ShutdownFlushesAndResetForgets) {
  createQueues();
  set(nvme::reg::cc, 6 << 16 | 4 << 20 | 1 << 14 | 1);
  EXPECT_EQ(get(nvme::reg::csts) >> 2 & 3, 2u);
  EXPECT_EQ(disk_->flushes, 1);
  nvme_.reset();
  EXPECT_EQ(get(nvme::reg::csts), 0u);
  EXPECT_EQ(get(nvme::reg::aqa), 0u);
  set(0x1008, 3);  // no such queue now
}

TEST_F(NvmeTest, GoesOnFromWhatWasSaved) {
  createQueues();
  for (int n = 0; n < 5; ++n) EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 1, .prp1 = kData, .dw10 = 3}), 0u);
  // The completion queue has room for 7: what follows waits for it.
  for (std::uint16_t n = 0; n < 7; ++n) submit(io_, {.opcode = 2, .id = n, .nsid = 1, .prp1 = kData, .dw10 = 5});
  nvme_.quiesce();
  state::Archive saved(2);
  nvme_.transfer(saved);
  nvme_.reset();
  EXPECT_EQ(get(nvme::reg::csts), 0u);
  state::Archive loaded(saved.saved(), 2);
  nvme_.transfer(loaded);
  ASSERT_TRUE(loaded.finish()) << loaded.finish().error().message();
  for (std::uint16_t n = 0; n < 7; ++n) {
    auto done = take(io_);
    ASSERT_TRUE(done);
    EXPECT_EQ(done->id, n);
  }
  EXPECT_EQ(run(io_, {.opcode = 2, .nsid = 1, .prp1 = kData + 0x1000, .dw10 = 9}), 0u);
  EXPECT_EQ(byteAt(kData + 0x1000), 9);
}

TEST_F(NvmeTest, TakesNoStateThatCannotBe) {
  createQueues();
  state::Archive saved(2);
  nvme_.transfer(saved);
  for (std::size_t at = 0; at < saved.saved().size(); ++at) {
    std::vector<std::byte> bytes = saved.saved();
    bytes[at] ^= std::byte{0xff};
    state::Archive loaded(bytes, 2);
    nvme_.transfer(loaded);
    for (unsigned queue = 0; queue < 2; ++queue) {
      set(0x1000 + 8 * queue, 3);
      set(0x1004 + 8 * queue, 2);
    }
    nvme_.quiesce();
  }
}

}  // namespace
}  // namespace lodge
