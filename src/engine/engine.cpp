// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include "engine/kvm/cpuid.h"
#include "engine/kvm/tsc_rate.h"

namespace lodge {

Result<std::unique_ptr<Engine>> makeEngine(std::string_view name, const EngineSetup& setup) {
  if (name == "interpret") return makeInterpretEngine(setup);
  if (name == "kvm") return makeKvmEngine(setup);
#ifdef LODGE_HAVE_TRANSLATE
  if (name == "translate") return makeTranslateEngine(setup);
#endif
  return Error(ErrorKind::unsupported, "engine '" + std::string(name) + "'")
      .withHint("this version has kvm, translate and interpret");
}

Status offerInterfaces(std::string_view engine, x86::CpuModel& model, GuestInterfaces interfaces, Irqchip irqchip) {
  return engine == "kvm" && interfaces.any() ? kvm::offerInterfaces(model, interfaces, irqchip) : Status{};
}

Status limitModel(std::string_view engine, x86::CpuModel& model, Irqchip irqchip) {
  return engine == "kvm" ? kvm::limitModel(model, irqchip) : Status{};
}

Status keepsTscRate(std::string_view engine, const x86::CpuModel& model) {
  return engine == "kvm" ? kvm::keepsTscRate(model) : Status{};
}

}  // namespace lodge
