// SPDX-License-Identifier: Apache-2.0
#include "virtio/pci_transport.h"

#include <array>
#include <cstring>

#include "base/bytes.h"
#include "base/log.h"
#include "base/units.h"

namespace lodge::virtio {

namespace {

// BAR 0, a page for each structure.
constexpr std::uint64_t kCommon = 0, kIsr = 0x1000, kDeviceConfig = 0x2000, kNotify = 0x3000, kBarBytes = 0x4000;
constexpr std::uint32_t kNotifyMultiplier = 4;
constexpr std::uint8_t kIsrQueue = 1, kIsrConfig = 2;

enum CapabilityType : std::uint8_t { common = 1, notification = 2, isrStatus = 3, deviceConfig = 4, configAccess = 5 };

// Offsets in struct virtio_pci_common_cfg (4.1.4.3).
namespace reg {
enum : std::uint64_t {
  deviceFeatureSelect = 0x00,
  deviceFeature = 0x04,
  driverFeatureSelect = 0x08,
  driverFeature = 0x0c,
  configVector = 0x10,
  queueCount = 0x12,
  deviceStatus = 0x14,
  generation = 0x15,
  queueSelect = 0x16,
  queueSize = 0x18,
  queueVector = 0x1a,
  queueEnable = 0x1c,
  queueNotifyOffset = 0x1e,
  queueDescriptors = 0x20,
  queueDriver = 0x28,
  queueDevice = 0x30,
  queueNotifyData = 0x38,
  queueReset = 0x3a,
};
}

PciIdentity identityOf(DeviceType type) {
  std::uint32_t classCode = 0x00ff00;
  if (type == DeviceType::net) classCode = 0x020000;
  if (type == DeviceType::block) classCode = 0x018000;
  if (type == DeviceType::console) classCode = 0x078000;
  if (type == DeviceType::scsi) classCode = 0x010000;
  if (type == DeviceType::input) classCode = 0x098000;
  if (type == DeviceType::gpu) classCode = 0x038000;
  auto device = static_cast<std::uint16_t>(0x1040 + static_cast<std::uint16_t>(type));
  return {0x1af4, device, 1, classCode, 0x1af4, 0x1100};
}

/// What follows id and next in struct virtio_pci_cap (4.1.4).
std::vector<std::uint8_t> capabilityBody(CapabilityType type, std::uint32_t offset, std::uint32_t length,
                                         std::size_t extra) {
  std::vector<std::uint8_t> body(14 + extra);
  body[0] = static_cast<std::uint8_t>(body.size() + 2);
  body[1] = type;
  storeLe(body.data() + 6, offset);
  storeLe(body.data() + 10, length);
  return body;
}

void setHalf(std::uint64_t& address, std::uint64_t offset, unsigned size, std::uint32_t value) {
  if (size != 4) return;
  unsigned shift = (offset & 4) != 0 ? 32 : 0;
  address = (address & ~(std::uint64_t{0xffffffff} << shift)) | std::uint64_t{value} << shift;
}

}  // namespace

std::uint32_t readConfigBytes(const void* config, std::size_t length, std::uint64_t offset, unsigned size) {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < size && offset + i < length; ++i) {
    value |= std::uint32_t{static_cast<const std::uint8_t*>(config)[offset + i]} << (8 * i);
  }
  return value;
}

PciTransport::PciTransport(std::unique_ptr<Device> device, std::string name)
    : PciFunction(identityOf(device->type()), std::move(name)),
      device_(std::move(device)),
      queues_(device_->queueCount()),
      vectors_(device_->queueCount()) {
  device_->attach(*this);
  addBar(0, BarKind::memory64, kBarBytes, *this);
  addMsix(2, device_->queueCount() + 1);
  useIntx();
  addCapabilities();
  resetLocked();
}

PciTransport::~PciTransport() {
  doorbells_.reset();
  device_->reset();
}

void PciTransport::useDoorbells(Doorbells& doorbells, EventLoop& loop) {
  doorbells_ = std::make_unique<QueueDoorbells>(doorbells, loop, device_->queueCount(), kNotifyMultiplier,
                                                [this](unsigned queue) { notify(queue); });
}

void PciTransport::barPlaced(unsigned slot, std::optional<std::uint64_t> base) {
  if (slot != 0 || !doorbells_) return;
  if (base) *base += kNotify;
  doorbells_->place(base);
}

void PciTransport::updateDoorbellsLocked() {
  if (!doorbells_) return;
  bool works = (status_ & (status::driverOk | status::needsReset)) == status::driverOk;
  for (unsigned i = 0; i < queues_.size(); ++i) doorbells_->setLive(i, works && queues_[i].enabled);
}

void PciTransport::notify(unsigned queue) {
  if (queue < queues_.size() && (status_ & (status::driverOk | status::needsReset)) == status::driverOk)
    device_->notify(queue);
}

bool PciTransport::goOnLater(unsigned queue) {
  return doorbells_ && queue < queues_.size() && doorbells_->ringAgain(queue);
}

void PciTransport::addCapabilities() {
  addCapability(9, capabilityBody(common, kCommon, 0x3c, 0));
  addCapability(9, capabilityBody(isrStatus, kIsr, 4, 0));
  addCapability(9, capabilityBody(deviceConfig, kDeviceConfig, 0x1000, 0));
  auto notify = capabilityBody(notification, kNotify, kNotifyMultiplier * device_->queueCount(), 4);
  storeLe(notify.data() + 14, kNotifyMultiplier);
  addCapability(9, notify);
  auto access = capabilityBody(configAccess, 0, 0, 4);
  std::vector<std::uint8_t> writable(access.size(), 0);
  writable[2] = 0xff;                                           // bar
  std::memset(writable.data() + 6, 0xff, writable.size() - 6);  // offset, length, data
  accessCapability_ = addCapability(9, access, writable);
}

std::uint64_t PciTransport::offeredFeatures() const {
  return device_->features() | feature::version1 | feature::indirectDescriptors | feature::eventIndex |
         feature::ringPacked | feature::ringReset;
}

void PciTransport::reset() {
  {
    std::lock_guard lock(mutex_);
    resetLocked();
  }
  PciFunction::reset();
}

void PciTransport::resetLocked() {
  status_ = 0;
  updateDoorbellsLocked();  // nothing begins any more
  device_->reset();
  for (std::size_t i = 0; i < queues_.size(); ++i) {
    queues_[i] = QueueState{};
    queues_[i].setup.size = device_->maxQueueSize();
    vectors_[i] = kNoVector;
  }
  configVector_ = kNoVector;
  deviceFeatureSelect_ = driverFeatureSelect_ = 0;
  driverFeatures_ = 0;
  queueSelect_ = 0;
  std::lock_guard lock(intxMutex_);
  isr_ = 0;
  setIntx(false);
}

void PciTransport::transferQueue(state::Archive& a, QueueState& queue) const {
  QueueSetup& setup = queue.setup;
  a(setup.size, setup.descriptors, setup.driverArea, setup.deviceArea, queue.vector, queue.enabled);
  a.require(setup.size != 0 && setup.size <= device_->maxQueueSize(), "a queue's size");
  a.require(queue.vector <= queues_.size() || queue.vector == kNoVector, "a queue's interrupt vector");
  setup.packed = (driverFeatures_ & feature::ringPacked) != 0;
  setup.eventIndex = (driverFeatures_ & feature::eventIndex) != 0;
  setup.indirect = (driverFeatures_ & feature::indirectDescriptors) != 0;
}

void PciTransport::transfer(state::Archive& a) {
  if (a.mayApply()) PciTransport::reset();
  PciFunction::transfer(a);
  std::lock_guard lock(mutex_);
  a(status_, configVector_, isr_, generation_, deviceFeatureSelect_, driverFeatureSelect_, driverFeatures_,
    queueSelect_);
  a.require((status_ & (status::featuresOk | status::driverOk)) == 0 || (driverFeatures_ & ~offeredFeatures()) == 0,
            "features that the device does not have");
  a.require(configVector_ <= queues_.size() || configVector_ == kNoVector, "an interrupt vector");
  std::size_t number = a.count(queues_.size(), queues_.size(), "the number of queues");
  a.require(number == queues_.size(), "the number of queues");
  for (QueueState& queue : queues_) transferQueue(a, queue);
  if (a.mayApply()) applyLoaded(a);
  device_->transfer(a);
  if (a.loading() && !a.ok()) resetLocked();
}

void PciTransport::applyLoaded(state::Archive& a) {
  if ((status_ & status::driverOk) != 0) device_->activate(driverFeatures_);
  for (unsigned i = 0; i < queues_.size(); ++i) {
    vectors_[i] = queues_[i].vector;
    if (!queues_[i].enabled) continue;
    bool accepted = false;
    device_->enableQueue(i, queues_[i].setup, accepted);
    a.require(accepted, "a queue outside of memory");
  }
  updateDoorbellsLocked();
}

void PciTransport::resume() {
  if ((status_ & (status::driverOk | status::needsReset)) != status::driverOk) return;
  for (unsigned i = 0; i < queues_.size(); ++i) {
    if (queues_[i].enabled) device_->notify(i);
  }
}

void PciTransport::interrupt(std::uint16_t vector, std::uint8_t isrBit) {
  if (msixEnabled()) {
    if (vector != kNoVector) signalMsix(vector);
    return;
  }
  std::lock_guard lock(intxMutex_);
  isr_ |= isrBit;
  setIntx(true);
}

void PciTransport::signalQueue(unsigned queue) {
  interrupt(vectors_[queue], kIsrQueue);
}

void PciTransport::signalConfig() {
  ++generation_;
  if ((status_ & status::driverOk) != 0) interrupt(configVector_, kIsrConfig);
}

void PciTransport::needsReset(unsigned queue) {
  if ((status_.fetch_or(status::needsReset) & status::needsReset) != 0) return;
  log(LogLevel::warning, "{}: the guest's driver put a bad descriptor on queue {}; the device waits for its reset",
      name(), queue);
  signalConfig();
}

std::uint64_t PciTransport::read(std::uint64_t offset, unsigned size) {
  if (size == 8) return read(offset, 4) | read(offset + 4, 4) << 32;
  if (offset < kIsr) {
    std::lock_guard lock(mutex_);
    return readCommonLocked(offset - kCommon, size);
  }
  if (offset < kDeviceConfig) {
    if (offset != kIsr) return 0;
    std::lock_guard lock(intxMutex_);
    setIntx(false);
    return isr_.exchange(0);  // reading acknowledges (4.1.4.5)
  }
  return offset < kNotify ? device_->readConfig(offset - kDeviceConfig, size) : 0;
}

void PciTransport::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if (size == 8) {
    write(offset, 4, value & 0xffffffff);
    write(offset + 4, 4, value >> 32);
  } else if (offset >= kNotify) {
    notify(static_cast<unsigned>((offset - kNotify) / kNotifyMultiplier));
  } else if (offset >= kDeviceConfig) {
    device_->writeConfig(offset - kDeviceConfig, size, static_cast<std::uint32_t>(value));
  } else if (offset < kIsr) {
    std::lock_guard lock(mutex_);
    writeCommonLocked(offset - kCommon, size, static_cast<std::uint32_t>(value));
  }
}

std::uint32_t PciTransport::readCommonLocked(std::uint64_t offset, unsigned size) {
  const QueueState* queue = queueSelect_ < queues_.size() ? &queues_[queueSelect_] : nullptr;
  auto half = [&](std::uint64_t address) {
    return static_cast<std::uint32_t>((offset & 4) != 0 ? address >> 32 : address);
  };
  switch (offset) {
    case reg::deviceFeatureSelect:
      return deviceFeatureSelect_;
    case reg::deviceFeature:
      return deviceFeatureSelect_ < 2 ? static_cast<std::uint32_t>(offeredFeatures() >> (32 * deviceFeatureSelect_))
                                      : 0;
    case reg::driverFeatureSelect:
      return driverFeatureSelect_;
    case reg::driverFeature:
      return driverFeatureSelect_ < 2 ? static_cast<std::uint32_t>(driverFeatures_ >> (32 * driverFeatureSelect_)) : 0;
    case reg::configVector:
      return configVector_;
    case reg::queueCount:
      return static_cast<std::uint32_t>(queues_.size());
    case reg::deviceStatus:
      return size == 1 ? status_.load() : status_ | std::uint32_t{generation_} << 8;
    case reg::generation:
      return generation_;
    case reg::queueSelect:
      return queueSelect_;
    case reg::queueSize:
      return queue ? queue->setup.size : 0;
    case reg::queueVector:
      return queue ? queue->vector : kNoVector;
    case reg::queueEnable:
      return queue && queue->enabled;
    case reg::queueNotifyOffset:
      return queue ? queueSelect_ : 0;
    case reg::queueDescriptors:
    case reg::queueDescriptors + 4:
      return queue ? half(queue->setup.descriptors) : 0;
    case reg::queueDriver:
    case reg::queueDriver + 4:
      return queue ? half(queue->setup.driverArea) : 0;
    case reg::queueDevice:
    case reg::queueDevice + 4:
      return queue ? half(queue->setup.deviceArea) : 0;
    default:
      return 0;
  }
}

void PciTransport::writeCommonLocked(std::uint64_t offset, unsigned size, std::uint32_t value) {
  switch (offset) {
    case reg::deviceFeatureSelect:
      deviceFeatureSelect_ = value;
      break;
    case reg::driverFeatureSelect:
      driverFeatureSelect_ = value;
      break;
    case reg::driverFeature:
      if (driverFeatureSelect_ < 2 && (status_ & status::featuresOk) == 0) {
        unsigned shift = 32 * driverFeatureSelect_;
        driverFeatures_ = (driverFeatures_ & ~(std::uint64_t{0xffffffff} << shift)) | std::uint64_t{value} << shift;
      }
      break;
    case reg::configVector:
      configVector_ = value <= queues_.size() ? static_cast<std::uint16_t>(value) : kNoVector;
      break;
    case reg::deviceStatus:
      setStatusLocked(static_cast<std::uint8_t>(value));
      break;
    case reg::queueSelect:
      queueSelect_ = static_cast<std::uint16_t>(value);
      break;
    default:
      writeQueueLocked(offset, size, value);
      break;
  }
}

void PciTransport::writeQueueLocked(std::uint64_t offset, unsigned size, std::uint32_t value) {
  if (queueSelect_ >= queues_.size()) return;
  QueueState& queue = queues_[queueSelect_];
  if (offset == reg::queueVector) {
    queue.vector = value <= queues_.size() ? static_cast<std::uint16_t>(value) : kNoVector;
    vectors_[queueSelect_] = queue.vector;
    return;
  }
  if (offset == reg::queueReset && value == 1) {
    queue.enabled = false;
    updateDoorbellsLocked();
    device_->disableQueue(queueSelect_);
    queue = QueueState{};
    queue.setup.size = device_->maxQueueSize();
    vectors_[queueSelect_] = kNoVector;
    return;
  }
  if (queue.enabled) return;  // the rest must not change then (4.1.4.3.2)
  switch (offset) {
    case reg::queueSize:
      if (value != 0 && value <= device_->maxQueueSize()) queue.setup.size = static_cast<std::uint16_t>(value);
      break;
    case reg::queueEnable:
      if (value == 1) enableQueueLocked(queue);
      updateDoorbellsLocked();
      break;
    case reg::queueDescriptors:
    case reg::queueDescriptors + 4:
      setHalf(queue.setup.descriptors, offset, size, value);
      break;
    case reg::queueDriver:
    case reg::queueDriver + 4:
      setHalf(queue.setup.driverArea, offset, size, value);
      break;
    case reg::queueDevice:
    case reg::queueDevice + 4:
      setHalf(queue.setup.deviceArea, offset, size, value);
      break;
    default:
      break;
  }
}

void PciTransport::enableQueueLocked(QueueState& queue) {
  queue.setup.packed = (driverFeatures_ & feature::ringPacked) != 0;
  queue.setup.eventIndex = (driverFeatures_ & feature::eventIndex) != 0;
  queue.setup.indirect = (driverFeatures_ & feature::indirectDescriptors) != 0;
  device_->enableQueue(queueSelect_, queue.setup, queue.enabled);
  if (!queue.enabled) needsReset(queueSelect_);
}

void PciTransport::setStatusLocked(std::uint8_t value) {
  if (value == 0) {
    resetLocked();
    return;
  }
  std::uint8_t raised = value & static_cast<std::uint8_t>(~status_.load());
  if ((raised & status::featuresOk) != 0) {
    // What was not offered, or a driver without VERSION_1, is refused by leaving the bit clear (2.2.2, 6.1).
    bool acceptable = (driverFeatures_ & ~offeredFeatures()) == 0 && (driverFeatures_ & feature::version1) != 0;
    if (!acceptable) value &= static_cast<std::uint8_t>(~status::featuresOk);
  }
  if ((raised & status::driverOk) != 0) device_->activate(driverFeatures_);
  status_ = static_cast<std::uint8_t>(value | (status_ & status::needsReset));
  updateDoorbellsLocked();
}

bool PciTransport::accessWindow(std::uint64_t& offset, unsigned& size) {
  std::uint32_t bar = readConfig(accessCapability_ + 4u, 1);
  offset = readConfig(accessCapability_ + 8u, 4);
  size = readConfig(accessCapability_ + 12u, 4);
  return bar == 0 && (size == 1 || size == 2 || size == 4) && offset % size == 0 && offset + size <= kBarBytes;
}

void PciTransport::configAboutToBeRead(unsigned offset, unsigned size) {
  unsigned data = accessCapability_ + 16u;
  if (accessCapability_ == 0 || windowClosed_ || offset + size <= data || offset >= data + 4) return;
  std::uint64_t at = 0;
  unsigned length = 0;
  if (!accessWindow(at, length)) return;
  std::array<std::uint8_t, 4> bytes{};
  storeLe(bytes.data(), static_cast<std::uint32_t>(read(at, length)));
  storeConfig(data, std::span(bytes).first(length));
}

void PciTransport::configWritten(unsigned offset, unsigned size) {
  unsigned data = accessCapability_ + 16u;
  if (accessCapability_ == 0 || offset + size <= data || offset >= data + 4) return;
  std::uint64_t at = 0;
  unsigned length = 0;
  std::uint32_t value = 0;
  if (!accessWindow(at, length)) return;
  // The data bytes as they were stored, not what lies behind the window.
  windowClosed_ = true;
  value = readConfig(data, 4);
  windowClosed_ = false;
  write(at, length, length == 4 ? value : value & ((1u << (8 * length)) - 1));
}

}  // namespace lodge::virtio
