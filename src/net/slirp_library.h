// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <libslirp.h>

#include "base/error.h"

namespace lodge {

/// libslirp's functions. The program is linked with the library; only one that is linked statically loads it, since
/// there is no static libslirp, when the first user network starts. That one has a C library of its own beside it, with
/// its own errno.
struct SlirpLibrary {
  decltype(&slirp_new) make;
  decltype(&slirp_cleanup) cleanup;
  decltype(&slirp_pollfds_fill) fill;
  decltype(&slirp_pollfds_poll) poll;
  decltype(&slirp_input) input;
  decltype(&slirp_handle_timer) handleTimer;
  decltype(&slirp_add_hostxfwd) addForward;
  decltype(&slirp_remove_hostxfwd) removeForward;
  int* (*errorPlace)();  ///< where the library's errno of this thread is
};

/// Errors: notFound (a static program on a host without the library, or with another C library). Any thread.
Result<const SlirpLibrary*> slirpLibrary();

}  // namespace lodge
