// SPDX-License-Identifier: Apache-2.0
#include "control/protocol.h"

#include <gtest/gtest.h>

#include "control/console_frames.h"
#include "control/line_reader.h"
#include "control/machine_end.h"

namespace lodge::control {
namespace {

Error errorOf(std::string_view line) {
  auto parsed = parseRequest(line);
  auto* bad = std::get_if<BadRequest>(&parsed);
  return bad ? bad->error : Error(ErrorKind::internal, "was accepted");
}

TEST(Protocol, RequestsSurviveTheirFormat) {
  Request request{.id = 7, .kind = RequestKind::consoleAttach, .window = {120, 40}};
  auto parsed = parseRequest(formatRequest(request));
  auto& got = std::get<Request>(parsed);
  EXPECT_EQ(got.id, 7u);
  EXPECT_EQ(got.kind, RequestKind::consoleAttach);
  EXPECT_EQ(got.window, (WindowSize{120, 40}));

  Request change{.id = 9, .kind = RequestKind::changeMedium, .text = "/cd.iso"};
  change.drive = "cd1";
  change.force = true;
  parsed = parseRequest(formatRequest(change));
  EXPECT_EQ(std::get<Request>(parsed).kind, RequestKind::changeMedium);
  EXPECT_EQ(std::get<Request>(parsed).text, "/cd.iso");
  EXPECT_EQ(std::get<Request>(parsed).drive, "cd1");
  EXPECT_TRUE(std::get<Request>(parsed).force);
  EXPECT_FALSE(std::get<Request>(parsed).readOnly);
  parsed = parseRequest(formatRequest({.id = 8, .kind = RequestKind::stop, .graceSeconds = 5}));
  EXPECT_EQ(std::get<Request>(parsed).graceSeconds, 5u);
}

TEST(Protocol, AcceptsTheLeast) {
  auto parsed = parseRequest(R"({"request":"state"})");
  EXPECT_EQ(std::get<Request>(parsed).id, 0u);
  EXPECT_EQ(std::get<Request>(parsed).kind, RequestKind::state);
}

TEST(Protocol, RefusesNonsense) {
  EXPECT_EQ(errorOf("").kind(), ErrorKind::corrupt);
  EXPECT_EQ(errorOf("[1]").kind(), ErrorKind::corrupt);
  EXPECT_EQ(errorOf("{\"request\":\"sta").kind(), ErrorKind::corrupt);
  EXPECT_EQ(errorOf("\xff\xfe").kind(), ErrorKind::corrupt);
  EXPECT_EQ(errorOf(std::string(60000, '[')).kind(), ErrorKind::corrupt);
  EXPECT_EQ(errorOf(R"({"id":1})").kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(errorOf(R"({"id":-1,"request":"state"})").message(),
            "\"id\" must be a number from 0 to 18446744073709551615");
  EXPECT_EQ(errorOf(R"({"request":"stop","graceSeconds":"30"})").kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(errorOf(R"({"request":"stop","graceSeconds":86401})").kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(errorOf(R"({"request":"consoleAttach","columns":65536})").kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(errorOf(R"({"request":"fly"})").message(), "there is no request 'fly'");
  EXPECT_EQ(errorOf(R"({"request":"state","version":2})").kind(), ErrorKind::unsupported);
}

TEST(Protocol, KeepsTheIdOfABadRequest) {
  auto parsed = parseRequest(R"({"id":42,"request":"fly"})");
  EXPECT_EQ(std::get<BadRequest>(parsed).id, 42u);
}

TEST(Protocol, ErrorsKeepTheirKindAndHint) {
  auto reply = parseReply(formatError(1, Error(ErrorKind::busy, "a\xff").withHint("b")));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().kind(), ErrorKind::busy);
  EXPECT_EQ(reply.error().message(), "a\xef\xbf\xbd");
  EXPECT_EQ(reply.error().hint(), "b");
}

TEST(Protocol, ResultsComeBack) {
  auto reply = parseReply(formatResult(1, {{"x", 1}}));
  ASSERT_TRUE(reply);
  EXPECT_EQ((*reply)["x"], 1);
  for (const char* bad : {"", "{}", "3", R"({"ok":true})", R"({"ok":false})", R"({"ok":false,"error":3})"}) {
    auto wrong = parseReply(bad);
    ASSERT_FALSE(wrong) << bad;
    EXPECT_EQ(wrong.error().kind(), ErrorKind::corrupt) << bad;
  }
}

TEST(Protocol, SavesTellHowFarTheyAre) {
  Request save{.id = 4, .kind = RequestKind::save, .text = "/a.state"};
  save.compress = save.keepRunning = true;
  auto parsed = parseRequest(formatRequest(save));
  const auto& request = std::get<Request>(parsed);
  EXPECT_TRUE(request.kind == RequestKind::save && request.compress && request.keepRunning);
  EXPECT_EQ(request.text, "/a.state");
  std::uint64_t done = 0, total = 0;
  EXPECT_TRUE(parseProgress(formatProgress(4, 5, 6), done, total));
  EXPECT_TRUE(done == 5 && total == 6);
  for (const char* other : {"", "3", "[]", R"({"ok":true,"result":{}})"})
    EXPECT_FALSE(parseProgress(other, done, total));
  EXPECT_TRUE(parseProgress(R"({"progress":3})", done, total));
  EXPECT_EQ(done, 0u);
}

TEST(LineReader, CutsLines) {
  LineReader reader(8);
  reader.add("ab\nc");
  EXPECT_EQ(reader.next(), "ab");
  EXPECT_EQ(reader.next(), std::nullopt);
  reader.add("d\n\nrest");
  EXPECT_EQ(reader.next(), "cd");
  EXPECT_EQ(reader.next(), "");
  EXPECT_EQ(reader.next(), std::nullopt);
  EXPECT_FALSE(reader.tooLong());
  EXPECT_EQ(reader.takeRest(), "rest");
  reader.add("123456789");
  EXPECT_EQ(reader.next(), std::nullopt);
  EXPECT_TRUE(reader.tooLong());
}

TEST(ConsoleFrames, SurviveAnyCut) {
  std::string payload(70000, 'x');
  std::string bytes = formatFrames(FrameKind::output, payload) + formatWindow({80, 24}) + formatSkipped(1ull << 40) +
                      formatFrames(FrameKind::input, "");
  FrameReader reader;
  std::vector<Frame> frames;
  for (std::size_t i = 0; i < bytes.size(); i += 1001) {
    reader.add(std::string_view(bytes).substr(i, 1001));
    while (auto frame = reader.next()) frames.push_back(*frame);
  }
  ASSERT_EQ(frames.size(), 5u);
  EXPECT_EQ(frames[0].payload + frames[1].payload, payload);
  EXPECT_EQ(parseWindow(frames[2]), (WindowSize{80, 24}));
  EXPECT_EQ(parseSkipped(frames[3]), 1ull << 40);
  EXPECT_EQ(frames[4].kind, FrameKind::input);
  EXPECT_EQ(parseWindow(frames[0]), std::nullopt);
  EXPECT_EQ(parseSkipped({FrameKind::skipped, "123"}), std::nullopt);
}

TEST(EndRecord, SurvivesJson) {
  for (MachineEnd end : {MachineEnd::poweredOff, MachineEnd::resetNoReboot, MachineEnd::debugExit, MachineEnd::crashed,
                         MachineEnd::killed}) {
    auto back = EndRecord::fromJson(EndRecord{end, 17, 1234}.toJson());
    ASSERT_TRUE(back);
    EXPECT_EQ(back->end, end);
    EXPECT_EQ(back->status, 17);
    EXPECT_EQ(back->unixTime, 1234);
  }
  for (const char* bad :
       {"{}", "null", R"({"end":"x","status":0,"unixTime":0})", R"({"end":"crashed","status":-1,"unixTime":0})"}) {
    EXPECT_FALSE(EndRecord::fromJson(parseJson(bad))) << bad;
  }
}

}  // namespace
}  // namespace lodge::control
