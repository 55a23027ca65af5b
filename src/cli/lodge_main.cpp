// SPDX-License-Identifier: Apache-2.0
#include "cli/program.h"

int main(int argc, char** argv) {
  std::string name = argc > 0 ? argv[0] : "lodge";
  return lodge::cli::runProgram({argv + (argc > 0 ? 1 : 0), argv + argc}, {.createMachine = &lodge::Machine::create},
                                name.substr(name.rfind('/') + 1));
}
