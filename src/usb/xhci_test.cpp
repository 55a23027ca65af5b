// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "base/units.h"
#include "usb/tablet.h"
#include "usb/xhci_controller.h"

namespace lodge::usb {
namespace {

using namespace xhci;

/// A driver: rings in guest memory, commands one at a time.
class Xhci : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kContexts = 0x1000, kCommands = 0x2000, kEvents = 0x3000, kTable = 0x4000,
                                 kInput = 0x5000, kOutput = 0x6000, kControl = 0x7000, kReports = 0x8000,
                                 kBuffer = 0x9000;
  Xhci() {
    xhci_.attach(1, tablet_);
    put(reg::config, XhciController::kSlots);
    put64(reg::dcbaap, kContexts);
    put64(reg::crcr, kCommands | 1);
    store(kTable, kEvents);
    store(kTable + 8, std::uint64_t{16});
    put(reg::erstSize, 1);
    put64(reg::erdp, kEvents);
    put64(reg::erstBase, kTable);
    put(reg::iman, kEnabled);
    put(reg::usbCmd, kRun | kInterruptEnable);
  }
  std::uint32_t get(unsigned at) { return static_cast<std::uint32_t>(xhci_.registers().read(at, 4)); }
  void put(unsigned at, std::uint32_t value) { xhci_.registers().write(at, 4, value); }
  void put64(unsigned at, std::uint64_t value) { xhci_.registers().write(at, 8, value); }
  template <class T>
  void store(std::uint64_t at, T value) {
    ASSERT_TRUE(memory_->writeObject(Gpa{at}, value));
  }
  template <class T>
  T load(std::uint64_t at) {
    T value{};
    EXPECT_TRUE(memory_->readObject(Gpa{at}, value));
    return value;
  }
  /// The next event, which is taken; type 0: none.
  Trb event() {
    Trb trb = load<Trb>(kEvents + 16 * (taken_ % 16));
    if (trb.cycle() != (taken_ / 16 % 2 == 0)) return {};
    ++taken_;
    put64(reg::erdp, (kEvents + 16 * (taken_ % 16)) | kHandlerBusy);
    return trb;
  }
  Trb command(unsigned type, std::uint64_t parameter = 0, unsigned slot = 0, std::uint32_t bits = 0) {
    store(kCommands + 16 * commands_++, Trb{parameter, 0, slot << 24 | type << 10 | bits | 1});
    put(reg::doorbells, 0);
    Trb done = event();
    EXPECT_EQ(done.type(), unsigned{trb::commandEvent});
    return done;
  }
  static Code code(const Trb& event) { return static_cast<Code>(event.status >> 24); }
  void addressDevice() {
    EXPECT_EQ(event().type(), unsigned{trb::portEvent});
    put(reg::ports + 16, port::power | port::reset);
    EXPECT_EQ(event().parameter >> 24, 2u);
    EXPECT_EQ(get(reg::ports + 16) & (port::enabled | port::linkMask), port::enabled);
    EXPECT_EQ(command(trb::enableSlot).control >> 24, 1u);
    store(kContexts + 8, kOutput);
    store(kInput, Context{{0, 3}});
    store(kInput + 32, Context{{1u << 27 | 1u << 20, 2u << 16}});
    store(kInput + 64, Context{{0, 4u << 3 | 8u << 16, kControl | 1}});
    EXPECT_EQ(code(command(trb::addressDevice, kInput, 1)), Code::success);
    EXPECT_EQ(load<Context>(kOutput).words[3], 2u << 27 | 1u);
    EXPECT_EQ(load<Context>(kOutput + 32).words[0] & 7, 1u);
  }
  void configure() {
    store(kInput, Context{{0, 1u << 3 | 1}});
    store(kInput + 32, Context{{3u << 27 | 1u << 20, 2u << 16}});
    store(kInput + 32 * 4, Context{{6u << 16, 7u << 3 | 8u << 16, kReports | 1}});
    EXPECT_EQ(code(command(trb::configureEndpoint, kInput, 1)), Code::success);
    control(0x00, 9, 1, 0, 0);
    EXPECT_EQ(code(event()), Code::success);
  }
  /// A control transfer without data or to the host.
  void control(unsigned requestType, unsigned request, unsigned value, unsigned index, unsigned length) {
    std::uint64_t setup =
        requestType | request << 8 | value << 16 | std::uint64_t{index} << 32 | std::uint64_t{length} << 48;
    auto add = [&](std::uint64_t parameter, std::uint32_t status, std::uint32_t bits) {
      store(kControl + 16 * controls_++, Trb{parameter, status, bits | 1});
    };
    add(setup, 8, trb::setup << 10 | trb::immediate);
    if (length != 0) add(kBuffer, length, trb::data << 10 | trb::toHost | trb::shortPacket);
    add(0, 0, trb::status << 10 | trb::onCompletion);
    put(reg::doorbells + 4, 1);
  }

  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(1_MiB));
  Tablet tablet_;
  XhciController xhci_{*memory_};
  unsigned taken_ = 0, commands_ = 0, controls_ = 0;
};

TEST_F(Xhci, SaysWhatItIs) {
  EXPECT_EQ(get(0) & 0xff, reg::operational);
  EXPECT_EQ(get(4) >> 24, 2 * XhciController::kPorts);
  EXPECT_EQ(get(0x14), reg::doorbells);
  EXPECT_EQ(get(0x24), 0x20425355u);
  EXPECT_EQ(xhci_.registers().read(0, 1), reg::operational);
  EXPECT_EQ(xhci_.registers().read(2, 2), 0x100u);
  EXPECT_NE(get(reg::ports + 16) & port::connected, 0u);
  EXPECT_EQ(get(reg::ports) & port::connected, 0u);
}

TEST_F(Xhci, ReadsDescriptors) {
  addressDevice();
  control(0x80, 6, 0x0100, 0, 64);
  Trb done = event();
  EXPECT_EQ(code(done), Code::shortPacket);
  EXPECT_EQ(done.status & 0xffffff, 64u - 18);
  EXPECT_EQ(code(event()), Code::success);
  EXPECT_EQ(load<std::uint16_t>(kBuffer), 0x0112);
  control(0x80, 6, 0x0200, 0, 9);
  EXPECT_EQ(code(event()), Code::success);
  EXPECT_EQ(load<std::uint16_t>(kBuffer + 2), 34);
}

TEST_F(Xhci, StallsAndGoesOn) {
  addressDevice();
  control(0x80, 6, 0x0600, 0, 10);
  EXPECT_EQ(code(event()), Code::stall);
  EXPECT_EQ(load<Context>(kOutput + 32).words[0] & 7, 2u);
  put(reg::doorbells + 4, 1);
  EXPECT_EQ(event().type(), 0u) << "a halted endpoint does nothing";
  EXPECT_EQ(code(command(trb::setDequeue, (kControl + 16 * controls_) | 1, 1, 1 << 16)), Code::contextState);
  EXPECT_EQ(code(command(trb::resetEndpoint, 0, 1, 1 << 16)), Code::success);
  EXPECT_EQ(code(command(trb::setDequeue, (kControl + 16 * controls_) | 1, 1, 1 << 16)), Code::success);
  control(0x80, 8, 0, 0, 1);
  EXPECT_EQ(code(event()), Code::success);
}

TEST_F(Xhci, ReportsTheTablet) {
  addressDevice();
  EXPECT_FALSE(tablet_.move(1, 2, 0, 0));
  configure();
  store(kReports, Trb{kBuffer, 8, trb::normal << 10 | trb::onCompletion | trb::shortPacket | 1});
  put(reg::doorbells + 4, 3);
  EXPECT_EQ(event().type(), 0u) << "nothing moved yet";
  EXPECT_TRUE(tablet_.move(0x1234, 0x7fff, 1 | 2, -1));
  Trb done = event();
  EXPECT_EQ(code(done), Code::shortPacket);
  EXPECT_EQ(done.parameter, kReports);
  EXPECT_EQ(done.status & 0xffffff, 2u);
  EXPECT_EQ(done.control >> 16 & 31, 3u);
  EXPECT_EQ(load<std::uint8_t>(kBuffer), 0b101);
  EXPECT_EQ(load<std::uint16_t>(kBuffer + 1), 0x1234);
  EXPECT_EQ(load<std::uint16_t>(kBuffer + 3), 0x7fff);
  EXPECT_EQ(load<std::uint8_t>(kBuffer + 5), 0xff);
  // Without a TRB the newest position waits.
  tablet_.move(1, 1, 0, 0);
  tablet_.move(2, 2, 0, 0);
  store(kReports + 16, Trb{kBuffer, 6, trb::normal << 10 | trb::onCompletion | 1});
  put(reg::doorbells + 4, 3);
  EXPECT_EQ(code(event()), Code::success);
  EXPECT_EQ(load<std::uint16_t>(kBuffer + 1), 2);
}

TEST_F(Xhci, GoesOnAfterItWasSaved) {
  addressDevice();
  configure();
  store(kReports, Trb{kBuffer, 8, trb::normal << 10 | trb::onCompletion | trb::shortPacket | 1});
  put(reg::doorbells + 4, 3);
  EXPECT_EQ(event().type(), 0u) << "the transfer waits for the pointer";
  state::Archive controller, device;
  xhci_.transfer(controller);
  tablet_.transfer(device);
  ASSERT_TRUE(controller.finish() && device.finish());

  Tablet tablet;
  XhciController xhci(*memory_);
  xhci.attach(1, tablet);
  state::Archive fromController(controller.saved(), 1), fromDevice(device.saved(), 1);
  xhci.transfer(fromController);
  tablet.transfer(fromDevice);
  ASSERT_TRUE(fromController.finish() && fromDevice.finish());
  EXPECT_TRUE(tablet.move(0x1234, 0x7fff, 1, 0));
  Trb done = event();
  EXPECT_EQ(code(done), Code::shortPacket);
  EXPECT_EQ(done.parameter, kReports);
  EXPECT_EQ(load<std::uint16_t>(kBuffer + 1), 0x1234);

  for (std::size_t cut = 0; cut < controller.saved().size(); cut += 61) {
    state::Archive shorter(std::span(controller.saved()).first(cut), 1);
    xhci.transfer(shorter);
    EXPECT_FALSE(shorter.finish());
    EXPECT_EQ(xhci.registers().read(reg::usbCmd, 4), 0u) << "as after a reset";
  }
}

TEST_F(Xhci, StopsAnEndpointThatWaits) {
  addressDevice();
  configure();
  store(kReports, Trb{kBuffer, 8, trb::normal << 10 | trb::onCompletion | 1});
  put(reg::doorbells + 4, 3);
  store(kCommands + 16 * commands_++, Trb{0, 0, 1u << 24 | 3u << 16 | trb::stopEndpoint << 10 | 1});
  put(reg::doorbells, 0);
  EXPECT_EQ(code(event()), Code::stopped);
  EXPECT_EQ(code(event()), Code::success);
  EXPECT_EQ(load<Context>(kOutput + 96).words[0] & 7, 3u);
  tablet_.move(5, 5, 0, 0);
  EXPECT_EQ(event().type(), 0u);
  put(reg::doorbells + 4, 3);
  EXPECT_EQ(code(event()), Code::shortPacket);
}

TEST_F(Xhci, CommandsThatCannotBe) {
  EXPECT_EQ(event().type(), unsigned{trb::portEvent});
  EXPECT_EQ(code(command(trb::addressDevice, kInput, 5)), Code::slotNotEnabled);
  EXPECT_EQ(code(command(60)), Code::trbError);
  EXPECT_EQ(code(command(trb::noOpCommand)), Code::success);
  EXPECT_EQ(command(trb::enableSlot).control >> 24, 1u);
  EXPECT_EQ(code(command(trb::addressDevice, kInput, 1)), Code::trbError);
  EXPECT_EQ(code(command(trb::configureEndpoint, kInput, 1)), Code::contextState);
  EXPECT_EQ(code(command(trb::disableSlot, 0, 1)), Code::success);
  EXPECT_EQ(code(command(trb::disableSlot, 0, 1)), Code::slotNotEnabled);
}

TEST_F(Xhci, HoldsEventsBackUntilThereIsRoom) {
  EXPECT_EQ(event().type(), unsigned{trb::portEvent});
  for (unsigned n = 0; n < 30; ++n) store(kCommands + 16 * n, Trb{n, 0, trb::noOpCommand << 10 | 1});
  put(reg::doorbells, 0);
  for (unsigned n = 0; n < 30; ++n) EXPECT_EQ(event().parameter, kCommands + 16 * n) << n;
  EXPECT_EQ(event().type(), 0u);
}

TEST_F(Xhci, EndlessRingsEnd) {
  store(kCommands, Trb{kCommands, 0, trb::link << 10 | 1});
  put(reg::doorbells, 0);
  store(kCommands, Trb{0, 0, trb::noOpCommand << 10 | 1});
  store(kCommands + 16, Trb{kCommands, 0, trb::link << 10 | 1});
  put(reg::doorbells, 0);
  SUCCEED();
}

TEST_F(Xhci, ResetForgets) {
  addressDevice();
  put(reg::usbCmd, kReset);
  EXPECT_EQ(get(reg::usbCmd), 0u);
  EXPECT_EQ(get(reg::usbSts), kHalted);
  EXPECT_EQ(get(reg::ports + 16) & port::enabled, 0u);
  EXPECT_FALSE(tablet_.move(1, 1, 0, 0));
}

}  // namespace
}  // namespace lodge::usb
