// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "machine/config.h"
#include "machine/config_state.h"
#include "memory/guest_memory.h"
#include "state/snapshot.h"
#include "state/state_file.h"
#include "x86/cpu_model.h"

namespace lodge {

/// An open state file, and what it says of the machine as a whole.
struct SavedMachine {
  std::shared_ptr<state::StateFile> file;
  state::Snapshot snapshot;
  MachineConfig config;
  SavedDisks disks;

  /// Errors: StateFile::open()'s, corrupt, unsupported.
  static Result<std::unique_ptr<SavedMachine>> open(const std::string& path);
};

/// Saves or loads configuration and disks.
void transferDescription(state::Snapshot& snapshot, MachineConfig config, SavedDisks disks);

/// Saves or loads what the guest's CPUs are. Loading: a host without the features of the saved machine is refused, else
/// the guest's CPUID stays what it was.
void transferModel(state::Snapshot& snapshot, x86::CpuModel& model);

/// Whether the engine gives the guest the CPU that it has. Errors: unsupported, with what is missing; limitModel()'s
/// and keepsTscRate()'s.
Status engineKeepsModel(const std::string& engine, const x86::CpuModel& model, Irqchip irqchip);

/// Saves or loads where the machine's clocks stand. `hostTsc` and `now` belong to the same moment; `now` becomes the
/// machine's time when it was saved. Loading: the model gets the rate of the machine's time stamp counter, which
/// belongs there before CPUs are made of it, too. `utc`: the host's time at that moment, in and out; 0 where an older
/// state does not tell.
void transferClocks(state::Snapshot& snapshot, x86::CpuModel& model, std::uint64_t hostTsc, Nanoseconds& now,
                    Nanoseconds& utc);

/// The file's memory.
std::unique_ptr<MemorySource> makeMemorySource(std::shared_ptr<const state::StateFile> file);

}  // namespace lodge
