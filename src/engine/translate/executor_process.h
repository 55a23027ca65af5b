// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/file.h"
#include "engine/translate/executor_abi.h"

namespace lodge::translate {

/// A process of the host that runs a guest program's translated code in an address space that shows the program's pages
/// where the guest has them, and nothing else of the machine but its own stub, code and tables (executor_layout.h).
/// Guest code there can read and write what its page tables give it because the host's processor sees to it.
///
/// The process and the vCPU's thread never run at the same time: run() gives it the processor until it stops. Used by
/// the vCPU's thread; kick() by signal handlers on it, too.
class ExecutorProcess {
 public:
  /// Whether the host's processor and kernel can do this at all.
  static bool isPossible();
  /// `ramFile`: guest RAM. Null where the host refuses something.
  static std::unique_ptr<ExecutorProcess> start(int ramFile);
  ~ExecutorProcess();
  ExecutorProcess(const ExecutorProcess&) = delete;
  ExecutorProcess& operator=(const ExecutorProcess&) = delete;

  ExecutorState& state() const { return *reinterpret_cast<ExecutorState*>(shared_ + EXECUTOR_STATE); }
  /// Asks for a change of the address space before it runs again. False: too many at once.
  bool ask(const ExecutorCommand& command);
  std::uint64_t asked() const { return commands().count; }
  void forgetAsked() { commands().count = 0; }
  ExecutorTarget* targets() const { return reinterpret_cast<ExecutorTarget*>(table_); }
  ExecutorTarget* targets2() const { return reinterpret_cast<ExecutorTarget*>(table_ + EXECUTOR_TABLE_BYTES); }

  /// Where code is written, and where it runs from; EXECUTOR_CODE_BYTES of it, of which the first stubBytes() are
  /// taken.
  std::uint8_t* code() const { return code_; }
  std::uint64_t codeAddress() const { return base_ + EXECUTOR_CODE; }
  static std::uint64_t stubBytes();
  /// Where the stub's label is in the executor.
  std::uint64_t stubAddress(const std::uint8_t* label) const;
  /// Whether an address of the guest's is one of the executor's own.
  bool covers(std::uint64_t linear) const { return linear - base_ < EXECUTOR_BYTES; }
  std::uint64_t base() const { return base_; }

  /// Lets it run from what the state says until it stops; soon, once `wantsStop` is not 0. False: it is dead.
  bool run(const volatile std::uint32_t& wantsStop = kNever);
  /// Whether it was let go on by the last run(): one that was dead before has done nothing.
  bool hasAnswered() const { return answered_; }
  /// Makes it stop soon.
  void kick() const;
  pid_t pid() const { return pid_; }
  /// Nanoseconds of processor time so far.
  std::uint64_t processorTime() const;
  /// On the processor that this thread runs on: the two take turns.
  void follow();

 private:
  static constexpr std::uint32_t kNever = 0;
  ExecutorProcess() = default;
  bool makeMemory();
  bool wait(const volatile std::uint32_t& wantsStop);
  bool receive();
  bool reply();
  bool installFilter() const;
  bool begin();
  [[noreturn]] void child() const;
  bool isAlive();
  ExecutorCommands& commands() const { return *reinterpret_cast<ExecutorCommands*>(shared_ + EXECUTOR_COMMANDS); }

  UniqueFd sharedFile_, codeFile_;
  UniqueFd listener_;         ///< of its filter: a stop is a system call that waits for an answer
  std::uint64_t stop_ = 0;    ///< the stop that is to be answered
  std::uint64_t cookie_ = 0;  ///< what the filter wants to see with changes of the address space
  std::uint8_t* shared_ = nullptr;
  std::uint8_t* table_ = nullptr;
  std::uint8_t* code_ = nullptr;
  std::uint64_t base_ = 0;
  pid_t pid_ = 0;
  bool answered_ = false;
  int processor_ = -1;
};

}  // namespace lodge::translate
