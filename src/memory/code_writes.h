// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace lodge {

/// After GuestMemory::setCodeWriteObserver(nullptr): returns when no thread is within the observer any more. Not to be
/// called by an observer.
void awaitCodeWrites();

}  // namespace lodge
