// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.h"
#include "engine/translate/vcpu_context.h"

namespace lodge::translate {

/// Installs the process's handlers for SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP and the kick signal, once. What is not
/// about translated code goes to the handlers that were there before.
Status installSignalHandlers();

/// Makes this thread the one that runs `context` (null: none), with a signal stack of its own.
/// RSP is no stack in translated code, so signals must not be delivered on it.
void setCurrentContext(VcpuContext* context);

/// Whose code this thread runs; null: none's.
VcpuContext* currentContext();

/// The number of the signal that takes a thread out of translated code.
int kickSignal();

/// Sends the kick signal to the context's thread.
void kickThread(const VcpuContext& context);

/// Gives `state` the values that the record says are not in the place: called with all registers in state and scratch
/// in frame.
void repairState(x86::CpuState& state, const Frame& frame, const TranslationStore::Place& place);

}  // namespace lodge::translate
