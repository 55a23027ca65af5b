// SPDX-License-Identifier: Apache-2.0
#include "cli/qemu_img.h"

#include <algorithm>
#include <map>

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
    } else if (word == "--object" && i + 1 < words.size() && words[i + 1].starts_with("secret,")) {
      ++i;  // what would use it is refused by name
    } else {
      out.push_back(word);
    }
  }
  return out;
}

/// The options by which a verb's options name an image by its driver's settings.
constexpr const char* kImageOptions[] = {"--image-opts", "--target-image-opts"};

struct NamedImage {
  std::string path, format;
};

/// What "driver=qcow2,file.filename=a.qcow2" names, and the same as JSON. Errors: unsupported (a setting by name).
Result<NamedImage> imageOf(const std::map<std::string, std::string>& fields) {
  NamedImage image;
  for (const auto& [name, value] : fields) {
    bool plain = value == "file" || value == "host_device";
    if (name == "driver" && !plain) {
      image.format = value;
    } else if (name == "file.filename" || name == "filename") {
      image.path = value;
    } else if ((name != "file.driver" && name != "driver") || !plain) {
      if (name != "read-only" && name != "force-share" && !name.ends_with("locking"))
        return Error(ErrorKind::unsupported, fmt::format("the setting {}={} is not known here", name, value))
            .withHint("name files by driver=FORMAT,file.filename=FILE");
    }
  }
  if (image.path.empty())
    return Error(ErrorKind::invalidArgument, "no file is named").withHint("give file.filename=FILE");
  if (image.format.empty()) image.format = "raw";
  return image;
}

Result<std::map<std::string, std::string>> settingsOf(const std::string& text) {
  std::map<std::string, std::string> fields;
  for (const std::string& field : splitFields(text, ',')) {
    std::size_t equals = field.find('=');
    if (equals == std::string::npos) return Error(ErrorKind::invalidArgument, inQuotes(field) + " is no setting");
    fields[field.substr(0, equals)] = field.substr(equals + 1);
  }
  return fields;
}

Result<std::map<std::string, std::string>> settingsOfJson(const std::string& text) {
  Json json = Json::parse(text, nullptr, false);
  Error bad(ErrorKind::invalidArgument, "what follows json: is not understood");
  if (!json.is_object()) return bad;
  std::map<std::string, std::string> fields;
  auto add = [&](const std::string& name, const Json& value) {
    if (value.is_string()) fields[name] = value.get<std::string>();
    if (value.is_boolean()) fields[name] = value.get<bool>() ? "on" : "off";
    return value.is_string() || value.is_boolean();
  };
  for (const auto& [name, value] : json.items()) {
    if (name == "file" && value.is_object()) {
      for (const auto& [inner, leaf] : value.items()) {
        if (!add("file." + inner, leaf)) return bad;
      }
    } else if (!add(name, value)) {
      return bad;
    }
  }
  return fields;
}

bool isOptionWithValue(const VerbSpec& verb, const std::string& word) {
  for (const OptionSpec& option : verb.options) {
    if (option.value.empty()) continue;
    if (word == "--" + option.name || (option.letter != 0 && word == std::string("-") + option.letter)) return true;
  }
  return false;
}

/// Names in QEMU's own ways: "file:NAME", "json:{...}", and settings where --image-opts says so.
Status plainNames(const VerbSpec& verb, std::vector<std::string>& words) {
  bool settings = std::ranges::count(words, "--image-opts") != 0;
  for (const char* option : kImageOptions) std::erase(words, option);
  std::vector<std::string> formats;
  std::size_t names = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string& word = words[i];
    if (word.size() > 1 && word[0] == '-') {
      i += isOptionWithValue(verb, word) ? 1 : 0;
      continue;
    }
    bool target = names++ != 0 && verb.name != "image compare";
    bool json = word.starts_with("json:");
    if (word.starts_with("file:")) word.erase(0, 5);
    if (!json && (!settings || target)) continue;
    auto fields = json ? settingsOfJson(word.substr(5)) : settingsOf(word);
    if (!fields) return std::move(fields).error();
    auto image = imageOf(*fields);
    if (!image) return std::move(image).error();
    word = image->path;
    if (!target) formats.insert(formats.end(), {names == 1 ? "-f" : "-F", image->format});
  }
  words.insert(words.begin(), formats.begin(), formats.end());
  return {};
}

/// "-o help" is answered without a file.
bool asksForHelp(const std::vector<std::string>& words) {
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == "-o" && (words[i + 1] == "help" || words[i + 1] == "?")) return true;
  }
  return false;
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
  const VerbSpec* group = findVerb("image");
  auto known = std::ranges::find(group->verbs, "image " + verb, &VerbSpec::name);
  if (known == group->verbs.end() || verb == "serve" || verb == "import" || verb == "export")
    return imageFail(program, Error(ErrorKind::invalidArgument, "Command not found: " + inQuotes(verb)));
  std::vector<std::string> words = translated(verb, {arguments.begin() + 1, arguments.end()});
  if (std::ranges::count(words, "--object") != 0)
    return imageFail(program, Error(ErrorKind::unsupported, "--object is known for secrets only"));
  if (Status plain = plainNames(*known, words); !plain) return imageFail(program, plain.error());
  if (asksForHelp(words) && (verb == "create" || verb == "convert")) words.insert(words.end(), {"none", "none"});
  words.insert(words.begin(), {"image", verb});
  return dispatch(words, program);
}

}  // namespace lodge::cli
