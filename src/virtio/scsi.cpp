// SPDX-License-Identifier: Apache-2.0
#include "virtio/scsi.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "storage/scsi_bytes.h"
#include "virtio/scatter.h"

namespace lodge::virtio {

namespace {
constexpr unsigned kControlQueue = 0, kEventQueue = 1, kFirstRequestQueue = 2;
constexpr std::size_t kSenseBytes = 96, kCdbBytes = 32;

enum Response : std::uint8_t {
  ok = 0,
  overrun = 1,
  badTarget = 3,
  functionSucceeded = 10,
  functionRejected = 11,
  incorrectLun = 12,
};

/// struct virtio_scsi_config (5.6.4).
struct [[gnu::packed]] Config {
  std::uint32_t queues, segmentMax, maxSectors, commandsPerLun, eventInfoSize, senseSize, cdbSize;
  std::uint16_t maxChannel, maxTarget;
  std::uint32_t maxLun;
};
static_assert(sizeof(Config) == 36);

struct [[gnu::packed]] RequestHeader {
  std::uint8_t lun[8];
  std::uint64_t id;
  std::uint8_t attribute, priority, crn;
  std::uint8_t cdb[kCdbBytes];
};
static_assert(sizeof(RequestHeader) == 51);

struct [[gnu::packed]] ResponseHeader {
  std::uint32_t senseLength, residual;
  std::uint16_t statusQualifier;
  std::uint8_t status, response;
  std::uint8_t sense[kSenseBytes];
};
static_assert(sizeof(ResponseHeader) == 108);

struct [[gnu::packed]] ManagementHeader {
  std::uint32_t type;
  std::uint32_t subtype;
  std::uint8_t lun[8];
  std::uint64_t id;
};
static_assert(sizeof(ManagementHeader) == 24);

/// A unit's number by its address (5.6.6.1): 1, the target, and a flat or peripheral LUN.
std::optional<unsigned> unitNumber(const std::uint8_t (&lun)[8]) {
  if (lun[0] != 1 || lun[1] != 0) return std::nullopt;
  return (lun[2] & 0x3fu) << 8 | lun[3];
}
}  // namespace

struct ScsiDevice::Request {
  unsigned queue;
  Chain chain;
  std::vector<iovec> fromDriver, toDriver, answer;
  ScsiCommand command;
  std::uint64_t dataBytes = 0;
};

ScsiDevice::ScsiDevice(GuestMemory& memory, unsigned requestQueues)
    : QueuedDevice(memory, kFirstRequestQueue + requestQueues), inFlightOf_(kFirstRequestQueue + requestQueues) {}

ScsiDevice::~ScsiDevice() {
  ScsiDevice::reset();
}

unsigned ScsiDevice::add(std::unique_ptr<ScsiUnit> unit) {
  units_.push_back(std::move(unit));
  return static_cast<unsigned>(units_.size() - 1);
}

std::uint32_t ScsiDevice::readConfig(std::uint64_t offset, unsigned size) {
  Config c{};
  c.queues = queueCount() - kFirstRequestQueue;
  c.segmentMax = 126;
  c.maxSectors = 2048;
  c.commandsPerLun = 128;
  c.eventInfoSize = 16;
  c.senseSize = kSenseBytes;
  c.cdbSize = kCdbBytes;
  c.maxLun = kMaxUnits - 1;
  return readConfigBytes(&c, sizeof c, offset, size);
}

void ScsiDevice::disableQueue(unsigned queue) {
  QueuedDevice::disableQueue(queue);
  std::unique_lock lock(flightMutex_);
  if (queue == kControlQueue) waiting_.clear();
  landed_.wait(lock, [&] { return inFlightOf_[queue] == 0; });
}

void ScsiDevice::reset() {
  QueuedDevice::reset();
  std::unique_lock lock(flightMutex_);
  landed_.wait(lock, [&] { return inFlight_ == 0; });
}

bool ScsiDevice::isQuiet() {
  std::lock_guard lock(flightMutex_);
  return inFlight_ == 0;
}

int ScsiDevice::quiesce() {
  {
    std::unique_lock lock(flightMutex_);
    landed_.wait(lock, [&] { return inFlight_ == 0; });
  }
  int error = 0;
  for (auto& unit : units_) {
    if (int failed = unit->quiesce(); error == 0) error = failed;
  }
  return error;
}

void ScsiDevice::transfer(state::Archive& a) {
  QueuedDevice::transfer(a);
  auto units = static_cast<std::uint32_t>(units_.size());
  a(units);
  a.require(units == units_.size(), "the number of SCSI units");
  for (auto& unit : units_) {
    if (a.ok()) unit->transfer(a);
  }
}

void ScsiDevice::notify(unsigned queue) {
  if (queue == kEventQueue) return;  // its buffers wait for events
  drain(queue,
        [&](Chain chain) { queue == kControlQueue ? manage(std::move(chain)) : start(queue, std::move(chain)); });
}

void ScsiDevice::start(unsigned queue, Chain chain) {
  auto request = std::make_shared<Request>();
  Request& r = *request;
  r.queue = queue;
  r.chain = std::move(chain);
  r.fromDriver = r.chain.readable;
  r.toDriver = r.chain.writable;
  RequestHeader header{};
  if (!takeFront(r.fromDriver, &header, sizeof header) || r.chain.writableBytes < sizeof(ResponseHeader)) {
    transport_->needsReset(queue);
    return;
  }
  r.answer = cutFront(r.toDriver, sizeof(ResponseHeader));
  r.dataBytes = scsi::bytesIn(r.fromDriver) + scsi::bytesIn(r.toDriver);
  std::copy_n(header.cdb, r.command.cdb.size(), r.command.cdb.begin());
  r.command.fromInitiator = r.fromDriver;
  r.command.toInitiator = r.toDriver;
  {
    std::lock_guard lock(flightMutex_);
    ++inFlight_;
    ++inFlightOf_[queue];
  }
  constexpr std::uint8_t kReportLuns = 0xa0, kInquiry = 0x12;
  auto number = unitNumber(header.lun);
  if (!number || units_.empty()) return end(r, {}, badTarget);
  if (header.cdb[0] == kReportLuns) return reportLuns(request);
  if (*number < units_.size()) {
    return units_[*number]->execute(
        r.command, [this, request](const ScsiResult& result) { end(*request, result, result.overrun ? overrun : ok); });
  }
  if (header.cdb[0] != kInquiry) return end(r, ScsiResult::failed(scsi::kIllegalRequest, 0x2500), ok);
  // Nothing is there, and nothing can be (SPC-4, 6.4.2).
  std::vector<std::uint8_t> data(36);
  data[0] = 0x7f;
  auto done = [this, request](const ScsiResult& result) { end(*request, result, ok); };
  scsi::answer(r.command, std::move(data), scsi::be(&header.cdb[3], 2), done);
}

void ScsiDevice::reportLuns(const std::shared_ptr<Request>& request) {
  std::vector<std::uint8_t> data;
  scsi::put(data, 8 * units_.size(), 4);
  scsi::put(data, 0, 4);
  for (std::size_t n = 0; n < units_.size(); ++n) scsi::put(data, std::uint64_t{n} << 48, 8);
  std::uint64_t limit = scsi::be(&request->command.cdb[6], 4);
  scsi::answer(request->command, std::move(data), limit,
               [this, request](const ScsiResult& result) { end(*request, result, ok); });
}

void ScsiDevice::end(Request& r, const ScsiResult& result, std::uint8_t response) {
  ResponseHeader header{};
  header.status = result.status;
  header.response = response;
  header.residual = static_cast<std::uint32_t>(r.dataBytes - std::min(r.dataBytes, result.moved));
  if (result.status == scsi::kCheckCondition) {
    auto sense = result.sense();
    header.senseLength = sense.size();
    std::ranges::copy(sense, header.sense);
  }
  storeFront(r.answer, header);
  std::uint64_t written = sizeof header + scsi::bytesIn(r.toDriver);
  finish(r.queue, std::move(r.chain), static_cast<std::uint32_t>(std::min<std::uint64_t>(written, ~0u)));
  landed(r.queue);
}

void ScsiDevice::landed(unsigned queue) {
  std::vector<Management> ready;
  {
    std::lock_guard lock(flightMutex_);
    if (inFlight_ == 1) ready = std::exchange(waiting_, {});
    if (ready.empty()) return landLocked(queue);
    // A control queue that is reset waits for the answers, too.
    ++inFlightOf_[kControlQueue];
  }
  for (Management& m : ready) answerManagement(std::move(m));
  std::lock_guard lock(flightMutex_);
  --inFlightOf_[kControlQueue];
  landLocked(queue);
}

void ScsiDevice::landLocked(unsigned queue) {
  --inFlight_;
  --inFlightOf_[queue];
  landed_.notify_all();
}

// Tasks cannot be cut off: what wants to abort them, or to reset a unit, is answered when they have ended (5.6.6.2).
void ScsiDevice::manage(Chain chain) {
  constexpr std::uint32_t kTaskManagement = 0, kMostSubtype = 7;
  std::vector<iovec> readable = chain.readable;
  ManagementHeader header{};
  std::uint32_t type = 0;
  if (!takeFront(readable, &type, sizeof type)) {
    transport_->needsReset(kControlQueue);
    return;
  }
  Management m{std::move(chain), {}, ok};
  m.answer = m.chain.writable;
  bool isTask = type == kTaskManagement && readable.size() != 0 &&
                takeFront(readable, &header.subtype, sizeof header - sizeof type);
  if (!isTask) {
    // Asynchronous notification (query, subscribe): there is nothing to be notified of.
    return answerManagement(std::move(m));
  }
  auto number = unitNumber(header.lun);
  if (header.subtype > kMostSubtype) {
    m.response = functionRejected;
  } else if (!number || *number >= units_.size()) {
    m.response = incorrectLun;
  } else {
    std::lock_guard lock(flightMutex_);
    if (inFlight_ != 0) {
      waiting_.push_back(std::move(m));
      return;
    }
  }
  answerManagement(std::move(m));
}

void ScsiDevice::answerManagement(Management m) {
  // Notifications are answered by a mask of events and a response, tasks by a response alone.
  std::uint8_t reply[5] = {};
  std::size_t length = std::min<std::uint64_t>(m.chain.writableBytes, sizeof reply);
  if (length != 0) reply[length - 1] = m.response;
  storeFront(m.answer, reply);
  finish(kControlQueue, std::move(m.chain), static_cast<std::uint32_t>(length));
}

}  // namespace lodge::virtio
