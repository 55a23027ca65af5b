// SPDX-License-Identifier: Apache-2.0
// paging --engine interpret|translate [--paging 32|pae|64]: see fuzz.h; with --shootdown, shootdown.h; with --modify,
// modifying.h.
#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "tests/paging/fuzz.h"
#include "tests/paging/modifying.h"
#include "tests/paging/shootdown.h"

using namespace lodge;
using namespace lodge::paging;

namespace {

struct Options {
  std::string engine = "translate", trace;
  std::uint64_t seed = 1, seeds = 1, count = 10000;
  MachineKind kind;
  bool verbose = false, shootdown = false, modify = false;
};

int fail(const Error& error) {
  fmt::print(stderr, "paging: {}\n", error.message());
  return 3;
}

int fuzz(const Options& options) {
  static constexpr const char* kNames[] = {"32-bit paging", "PAE paging", "4-level paging"};
  int status = 0;
  std::uint64_t accesses = 0, faults = 0, edits = 0, flushes = 0;
  for (std::uint64_t seed = options.seed; seed < options.seed + options.seeds; ++seed) {
    MachineKind kind = options.kind;
    if (kind.paging == Paging::bits64) kind.pcide = seed % 2 != 0, kind.keys = seed % 4 >= 2;
    auto machine = Machine::create(options.engine, options.trace, kind);
    if (!machine) return fail(machine.error());
    Fuzz fuzz(**machine, seed, kind, options.verbose);
    std::string wrong = fuzz.run(options.count);
    accesses += fuzz.accesses, faults += fuzz.faults, edits += fuzz.edits, flushes += fuzz.flushes;
    if (wrong.empty()) continue;
    fmt::print("WRONG seed {}: {}\n", seed, wrong);
    status = 1;
  }
  fmt::print("paging: engine {}, {}, seeds {} to {}, {} accesses, {} faults, {} edits, {} invalidations, {}\n",
             options.engine, kNames[static_cast<unsigned>(options.kind.paging)], options.seed,
             options.seed + options.seeds - 1, accesses, faults, edits, flushes,
             status == 0 ? "as the tables say" : "WRONG");
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    std::string a = argv[i];
    if (a == "--shootdown") {
      o.shootdown = true;
      continue;
    }
    if (a == "--modify") {
      o.modify = true;
      continue;
    }
    if (a == "--verbose") {
      o.verbose = true;
      continue;
    }
    if (i + 1 == argc) return 2;
    std::string v = argv[++i];
    if (a == "--engine")
      o.engine = v;
    else if (a == "--trace")
      o.trace = v;
    else if (a == "--paging" && (v == "32" || v == "pae" || v == "64"))
      o.kind.paging = v == "32" ? Paging::bits32 : v == "pae" ? Paging::pae : Paging::bits64;
    else if (a == "--seed")
      o.seed = std::strtoull(v.c_str(), nullptr, 0);
    else if (a == "--seeds")
      o.seeds = std::strtoull(v.c_str(), nullptr, 0);
    else if (a == "--count")
      o.count = std::strtoull(v.c_str(), nullptr, 0);
    else
      return 2;
  }
  if (!o.shootdown && !o.modify) return fuzz(o);
  std::string wrong =
      o.modify ? modifying(o.engine, o.trace, o.seed, o.count) : shootdown(o.engine, o.trace, o.seed, o.count);
  fmt::print("paging: {}, engine {}, seed {}, {} changes: {}\n", o.modify ? "changed code" : "shootdown", o.engine,
             o.seed, o.count, wrong.empty() ? "nothing stale was seen" : wrong);
  return wrong.empty() ? 0 : 1;
}
