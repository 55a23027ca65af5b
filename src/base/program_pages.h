// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace lodge {

/// Takes the program's code and constants, and its libraries', out of the process's memory: they are the page cache's,
/// and those that are used again come back with the next access to them, sixteen pages at once. For when the program
/// has begun, most of which it does once. Any thread; the others may go on. Not while a debugger is attached, whose
/// breakpoints would be lost.
void releaseProgramPages();

}  // namespace lodge
