// SPDX-License-Identifier: Apache-2.0
// The lodge program with machines that have no guest (control/fake_machine.h), for the tests in tests/cli.
#include "cli/program.h"
#include "control/fake_machine.h"

int main(int argc, char** argv) {
  std::string name = argc > 0 ? argv[0] : "lodge";
  return lodge::cli::runProgram({argv + (argc > 0 ? 1 : 0), argv + argc},
                                {.createMachine = &lodge::control::FakeMachine::create},
                                name.substr(name.rfind('/') + 1));
}
