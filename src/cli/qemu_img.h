// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "cli/spec.h"

namespace lodge::cli {

/// Runs a command line of qemu-img's ("convert -O qcow2 a b") by means of the verbs of 'lodge image', which take the
/// same options. What differs is said in docs/images.md. `dispatch` runs a command line of ours.
int runQemuImg(const std::vector<std::string>& arguments, const Program& program,
               int (*dispatch)(const std::vector<std::string>&, const Program&));

}  // namespace lodge::cli
