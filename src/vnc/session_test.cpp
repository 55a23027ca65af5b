// SPDX-License-Identifier: Apache-2.0
#include "vnc/session.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "vnc/server.h"

namespace lodge::vnc {
namespace {

struct FakeDisplay : Display {
  bool refresh() override { return true; }
  const Screen& screen() const override { return picture; }
  void key(std::uint32_t keysym, bool down) override { keys.emplace_back(keysym, down); }
  void pointer(unsigned x, unsigned y, unsigned buttons) override { pointers.push_back({x, y, buttons}); }
  Screen picture;
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
