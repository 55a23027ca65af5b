// SPDX-License-Identifier: Apache-2.0
#include "cli/verbs.h"

namespace lodge::cli {

const std::vector<VerbSpec>& allVerbs() {
  static const std::vector<VerbSpec> verbs = {
      runVerb(),     psVerb(),         consoleVerb(),   stopVerb(),   killVerb(),    resetVerb(),  screenshotVerb(),
      sendkeyVerb(), typeVerb(),       clipboardVerb(), ejectVerb(),  insertVerb(),  statsVerb(),  rmVerb(),
      imageVerb(),   networkVerb(),    proxyVerb(),     saveVerb(),   restoreVerb(), engineVerb(), qemuVerb(),
      doctorVerb(),  completionVerb(), helpVerb(),      versionVerb()};
  return verbs;
}

const VerbSpec* findVerb(std::string_view name) {
  for (const VerbSpec& verb : allVerbs()) {
    if (verb.name == name) return &verb;
  }
  return nullptr;
}

std::vector<const VerbSpec*> flatVerbs() {
  std::vector<const VerbSpec*> all;
  for (const VerbSpec& verb : allVerbs()) {
    if (verb.verbs.empty()) all.push_back(&verb);
    for (const VerbSpec& inner : verb.verbs) all.push_back(&inner);
  }
  return all;
}

std::string programDescription() {
  return "Lodge runs virtual machines on Linux hosts, with or without hardware virtualization: where there is none, "
         "guest code "
         "is translated, in user space, without root or a kernel module, and the guest need not be changed.";
}

std::string programVersion() {
  return LODGE_VERSION;
}

ArgumentSpec machineArgument(bool repeats) {
  return {.name = "NAME", .repeats = repeats, .complete = Complete::machine};
}

}  // namespace lodge::cli
