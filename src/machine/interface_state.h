// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/interface_state.h"
#include "state/archive.h"

namespace lodge {

/// Saves or loads what an engine has of one CPU whose guest may be a host itself. What no such CPU can be in is the
/// engine's to refuse.
void transfer(state::Archive& a, NestedState& state);

/// Saves or loads the registers of Hyper-V's interface.
void transferHyperv(state::Archive& a, InterfaceState& state);

}  // namespace lodge
