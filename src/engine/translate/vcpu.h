// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "engine/engine.h"
#include "engine/interpret/interpreter.h"
#include "engine/translate/executor.h"
#include "engine/translate/lockstep.h"
#include "engine/translate/vcpu_context.h"

namespace lodge::translate {

/// One vCPU of the translate engine: its tables, and the dispatcher that runs translated code, the interpreter and
/// event handling in turn (dispatch.cpp).
class TranslateVcpu final : public Vcpu {
 public:
  static Result<std::unique_ptr<TranslateVcpu>> create(const EngineSetup& setup, TranslationStore& store,
                                                       unsigned index, x86::CpuEnvironment& environment);
  ~TranslateVcpu() override;

  x86::Cpu& cpu() override { return *context_.cpu; }
  VcpuExit run() override;
  void waitForEvent() override;
  std::vector<std::pair<std::string, std::uint64_t>> statistics() const override;

  VcpuContext& context() { return context_; }
  /// For tests: runs translated code (or one interpreted instruction) at state.rip and comes back at the first exit.
  void runOnce();

 private:
  TranslateVcpu() = default;
  /// Host code for state.rip; 0 where it must be interpreted, or where the cache is full.
  std::uint64_t lookUp();
  PageUnit* findUnit(std::uint64_t rip);
  void joinPages();
  void enter(std::uint64_t host);
  bool handleExit(ExitReason reason);
  void executeSome();
  bool runExecutor();

  std::unique_ptr<AddressSpaces> spaces_;
  std::unique_ptr<interpret::ContextOwner> interpreter_;
  std::unique_ptr<Lockstep> lockstep_;
  std::unique_ptr<Executors> executors_;
  VcpuContext context_;
  std::uint64_t nextHost_ = 0;  ///< where a followed link leads
};

}  // namespace lodge::translate
