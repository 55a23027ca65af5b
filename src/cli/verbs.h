// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/spec.h"

namespace lodge::cli {

/// Every verb, in the order of help.
const std::vector<VerbSpec>& allVerbs();
/// The same, with groups ("image") replaced by their verbs ("image convert").
std::vector<const VerbSpec*> flatVerbs();
/// By name, or nullptr.
const VerbSpec* findVerb(std::string_view name);

/// What Lodge is, in a paragraph.
std::string programDescription();
/// The version of the project.
std::string programVersion();

// One file each.
VerbSpec runVerb();
VerbSpec psVerb();
VerbSpec consoleVerb();
VerbSpec stopVerb();
VerbSpec killVerb();
VerbSpec resetVerb();
VerbSpec screenshotVerb();
VerbSpec sendkeyVerb();
VerbSpec typeVerb();
VerbSpec clipboardVerb();
VerbSpec ejectVerb();
VerbSpec engineVerb();
VerbSpec saveVerb();
VerbSpec restoreVerb();
VerbSpec insertVerb();
VerbSpec statsVerb();
VerbSpec rmVerb();
VerbSpec imageVerb();
VerbSpec networkVerb();
VerbSpec proxyVerb();
VerbSpec qemuVerb();
VerbSpec doctorVerb();
VerbSpec completionVerb();
VerbSpec helpVerb();
VerbSpec versionVerb();

/// An argument that names machines.
ArgumentSpec machineArgument(bool repeats);

}  // namespace lodge::cli
