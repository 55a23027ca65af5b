// SPDX-License-Identifier: Apache-2.0
#include "cli/parse.h"

#include <gtest/gtest.h>

#include <set>

#include "cli/verbs.h"

namespace lodge::cli {
namespace {

VerbSpec sample() {
  return {.name = "try",
          .summary = "",
          .description = "",
          .arguments = {{.name = "FIRST"}, {.name = "REST", .required = false, .repeats = true}},
          .options = {{.name = "size", .letter = 's', .value = "SIZE"},
                      {.name = "dry", .letter = 'd'},
                      {.name = "mode", .value = "MODE", .choices = {"slow", "fast"}},
                      {.name = "with", .letter = 'w', .value = "THING", .repeats = true}}};
}

std::string complaint(const std::vector<std::string>& words) {
  auto parsed = parseArguments(sample(), words);
  return parsed ? "" : parsed.error().message() + "; " + parsed.error().hint();
}

TEST(Parse, TakesEveryForm) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{"--size", "1G", "-d", "a"},
                                                                                     {"--size=1G", "--dry", "a"},
                                                                                     {"-s", "1G", "a", "-d"},
                                                                                     {"-s1G", "-d", "a"},
                                                                                     {"-s=1G", "-d", "a"},
                                                                                     {"-ds1G", "a"},
                                                                                     {"a", "-ds", "1G"}}) {
    auto parsed = parseArguments(sample(), words);
    ASSERT_TRUE(parsed) << words[0] << ": " << parsed.error().message();
    EXPECT_EQ(parsed->value("size"), "1G");
    EXPECT_TRUE(parsed->has("dry"));
    EXPECT_EQ(parsed->arguments(), std::vector<std::string>{"a"});
  }
}

TEST(Parse, LastValueCountsAndAllAreKept) {
  auto parsed = parseArguments(sample(), {"-s", "1", "-s", "2", "-w", "x", "--with=y", "a", "b", "c"});
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->value("size"), "2");
  EXPECT_EQ(parsed->all("with"), (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(parsed->arguments(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(parsed->value("mode", "none"), "none");
}

TEST(Parse, EndsOptions) {
  auto parsed = parseArguments(sample(), {"--", "--size", "-"});
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->arguments(), (std::vector<std::string>{"--size", "-"}));
  EXPECT_EQ(parseArguments(sample(), {"-s", "--", "a"})->value("size"), "--");
  EXPECT_EQ(parseArguments(sample(), {"-"})->arguments(), std::vector<std::string>{"-"});
  EXPECT_EQ(parseArguments(sample(), {"--size=", "a"})->value("size", "x"), "");
}

TEST(Parse, NamesTheThingAndTheFix) {
  EXPECT_EQ(complaint({"--sise", "1"}),
            "unknown option '--sise' for 'lodge try'; did you mean '--size'? 'lodge try --help' lists them");
  EXPECT_EQ(complaint({"-x"}), "unknown option '-x' for 'lodge try'; 'lodge try --help' lists them");
  EXPECT_EQ(complaint({"a", "--size"}), "option '--size' needs a value; write --size SIZE");
  EXPECT_EQ(complaint({"a", "-s"}), "option '--size' needs a value; write --size SIZE");
  EXPECT_EQ(complaint({"a", "--dry=1"}), "option '--dry' takes no value; leave it out");
  EXPECT_EQ(complaint({"a", "--mode", "fats"}), "--mode 'fats' does not exist; use slow, fast");
  EXPECT_EQ(complaint({}), "'lodge try' needs FIRST; usage: lodge try [OPTION]... FIRST [REST...]");
}

TEST(Parse, HelpComesBeforeComplaints) {
  EXPECT_TRUE(parseArguments(sample(), {"--help"})->has("help"));
}

TEST(Parse, SurplusArguments) {
  auto parsed = parseArguments(*findVerb("console"), {"a", "b"});
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().message(), "'lodge console' does not know what to do with 'b'");
}

TEST(Verbs, AreConsistent) {
  for (const VerbSpec* each : flatVerbs()) {
    const VerbSpec& verb = *each;
    EXPECT_TRUE(verb.run) << verb.name;
    EXPECT_FALSE(verb.description.empty()) << verb.name;
    std::set<std::string> names = {"help", "verbose"};
    std::set<char> letters = {'h', 'v'};
    for (const OptionSpec& option : verb.options) {
      EXPECT_TRUE(names.insert(option.name).second) << verb.name << " --" << option.name;
      EXPECT_TRUE(option.letter == 0 || letters.insert(option.letter).second) << verb.name << " -" << option.letter;
      EXPECT_FALSE(option.help.empty()) << option.name;
    }
  }
  EXPECT_EQ(findVerb("help")->arguments[0].choices.size(), allVerbs().size());
}

}  // namespace
}  // namespace lodge::cli
