// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "cli/spec.h"
#include "network/definition.h"

namespace lodge::cli {

// One file each, or two that belong together.
VerbSpec networkCreate();
VerbSpec networkEdit();
VerbSpec networkList();
VerbSpec networkShow();
VerbSpec networkRm();
VerbSpec networkUp();
VerbSpec networkDown();
VerbSpec networkLeases();
VerbSpec networkCapture();
VerbSpec networkAttach();

/// The options that create and edit share.
std::vector<OptionSpec> networkOptions();
/// Takes them over a definition. Errors: invalidArgument.
Status applyNetworkOptions(const Invocation& invocation, network::NetworkDefinition& definition);

/// Why this user cannot bring up networks of a kind, and what would help; empty: they can.
std::string lacksForKind(network::NetworkKind kind);

/// An argument that names a network.
ArgumentSpec networkArgument();

}  // namespace lodge::cli
