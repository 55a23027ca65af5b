// SPDX-License-Identifier: Apache-2.0
#include "cli/doctor.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

using Grade = Finding::Grade;

std::string_view toString(Grade grade) {
  return grade == Grade::good ? "ok" : grade == Grade::note ? "note" : "bad";
}

std::string asJson(const std::vector<Finding>& findings) {
  control::Json json = control::Json::object();
  for (const Finding& finding : findings) {
    json[finding.key] = finding.facts;
    json[finding.key]["grade"] = toString(finding.grade);
    json[finding.key]["text"] = finding.text;
  }
  return json.dump(2, ' ', false, control::Json::error_handler_t::replace) + "\n";
}

std::string asText(const std::vector<Finding>& findings) {
  constexpr std::size_t kColumn = 32;
  std::string out;
  for (const Finding& finding : findings) {
    std::string mark = finding.grade == Grade::good ? "ok  " : finding.grade == Grade::note ? "-   " : "BAD ";
    out += definition(mark + finding.title, finding.text, kColumn, outputWidth());
  }
  return out;
}

int run(const Invocation& invocation, const Program&) {
  auto findings = examineHost();
  if (!print(invocation.has("json") ? asJson(findings) : asText(findings))) return exit_status::kLodgeError;
  for (const Finding& finding : findings) {
    if (finding.grade == Grade::bad) return exit_status::kLodgeError;
  }
  return exit_status::kSuccess;
}

}  // namespace

VerbSpec doctorVerb() {
  return {
      .name = "doctor",
      .summary = "say what this host offers, and which engine machines get",
      .description =
          "Looks at what this host offers to machines: the processor, hardware virtualization and whether a probe "
          "guest really runs on /dev/kvm at speed, what that can do, memory, huge pages, namespaces, tap devices and "
          "bridges; and says which engines can be used, which one a machine gets, and why. The probe's verdict is kept "
          "until the host is started again; this asks anew. Exits with 4 if machines cannot run.",
      .options = {{.name = "json", .help = "As JSON, with every fact."}},
      .examples = {{"lodge doctor", "Before the first machine, or when one is slow."},
                   {"lodge doctor --json | jq .kvm.usable", "In a script."}},
      .run = run,
  };
}

}  // namespace lodge::cli
