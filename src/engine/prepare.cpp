// SPDX-License-Identifier: Apache-2.0
#include "engine/prepare.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/trace.h"

namespace lodge {

// The translator's barrier. Linux waits for a grace period of RCU where other threads share the address space
// (kernel/sched/membarrier.c): 15 ms. Registering again, as the engine does, is then nothing.
void prepareProcess() {
  if (!isWithheld(HostFeature::membarrier)) ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
}

}  // namespace lodge
