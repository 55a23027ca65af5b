// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>

#include "machine/config.h"

namespace lodge {

/// Where IDE drives are: for each index into config.disks of one, 2 * channel + device (0 to 3). Who names a unit has
/// it; of the others, disks take the first free one, CD-ROM drives begin with the second channel, as everybody expects
/// them. Errors: invalidArgument (two drives at one unit, more than four, a unit for a drive on another bus).
Result<std::map<std::size_t, unsigned>> idePlaces(const MachineConfig& config);

}  // namespace lodge
