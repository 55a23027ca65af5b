// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "control/json_fields.h"
#include "engine/kvm/probe.h"

namespace lodge::cli {

/// One thing that `lodge doctor` looked at.
struct Finding {
  enum class Grade : std::uint8_t { good, note, bad };
  std::string key;    ///< for --json: "kvm", "tap"
  std::string title;  ///< for people
  Grade grade = Grade::good;
  std::string text{};  ///< what is there, and what it means
  control::Json facts = control::Json::object();
};

/// Looks at everything. Takes up to some seconds if the host's KVM is broken.
std::vector<Finding> examineHost();

// One look each, in doctor_cpu.cpp, doctor_kvm.cpp, doctor_memory.cpp, doctor_host.cpp and doctor_kernel.cpp.
Finding examineProcessor();
Finding examineVirtualization();
Finding examineInstructions();
Finding examineModules();
Finding examineNesting();
Finding examineOtherHypervisors();
Finding examineCapabilities();
Finding examineHugePages();
Finding examineKsm();
Finding examineIommu();
Finding examineBridges();
Finding examineKvm(const kvm::ProbeResult& result);
Finding examineMemory();
Finding examineOvercommit();
Finding examineMapCount();
Finding examineMemfd();
Finding examineReservations();
Finding examineMembarrier();
Finding examineExecutors();
Finding examineUserfaultfd();
Finding examineNamespaces();
Finding examineTap();
/// The kinds of networks that this user can have, and why not the others.
Finding examineNetworks();
Finding examineRuntimeFolder();
Finding examineEngine(const kvm::ProbeResult& result);
/// Each engine by its name: usable, or why not and what to do.
Finding examineEngines(const kvm::ProbeResult& result);

}  // namespace lodge::cli
