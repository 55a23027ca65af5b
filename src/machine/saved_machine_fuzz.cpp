// SPDX-License-Identifier: Apache-2.0
// The parts of a saved machine from anybody, each as the fields of a section that is whole: the configuration, what its
// disks were, a CPU, and what an engine has beside it. What was loaded is then saved, and must load again as the same.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "machine/config_state.h"
#include "machine/cpu_state.h"
#include "machine/interface_state.h"
#include "x86/model/host_cpu.h"

using namespace lodge;
using state::Archive;

namespace {

/// Loads `data` by `load`, which has a new object each time, and what `save` makes of that object again.
template <class T>
void goThrough(std::span<const std::byte> data, std::uint16_t version,
               const std::function<void(Archive&, T&)>& fields) {
  T first{}, second{};
  Archive loading(data, version);
  fields(loading, first);
  if (!loading.finish()) return;
  Archive saving(version);
  fields(saving, first);
  Archive again(saving.saved(), version);
  fields(again, second);
  Archive last(version);
  fields(last, second);
  if (!again.finish() || last.saved() != saving.saved()) __builtin_trap();
}

void loadCpu(std::span<const std::byte> data) {
  static const std::unique_ptr<x86::CpuModel> model = std::move(*x86::makeCpuModel("x86-64-v2", 1));
  static const std::unique_ptr<x86::Cpu> cpu = std::make_unique<x86::Cpu>();
  cpu->model = model.get();
  Archive loading(data, 1);
  transferCpu(loading, *cpu, 1'000'000);
  if (!loading.ok()) return;
  Archive saving(1);
  transferCpu(saving, *cpu, 1'000'000);
  Archive again(saving.saved(), 1);
  transferCpu(again, *cpu, 1'000'000);
  if (!again.finish()) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  auto fields = std::as_bytes(std::span(data + 2, size - 2));
  auto version = static_cast<std::uint16_t>(1 + data[1] % 4);
  switch (data[0] % 5) {
    case 0:
      goThrough<MachineConfig>(fields, version, [](Archive& a, MachineConfig& c) { transfer(a, c); });
      break;
    case 1:
      goThrough<SavedDisks>(fields, version, [](Archive& a, SavedDisks& d) { transfer(a, d); });
      break;
    case 2:
      goThrough<NestedState>(fields, 1, [](Archive& a, NestedState& s) { transfer(a, s); });
      break;
    case 3:
      goThrough<InterfaceState>(fields, 1, [](Archive& a, InterfaceState& s) { transferHyperv(a, s); });
      break;
    default:
      loadCpu(fields);
  }
  return 0;
}
