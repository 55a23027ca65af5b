// SPDX-License-Identifier: Apache-2.0
// What the guest's TLB maintenance does to soft TLBs and code maps. Runs with guest vector registers live.
#include "engine/translate/executor.h"
#include "engine/translate/vcpu_context.h"

namespace lodge::translate {

using namespace x86;

namespace {
std::uint16_t currentPcid(const CpuState& s) {
  return (s.cr4 & cr4::pcide) != 0 ? s.cr3 & 0xfff : 0;
}
}  // namespace

PageUnit* VcpuContext::knownUnit(std::uint64_t linear) {
  if (CodeMap* map = spaces->code(key().mode())) {
    std::uint64_t word = map->find(linear);
    return word == 0 ? nullptr : store->unitOfTable(CodeMap::tableOf(word, linear));
  }
  const AcPage& page = acPage(linear);
  return page.page == (linear & ~kPageMask) ? page.unit : nullptr;
}

void VcpuContext::dropCode() {
  spaces->dropCode();
  acPages.fill({});
  codeDropped = true;
}

void VcpuContext::flushPage(std::uint64_t linear) {
  ++counters.flushes;
  if (executors) executors->flushPage(linear);
  if (spaces->dropPage(linear)) codeDropped = true;
  if (acPage(linear).page == (linear & ~kPageMask)) {
    acPage(linear) = {};
    codeDropped = true;
  }
}

void VcpuContext::flushAll(bool globalToo) {
  ++counters.flushes;
  if (executors) executors->flushAll();
  spaces->dropCurrent(globalToo);
  acPages.fill({});
  codeDropped = true;
}

void VcpuContext::flushPcid(std::uint16_t pcid) {
  ++counters.flushes;
  if (executors) executors->flushAll();
  if (pcid == currentPcid(cpu->state)) {
    flushAll(false);
  } else if (AddressSpace* space = spaces->find(pcid)) {
    spaces->dropSpace(*space);
  }
}

void VcpuContext::flushPcidPage(std::uint16_t pcid, std::uint64_t linear) {
  ++counters.flushes;
  if (executors) executors->flushPage(linear);
  if (pcid == currentPcid(cpu->state)) {
    flushPage(linear);
  } else if (AddressSpace* space = spaces->find(pcid)) {
    spaces->dropPage(*space, linear);
  }
}

void VcpuContext::flushEverything() {
  ++counters.flushes;
  if (executors) executors->flushAll();
  spaces->dropEverything();
  acPages.fill({});
  codeDropped = true;
}

void VcpuContext::addressSpaceChanged(bool noFlush) {
  ++counters.addressSpaceSwitches;
  if (executors) executors->addressSpaceChanged(noFlush);
  // Upper-half entries of non-global pages belong to the space that was.
  spaces->dropKernel(false);
  acPages.fill({});
  spaces->switchTo(currentPcid(cpu->state));
  spaces->loadGsBase();
  if (spaces->current().supervisorCount != 0) frame->userKey = 0;  // must go before user code runs
  if (!noFlush) spaces->dropSpace(spaces->current());
  codeDropped = true;
}

void VcpuContext::modeChanged() {
  const CpuState& s = cpu->state;
  if (s.cr0 == lastControl[0] && s.cr4 == lastControl[1] && s.efer == lastControl[2]) return;
  // The kernel's table holds other pages then.
  if (((s.efer ^ lastControl[2]) & efer::lma) != 0) spaces->dropEverything();
  lastControl[0] = s.cr0;
  lastControl[1] = s.cr4;
  lastControl[2] = s.efer;
  frame->kernelKey = frame->userKey = 0;
  dropCode();
}

}  // namespace lodge::translate
