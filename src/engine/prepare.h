// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace lodge {

/// What costs a process little only while it has one thread, and milliseconds later: to be called first of all.
void prepareProcess();

}  // namespace lodge
