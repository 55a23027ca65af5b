// SPDX-License-Identifier: Apache-2.0
#include "vnc/session.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "vnc/clipboard_text.h"
#include "vnc/server.h"
#include "vnc/wire.h"

namespace lodge::vnc {
namespace {

struct FakeDisplay : Display {
  bool refresh() override { return true; }
  const Screen& screen() const override { return picture; }
  void key(std::uint32_t keysym, bool down) override { keys.emplace_back(keysym, down); }
  void pointer(unsigned x, unsigned y, unsigned buttons) override { pointers.push_back({x, y, buttons}); }
  const Cursor* cursor() const override { return guestCursor ? &*guestCursor : nullptr; }
  SizeAnswer requestSize(unsigned width, unsigned height) override {
    sizes.emplace_back(width, height);
    return sizeAnswer;
  }
  Screen picture;
  std::optional<Cursor> guestCursor;
  SizeAnswer sizeAnswer = SizeAnswer::never;
  std::vector<std::pair<unsigned, unsigned>> sizes;
  std::vector<std::pair<std::uint32_t, bool>> keys;
  std::vector<std::array<unsigned, 3>> pointers;
};

class SessionTest : public testing::Test {
 protected:
  SessionTest() {
    display_.picture.resize(100, 70);
    for (std::size_t n = 0; n < display_.picture.pixels.size(); ++n) display_.picture.pixels[n] = 0x0a0b00u + n % 7;
  }
  std::string take() { return std::exchange(session_.output(), {}); }
  void join() {
    EXPECT_EQ(take(), "RFB 003.008\n");
    session_.receive("RFB 003.008\n");
    EXPECT_EQ(take(), std::string("\1\1"));
    session_.receive("\1");
    EXPECT_EQ(take(), std::string(4, '\0'));
    session_.receive("\1");
    EXPECT_EQ(take().substr(0, 4), std::string("\0\x64\0\x46", 4));
  }
  void encodings(std::initializer_list<int> codes) {
    std::string message("\2\0\0", 3);
    message.push_back(static_cast<char>(codes.size()));
    for (int code : codes) {
      for (int shift = 24; shift >= 0; shift -= 8) message.push_back(static_cast<char>(code >> shift));
    }
    EXPECT_TRUE(session_.receive(message));
  }
  void request(bool incremental) {
    EXPECT_TRUE(
        session_.receive(std::string("\3", 1) + (incremental ? '\1' : '\0') + std::string("\0\0\0\0\0\x64\0\x46", 8)));
  }

  FakeDisplay display_;
  Session session_{display_, "test", "", {}};
};

/// A client of TLS, by OpenSSL's other side.
struct TlsClient {
  TlsClient() {
    SSL_set_cipher_list(ssl, "AECDH:ADH:ALL:@SECLEVEL=0");
    SSL_set_bio(ssl, in, out);
    SSL_set_connect_state(ssl);
  }
  ~TlsClient() {
    SSL_free(ssl);
    SSL_CTX_free(context);
  }
  /// Hands over what is under way in both directions.
  void exchange(Session& session) {
    for (int n = 0; n < 6; ++n) {
      SSL_do_handshake(ssl);
      std::string fromServer = std::exchange(session.output(), {});
      BIO_write(in, fromServer.data(), static_cast<int>(fromServer.size()));
      SSL_do_handshake(ssl);
      char* data = nullptr;
      long length = BIO_get_mem_data(out, &data);
      std::string toServer(data, static_cast<std::size_t>(length));
      BIO_reset(out);
      if (!toServer.empty()) session.receive(toServer);
    }
  }
  std::string read() {
    char buffer[4096];
    int n = SSL_read(ssl, buffer, sizeof buffer);
    return std::string(buffer, static_cast<std::size_t>(std::max(n, 0)));
  }
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL* ssl = SSL_new(context);
  BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
};

TEST_F(SessionTest, TlsWithoutCertificateAndWithPassword) {
  auto context = TlsContext::create("", "");
  ASSERT_TRUE(context);
  Session session(display_, "test", "secret", {1, 2, 3}, *context);
  auto take = [&] { return std::exchange(session.output(), {}); };
  take();
  session.receive("RFB 003.008\n");
  EXPECT_EQ(take(), std::string("\1\x13"));
  session.receive("\x13");
  EXPECT_EQ(take(), std::string("\0\2", 2));
  session.receive(std::string("\0\2", 2));
  EXPECT_EQ(take(), std::string("\0\1\0\0\1\2", 6));
  session.receive(std::string("\0\0\1\2", 4));
  EXPECT_EQ(take(), "\1");
  TlsClient client;
  client.exchange(session);
  ASSERT_TRUE(SSL_is_init_finished(client.ssl));
  EXPECT_EQ(client.read(), std::string("\1\2\3") + std::string(13, '\0'));
  auto response = passwordResponse("secret", {1, 2, 3});
  SSL_write(client.ssl, response.data(), static_cast<int>(response.size()));
  SSL_write(client.ssl, "\1", 1);
  client.exchange(session);
  EXPECT_EQ(client.read().substr(0, 8), std::string("\0\0\0\0\0\x64\0\x46", 8)) << "welcome, and the screen's size";
}

TEST_F(SessionTest, TlsIsNotOptional) {
  auto context = TlsContext::create("", "");
  ASSERT_TRUE(context);
  Session plain(display_, "test", "", {}, *context);
  plain.receive("RFB 003.008\n");
  EXPECT_FALSE(plain.receive("\1"));
  Session old(display_, "test", "", {}, *context);
  EXPECT_FALSE(old.receive("RFB 003.003\n"));
  Session garbage(display_, "test", "", {}, *context);
  garbage.receive("RFB 003.008\n\x13");
  garbage.receive(std::string("\0\2\0\0\1\1", 6));
  EXPECT_FALSE(garbage.receive("this is no handshake"));
  EXPECT_EQ(TlsContext::create("/nonexistent", "/nonexistent").error().kind(), ErrorKind::notFound);
  EXPECT_EQ(TlsContext::create("/proc/self/cmdline", "/proc/self/cmdline").error().kind(), ErrorKind::invalidArgument);
  EXPECT_FALSE(parseAddress(":1,tls-cert=a"));
  EXPECT_TRUE(parseAddress(":1,tls")->tls);
}

TEST_F(SessionTest, RawUpdatesHoldTheWholeScreenAndThenWhatChanged) {
  join();
  request(false);
  session_.update(1);
  EXPECT_EQ(take().size(), 4 + 4 * 12 + 100 * 70 * 4 - 24u) << "two rows of tiles, joined";
  request(true);
  session_.update(1);
  EXPECT_EQ(take(), "");
  display_.picture.row(66)[70] = 0x010203;
  session_.update(2);
  std::string update = take();
  ASSERT_EQ(update.size(), 4 + 12 + 36 * 6 * 4u);
  EXPECT_EQ(update.substr(4, 8), std::string("\0\x40\0\x40\0\x24\0\6", 8));
  EXPECT_EQ(update.substr(16 + (2 * 36 + 6) * 4, 4), std::string("\3\2\1\0", 4));
}

TEST_F(SessionTest, ZrleAndTightPackAway) {
  join();
  for (int encoding : {16, 7}) {
    encodings({encoding, 0});
    request(false);
    session_.update(1);
    std::string update = take();
    EXPECT_EQ(update[15], encoding);
    EXPECT_LT(update.size(), 3000u);
  }
}

TEST_F(SessionTest, TheSizeFollowsTheGuest) {
  join();
  encodings({0, -223});
  display_.picture.resize(33, 20);
  request(true);
  session_.update(5);
  EXPECT_EQ(take(), std::string("\0\0\0\1\0\0\0\0\0\x21\0\x14\xff\xff\xff\x21", 16));
  request(true);
  session_.update(5);
  EXPECT_EQ(take().size(), 16 + 33 * 20 * 4u);
}

TEST_F(SessionTest, KeysAndPointer) {
  join();
  session_.receive(std::string("\4\1\0\0\0\0\xff\x0d\5\1\0\x0a", 12));
  session_.receive(std::string("\0\xff", 2));
  ASSERT_EQ(display_.keys.size(), 1u);
  EXPECT_EQ(display_.keys[0], (std::pair<std::uint32_t, bool>(0xff0d, true)));
  ASSERT_EQ(display_.pointers.size(), 1u);
  EXPECT_EQ(display_.pointers[0], (std::array<unsigned, 3>{10, 69, 1}));
  EXPECT_TRUE(session_.receive(std::string("\6\0\0\0\0\0\0\3abc", 11)));
  EXPECT_FALSE(session_.receive("\x63"));
}

TEST(VncPassword, OnlyTheRightOneOpens) {
  FakeDisplay display;
  std::array<std::uint8_t, 16> challenge{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  auto answer = passwordResponse("geheim", challenge);
  Session good(display, "test", "geheim", challenge), bad(display, "test", "geheim", challenge);
  good.receive("RFB 003.008\n\2");
  EXPECT_TRUE(good.receive({reinterpret_cast<const char*>(answer.data()), answer.size()}));
  EXPECT_EQ(good.output().substr(good.output().size() - 4), std::string(4, '\0'));
  bad.receive("RFB 003.008\n\2");
  answer[3] ^= 1;
  EXPECT_FALSE(bad.receive({reinterpret_cast<const char*>(answer.data()), answer.size()}));
  Session none(display, "test", "geheim", challenge);
  EXPECT_FALSE(none.receive("RFB 003.008\n\1"));
}

std::string sizeRectangle(unsigned reason, unsigned status, unsigned width, unsigned height) {
  std::string out;
  put(out, 1, 4);
  for (unsigned value : {reason, status, width, height}) put(out, value, 2);
  put(out, static_cast<std::uint32_t>(-308), 4);
  out += std::string(
      "\1\0\0\0"
      "\0\0\0\0"
      "\0\0\0\0",
      12);
  put(out, width, 2);
  put(out, height, 2);
  return out + std::string(4, '\0');
}

std::string sizeRequest(unsigned width, unsigned height, unsigned screens = 1) {
  std::string out("\xfb\0", 2);
  put(out, width, 2);
  put(out, height, 2);
  put(out, screens << 8, 2);
  for (unsigned n = 0; n < screens; ++n) {
    put(out, 0, 4);
    put(out, 0, 4);
    put(out, width, 2);
    put(out, height, 2);
    put(out, 0, 4);
  }
  return out;
}

TEST_F(SessionTest, ClientsAskForAnotherSize) {
  join();
  encodings({0, -308});
  request(true);
  session_.update(1);
  EXPECT_EQ(take(), sizeRectangle(0, 0, 100, 70)) << "tells that the server has the extension";
  using Answer = Display::SizeAnswer;
  for (auto [answer, status] : {std::pair{Answer::never, 1u}, {Answer::tooLarge, 2u}, {Answer::asked, 4u}}) {
    display_.sizeAnswer = answer;
    EXPECT_TRUE(session_.receive(sizeRequest(200, 90)));
    request(true);
    session_.update(1);
    EXPECT_EQ(take(), sizeRectangle(1, status, 100, 70));
  }
  EXPECT_EQ(display_.sizes.size(), 3u);
  EXPECT_EQ(display_.sizes[0], std::pair(200u, 90u));
  display_.picture.resize(200, 90);
  request(true);
  session_.update(2);
  EXPECT_EQ(take(), sizeRectangle(0, 0, 200, 90)) << "the guest has done it";
  for (unsigned screens : {0u, 2u}) {
    EXPECT_TRUE(session_.receive(sizeRequest(300, 90, screens)));
    request(true);
    session_.update(2);
    EXPECT_EQ(take(), sizeRectangle(1, 3, 200, 90)) << screens << " screens";
  }
  EXPECT_TRUE(session_.receive(sizeRequest(200, 90)));
  request(true);
  session_.update(2);
  EXPECT_EQ(take(), sizeRectangle(1, 0, 200, 90)) << "it is so already";
  EXPECT_EQ(display_.sizes.size(), 3u);
}

TEST_F(SessionTest, CursorIsTheClientsOrInThePicture) {
  join();
  display_.guestCursor = Cursor{3, 4, {2, 1, 1, 0, {0xff112233, 0x00000000}}};
  encodings({0});
  request(false);
  session_.update(1);
  std::string whole = take();
  std::size_t pixel = 4 + 12 + (4 * 100 + 3) * 4;
  ASSERT_GT(whole.size(), pixel);
  EXPECT_EQ(whole.substr(pixel, 3), "\x33\x22\x11") << "drawn by the server";
  encodings({0, -239});
  request(true);
  session_.update(1);
  EXPECT_EQ(take(), std::string("\0\0\0\1\0\1\0\0\0\2\0\1\xff\xff\xff\x11\x33\x22\x11\0\0\0\0\0\x80", 25));
  encodings({0, -239, -314});
  display_.guestCursor->shape.pixels[1] = 0x80000010;
  request(true);
  session_.update(1);
  EXPECT_EQ(take(), std::string("\0\0\0\1\0\1\0\0\0\2\0\1\xff\xff\xfe\xc6\0\0\0\0\x11\x22\x33\xff\0\0\x10\x80", 28));
  display_.guestCursor.reset();
  request(true);
  session_.update(1);
  EXPECT_EQ(take().substr(0, 16), std::string("\0\0\0\1\0\0\0\0\0\0\0\0\xff\xff\xfe\xc6", 16)) << "none";
}

TEST_F(SessionTest, CopiesTextBothWays) {
  join();
  EXPECT_TRUE(session_.receive(std::string("\6\0\0\0\0\0\0\5gr\xfc\xdf!", 13)));
  EXPECT_EQ(display_.clipboard().text(), "gr\xc3\xbc\xc3\x9f!");
  session_.offerClipboard();
  EXPECT_EQ(take(), "") << "the client has it";
  display_.clipboard().set("\xc3\xa9 \xe2\x82\xac");
  session_.offerClipboard();
  session_.offerClipboard();
  EXPECT_EQ(take(), std::string("\3\0\0\0\0\0\0\3\xe9 ?", 11));
  EXPECT_TRUE(session_.receive(std::string("\6\0\0\0\xff\xff\xff\xfc\1\0\0\0", 12))) << "not agreed on: skipped";
  EXPECT_EQ(take(), "");
}

TEST_F(SessionTest, ExtendedClipboardHasUnicode) {
  auto message = [](char kind, const std::string& flags, const std::string& payload) {
    std::string out(1, kind);
    put(out, 0, 3);
    put(out, static_cast<std::uint32_t>(-static_cast<int>(4 + payload.size())), 4);
    return out + flags + payload;
  };
  const std::string notify("\x08\0\0\1", 4), request("\x02\0\0\1", 4), provide("\x10\0\0\1", 4);
  join();
  encodings({0, static_cast<int>(0xc0a1e5ce)});
  EXPECT_EQ(take(), message(3, std::string("\x1f\0\0\1", 4), std::string(4, '\0')));
  EXPECT_TRUE(session_.receive(message(6, notify, "")));
  EXPECT_EQ(take(), message(3, request, ""));
  EXPECT_TRUE(session_.receive(message(6, provide, packText("a\n\xe2\x82\xac"))));
  EXPECT_EQ(display_.clipboard().text(), "a\n\xe2\x82\xac");
  display_.clipboard().set("\xf0\x9f\x98\x80\n");
  session_.offerClipboard();
  EXPECT_EQ(take(), message(3, notify, ""));
  EXPECT_TRUE(session_.receive(message(6, request, "")));
  EXPECT_EQ(take(), message(3, provide, packText("\xf0\x9f\x98\x80\n")));
  EXPECT_TRUE(session_.receive(message(6, provide, "no zlib stream")));
  EXPECT_TRUE(session_.receive(message(6, provide, packText("\xff\xfe"))));
  EXPECT_TRUE(session_.receive(message(6, provide, packText(std::string(Clipboard::kMostBytes + 1, 'x')))));
  EXPECT_EQ(display_.clipboard().text(), "\xf0\x9f\x98\x80\n");
}

TEST(ClipboardText, HasItsForms) {
  EXPECT_EQ(unpackText(packText("a\nb"), 3), "a\nb");
  EXPECT_FALSE(unpackText(packText("a\nb"), 2));
  EXPECT_EQ(unpackText(packText(""), 3), "");
  EXPECT_EQ(fromLatin1("a\r\nb\rc"), "a\nb\rc");
  for (const char* bad : {"\x80", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc3"})
    EXPECT_FALSE(isUtf8(bad)) << bad;
}

TEST(VncAddress, HasTheClassicForm) {
  auto address = parseAddress(":19");
  ASSERT_TRUE(address);
  EXPECT_EQ(address->host, "127.0.0.1");
  EXPECT_EQ(address->port, 5919);
  EXPECT_EQ(parseAddress("0.0.0.0:0")->host, "0.0.0.0");
  EXPECT_EQ(parseAddress("unix:/tmp/x")->socket, "/tmp/x");
  for (const char* bad : {"", "1", ":100", ":x", "host:1", "unix:", ":1,what"}) EXPECT_FALSE(parseAddress(bad)) << bad;
}

}  // namespace
}  // namespace lodge::vnc
