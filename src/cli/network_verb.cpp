// SPDX-License-Identifier: Apache-2.0
#include "cli/network_common.h"
#include "cli/verbs.h"

namespace lodge::cli {

VerbSpec networkVerb() {
  return {
      .name = "network",
      .summary = "networks that machines plug into",
      .description =
          "A network has a name; 'lodge run --net NAME' plugs a machine into it. It comes up with the first "
          "machine and goes with the last.",
      .examples = {{"lodge network create lab", "Machines on it see each other and get out through NAT."}},
      .verbs = {networkCreate(), networkList(), networkShow(), networkEdit(), networkRm(), networkUp(), networkDown(),
                networkLeases(), networkCapture(), networkAttach()},
  };
}

}  // namespace lodge::cli
