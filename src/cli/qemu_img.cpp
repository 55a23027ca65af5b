// SPDX-License-Identifier: Apache-2.0
#include "cli/qemu_img.h"

#include <algorithm>

#include "base/text.h"
#include "cli/image_common.h"
#include "cli/layout.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

/// What is taken in its words and means nothing here, or what has another spelling.
std::vector<std::string> translated(const std::string& verb, const std::vector<std::string>& words) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    // "-r" alone means leaks, and is followed by the file.
    if (verb == "check" && word == "-r") {
      bool named = i + 1 < words.size() && (words[i + 1] == "leaks" || words[i + 1] == "all");
      out.insert(out.end(), {"-r", named ? words[++i] : "leaks"});
    } else if (word == "-r" && (verb == "convert" || verb == "commit")) {
      ++i;  // a rate limit
    } else if (word == "-C" && verb == "convert") {
      continue;  // offloading: whatever is fastest is done anyway
    } else {
      out.push_back(word);
    }
  }
  return out;
}

}  // namespace

int runQemuImg(const std::vector<std::string>& arguments, const Program& program,
               int (*dispatch)(const std::vector<std::string>&, const Program&)) {
  if (arguments.empty()) {
    return imageFail(program,
                     Error(ErrorKind::invalidArgument, "Not enough arguments").withHint("try 'qemu-img --help'"));
  }
  const std::string& verb = arguments.front();
  if (verb == "--version" || verb == "-V")
    return print("qemu-img version 7.2.0 (lodge " + programVersion() + ")\n") ? 0 : 1;
  if (verb == "--help" || verb == "-h") return dispatch({"image", "--help"}, program);
  for (const char* refused : {"--image-opts", "--object", "--target-image-opts"}) {
    if (std::count(arguments.begin(), arguments.end(), refused) != 0)
      return imageFail(program, Error(ErrorKind::unsupported, std::string(refused) + " is not known here")
                                    .withHint("name files or nbd addresses"));
  }
  const VerbSpec* group = findVerb("image");
  bool known = std::any_of(group->verbs.begin(), group->verbs.end(),
                           [&](const VerbSpec& v) { return v.name == "image " + verb; });
  if (!known || verb == "serve")
    return imageFail(program, Error(ErrorKind::invalidArgument, "Command not found: " + inQuotes(verb)));
  std::vector<std::string> words = translated(verb, {arguments.begin() + 1, arguments.end()});
  words.insert(words.begin(), {"image", verb});
  return dispatch(words, program);
}

}  // namespace lodge::cli
