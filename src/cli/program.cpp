// SPDX-License-Identifier: Apache-2.0
#include "cli/program.h"

#include <exception>

#include "base/log.h"
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/help.h"
#include "cli/layout.h"
#include "cli/parse.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

int printed(const std::string& text) {
  return print(text) ? exit_status::kSuccess : exit_status::kLodgeError;
}

Error unknownVerb(const std::string& word) {
  std::vector<std::string_view> names;
  for (const VerbSpec& verb : allVerbs()) names.push_back(verb.name);
  std::string_view near = closest(word, names);
  bool option = word.starts_with("-");
  return Error(ErrorKind::invalidArgument, (option ? "unknown option " : "unknown verb ") + inQuotes(word))
      .withHint(near.empty() ? "'lodge help' lists the verbs" : fmt::format("did you mean 'lodge {}'?", near));
}

int dispatch(const std::vector<std::string>& arguments, const Program& program) {
  if (arguments.empty()) {
    return fail(Error(ErrorKind::invalidArgument, "what shall be done?").withHint("'lodge help' lists the verbs"));
  }
  const std::string& first = arguments.front();
  if (first == "--help" || first == "-h") return printed(programHelp(outputWidth()));
  const VerbSpec* verb = findVerb(first == "--version" ? "version" : first);
  if (!verb) return fail(unknownVerb(first));
  auto invocation = parseArguments(*verb, {arguments.begin() + 1, arguments.end()});
  if (!invocation) return fail(invocation.error());
  if (invocation->has("help")) return printed(verbHelp(*verb, outputWidth()));
  std::size_t verbosity = invocation->all("verbose").size();
  if (verbosity > 0) setLogLevel(verbosity == 1 ? LogLevel::info : LogLevel::debug);
  return verb->run(*invocation, program);
}

}  // namespace

int runProgram(const std::vector<std::string>& arguments, const Program& program) {
  try {
    return dispatch(arguments, program);
  } catch (const std::bad_alloc&) {
    return fail(Error(ErrorKind::outOfMemory, "this host has no memory left").withHint("give machines less of it"));
  } catch (const std::exception& exception) {
    return fail(Error(ErrorKind::internal, fmt::format("this should not happen: {}", exception.what())));
  }
}

}  // namespace lodge::cli
