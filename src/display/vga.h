// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/futex_mutex.h"
#include "device/pci.h"
#include "display/screen.h"
#include "memory/guest_memory.h"

namespace lodge {

/// A VGA (IBM VGA reference; FreeVGA's description) with the "VBE DISPI" registers and the PCI identity that Bochs made
/// known (1234:1111): text and graphics modes, and a linear frame buffer of up to 32 bits a pixel, which Linux's
/// bochs-drm and SeaBIOS's vgabios-stdvga drive. BAR 0 is video memory, BAR 2 has the registers once more. Video memory
/// is GuestMemory's, so that guests store to the frame buffer directly; its dirty pages tell whether there is something
/// new.
class Vga : public PciFunction {
 public:
  static constexpr std::uint64_t kMemoryBytes = 16 << 20;
  static constexpr std::uint64_t kWindowBase = 0xa0000, kWindowBytes = 0x20000;
  static constexpr unsigned kMaxWidth = 2560, kMaxHeight = 1600;

  /// `region`: the index of GuestMemory's region that video memory takes; its videoSize() is kMemoryBytes.
  Vga(GuestMemory& memory, unsigned region);

  /// VGA ports 0x3b0-0x3df, DISPI ports 0x1ce-0x1d1, and the window at 0xa0000. Errors: alreadyExists.
  Status plugPorts(IoBus& ports, IoBus& mmio);
  void reset() override;
  void transfer(state::Archive& a) override;

  /// Draws what is shown. False: nothing changed since the last call, `screen` was left alone. I/O thread.
  bool draw(Screen& screen);
  /// The next draw() draws.
  void redraw();

  struct Registers {
    std::uint8_t misc = 0, feature = 0, sequencerIndex = 0, graphicsIndex = 0, attributeIndex = 0, crtcIndex = 0;
    std::uint8_t dacMask = 0xff, dacRead = 0, dacWrite = 0, dacPart = 0, dacState = 0;
    bool attributeData = false, retrace = false;
    std::array<std::uint8_t, 8> sequencer{};
    std::array<std::uint8_t, 16> graphics{};
    std::array<std::uint8_t, 32> attribute{};
    std::array<std::uint8_t, 256> crtc{};
    std::array<std::uint8_t, 768> palette{};
    std::uint16_t dispiIndex = 0;
    std::array<std::uint16_t, 16> dispi{};
    std::uint32_t latch = 0;
  };

 private:
  template <std::uint64_t (Vga::*Read)(std::uint64_t, unsigned),
            void (Vga::*Write)(std::uint64_t, unsigned, std::uint64_t)>
  struct Range : IoDevice {
    explicit Range(Vga& o) : owner(o) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override { return (owner.*Read)(offset, size); }
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override {
      (owner.*Write)(offset, size, value);
    }
    Vga& owner;
  };

  /// Of the ports and the window, which guests use for every character: its functions are called with the mutex held,
  /// and may run with the guest's vector registers live (vga_registers.cpp and vga_window.cpp are compiled for that).
  struct LiveRange final : IoDevice {
    using Read = std::uint64_t (Vga::*)(std::uint64_t offset, unsigned size);
    using Write = void (Vga::*)(std::uint64_t offset, unsigned size, std::uint64_t value);
    LiveRange(Vga& o, Read r, Write w) : owner(o), readLocked(r), writeLocked(w) {}
    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    bool readLive(std::uint64_t offset, unsigned size, std::uint64_t& value) override;
    bool writeLive(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    Vga& owner;
    Read readLocked;
    Write writeLocked;
  };

  void barPlaced(unsigned slot, std::optional<std::uint64_t> base) override;
  // vga_registers.cpp
  std::uint64_t readPortsLocked(std::uint64_t offset, unsigned size);
  void writePortsLocked(std::uint64_t offset, unsigned size, std::uint64_t value);
  std::uint8_t readPortLocked(unsigned port);
  void writePortLocked(unsigned port, std::uint8_t value);
  void writeAttributeLocked(std::uint8_t value);
  // vga_dispi.cpp
  std::uint64_t readRegisterBar(std::uint64_t offset, unsigned size);
  void writeRegisterBar(std::uint64_t offset, unsigned size, std::uint64_t value);
  std::uint64_t readDispiPorts(std::uint64_t offset, unsigned size);
  void writeDispiPorts(std::uint64_t offset, unsigned size, std::uint64_t value);
  std::uint16_t readDispiLocked(unsigned index);
  void writeDispiLocked(unsigned index, std::uint16_t value);
  void enableDispiLocked(std::uint16_t value);
  // vga_window.cpp
  std::uint64_t readWindowLocked(std::uint64_t offset, unsigned size);
  void writeWindowLocked(std::uint64_t offset, unsigned size, std::uint64_t value);
  bool dispiOnLocked() const;
  std::uint8_t readWindowByteLocked(std::uint32_t address);
  void writeWindowByteLocked(std::uint32_t address, std::uint8_t value);
  void writePlanesLocked(std::uint32_t at, std::uint8_t value);
  bool windowAddressLocked(std::uint32_t& address) const;
  // vga.cpp
  std::uint64_t readVideo(std::uint64_t offset, unsigned size);
  void writeVideo(std::uint64_t offset, unsigned size, std::uint64_t value);
  void storedLocked(std::uint64_t at) { memory_.noteStore(memory_.videoOffset() + at); }
  std::uint8_t* video() { return reinterpret_cast<std::uint8_t*>(memory_.deviceView() + memory_.videoOffset()); }
  // vga_draw.cpp
  bool takeChangesLocked();
  void drawLocked(Screen& screen);
  void drawDispi(Screen& screen);
  void drawText(Screen& screen);
  void drawGraphics(Screen& screen);

  GuestMemory& memory_;
  unsigned region_;
  LiveRange ports_{*this, &Vga::readPortsLocked, &Vga::writePortsLocked};
  LiveRange window_{*this, &Vga::readWindowLocked, &Vga::writeWindowLocked};
  Range<&Vga::readDispiPorts, &Vga::writeDispiPorts> dispiPorts_{*this};
  Range<&Vga::readVideo, &Vga::writeVideo> frameBuffer_{*this};
  Range<&Vga::readRegisterBar, &Vga::writeRegisterBar> registerBar_{*this};
  FutexMutex mutex_;
  Registers regs_;
  bool changed_ = true;  ///< registers that the picture depends on
  bool again_ = false;   ///< stores may have come between the last look at dirty pages and their protection
};

}  // namespace lodge
