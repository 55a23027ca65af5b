// SPDX-License-Identifier: Apache-2.0
#include "cli/program.h"

#include <exception>

#include "base/log.h"
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/help.h"
#include "cli/image_common.h"
#include "cli/layout.h"
#include "cli/parse.h"
#include "cli/qemu_img.h"
#include "cli/qemu_system.h"
#include "cli/spelling.h"
#include "cli/verbs.h"
#include "engine/choose.h"

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

Error needsVerb(const VerbSpec& group, const std::string& word = {}) {
  std::vector<std::string> names;
  for (const VerbSpec& verb : group.verbs) names.push_back(verb.name.substr(group.name.size() + 1));
  std::string what = word.empty() ? fmt::format("'lodge {}' needs a verb", group.name)
                                  : fmt::format("'lodge {}' has no verb {}", group.name, inQuotes(word));
  return Error(ErrorKind::invalidArgument, what).withHint("use " + join(names, ", "));
}

const VerbSpec* innerVerb(const VerbSpec& group, const std::string& word) {
  for (const VerbSpec& verb : group.verbs) {
    if (verb.name == group.name + " " + word) return &verb;
  }
  return nullptr;
}

/// "resize FILE -1G": that is no option.
void guardNegative(const VerbSpec& verb, std::vector<std::string>& words) {
  if (verb.name != "image resize" || words.empty()) return;
  const std::string& last = words.back();
  if (last.size() > 1 && last[0] == '-' && last[1] >= '0' && last[1] <= '9') words.insert(words.end() - 1, "--");
}

int dispatch(const std::vector<std::string>& arguments, const Program& program);

/// qemu-system-x86_64's command line, by the verb run.
int runQemu(const std::vector<std::string>& arguments, const Program& program) {
  auto wants = [&](const char* option) { return !arguments.empty() && arguments.front() == option; };
  if (wants("-h") || wants("-help") || wants("--help")) return dispatch({"help", "qemu"}, program);
  if (wants("-version") || wants("--version")) return dispatch({"version"}, program);
  auto command = translateQemuCommand(arguments);
  if (!command) return fail(command.error());
  for (const std::string& note : command->notes) log(LogLevel::warning, "{}", note);
  if (!command->kvmAskedBy.empty()) {
    auto engine = chooseEngine("auto");
    if (engine && engine->name != "kvm") {
      log(LogLevel::warning, "{}: {}; the guest is {} instead", command->kvmAskedBy, engine->reason,
          engine->name == "translate" ? "translated" : "interpreted");
    }
  }
  std::vector<std::string> words{"run"};
  words.insert(words.end(), command->words.begin(), command->words.end());
  setSpellings(std::move(command->spellings));
  return dispatch(words, program);
}

int dispatch(const std::vector<std::string>& arguments, const Program& program) {
  if (arguments.empty()) {
    return fail(Error(ErrorKind::invalidArgument, "what shall be done?").withHint("'lodge help' lists the verbs"));
  }
  const std::string& first = arguments.front();
  if (first == "--help" || first == "-h") return printed(programHelp(outputWidth()));
  const VerbSpec* verb = findVerb(first == "--version" ? "version" : first);
  if (!verb) return fail(unknownVerb(first));
  std::vector<std::string> words(arguments.begin() + 1, arguments.end());
  if (verb->name == "qemu") return runQemu(words, program);
  if (!verb->verbs.empty()) {
    const VerbSpec* group = verb;
    if (words.empty()) return fail(needsVerb(*group));
    if (words.front() == "--help" || words.front() == "-h") return printed(verbHelp(*group, outputWidth()));
    verb = innerVerb(*group, words.front());
    if (!verb) return fail(needsVerb(*group, words.front()));
    words.erase(words.begin());
    guardNegative(*verb, words);
  }
  auto invocation = parseArguments(*verb, words);
  if (!invocation) return program.qemuImg ? imageFail(program, invocation.error()) : fail(invocation.error());
  if (invocation->has("help")) return printed(verbHelp(*verb, outputWidth()));
  std::size_t verbosity = invocation->all("verbose").size();
  if (verbosity > 0) setLogLevel(verbosity == 1 ? LogLevel::info : LogLevel::debug);
  return verb->run(*invocation, program);
}

}  // namespace

int runProgram(const std::vector<std::string>& arguments, const Program& program, const std::string& called) {
  try {
    if (called == "qemu-img") {
      Program own = program;
      own.qemuImg = true;
      return runQemuImg(arguments, own, dispatch);
    }
    if (called == "qemu-system-x86_64") return runQemu(arguments, program);
    return dispatch(arguments, program);
  } catch (const std::bad_alloc&) {
    return fail(Error(ErrorKind::outOfMemory, "this host has no memory left").withHint("give machines less of it"));
  } catch (const std::exception& exception) {
    return fail(Error(ErrorKind::internal, fmt::format("this should not happen: {}", exception.what())));
  }
}

}  // namespace lodge::cli
