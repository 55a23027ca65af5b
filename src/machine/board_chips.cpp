// SPDX-License-Identifier: Apache-2.0
#include "machine/board_chips.h"

namespace lodge {

Status BoardChips::give(Engine& engine) {
  auto* keeper = dynamic_cast<ChipKeepingEngine*>(&engine);
  if (engine_ || !keeper || !keeper->keepsChips()) return {};
  Status done;
  bool owes = false;
  given_.pit = setup_.pit.surrender(owes);
  given_.pitIsSilent = setup_.irq0.secondSelected();
  setup_.router.setKeeper(this, [&] {
    given_.pic = setup_.pic.surrender();
    given_.ioApic = setup_.ioApic.surrender();
    engine_ = keeper;
    done = keeper->writeChips(given_);
    if (!done || !owes || given_.pitIsSilent) return;
    keeper->setLine(0, true);
    keeper->setLine(0, false);
  });
  return done;
}

Status BoardChips::take() {
  if (!engine_) return {};
  Status done;
  setup_.router.setKeeper(nullptr, [&] {
    done = engine_.load()->readChips(given_);
    std::uint32_t levels = setup_.router.levels();
    given_.pic[0].levels = static_cast<std::uint8_t>(levels);
    given_.pic[1].levels = static_cast<std::uint8_t>(levels >> 8);
    given_.ioApic.levels = (levels & ~5u) | (levels & 1) << 2;
    setup_.pic.restore(given_.pic);
    setup_.ioApic.adopt(given_.ioApic);
    engine_ = nullptr;
  });
  setup_.pit.restore(given_.pit);
  return done;
}

void BoardChips::leave() {
  setup_.router.setKeeper(nullptr, [this] { engine_ = nullptr; });
}

void BoardChips::pitSilenced(bool silent) {
  if (ChipKeepingEngine* engine = engine_) engine->silencePit(silent);
}

}  // namespace lodge
