// SPDX-License-Identifier: Apache-2.0
#include "vnc/session.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <utility>

#include "vnc/wire.h"

namespace lodge::vnc {

namespace {
constexpr std::string_view kVersion = "RFB 003.008\n";
constexpr std::uint8_t kNone = 1, kPassword = 2, kVeNCrypt = 19;
constexpr std::uint32_t kTlsNone = 257, kTlsPassword = 258, kX509None = 260, kX509Password = 261;
constexpr std::size_t kMaxInput = 512 << 10;
}  // namespace

std::array<std::uint8_t, 16> passwordResponse(std::string_view password,
                                              const std::array<std::uint8_t, 16>& challenge) {
  std::array<std::uint8_t, 24> key{};
  for (std::size_t n = 0; n < 8 && n < password.size(); ++n) {
    unsigned byte = static_cast<unsigned char>(password[n]), mirrored = 0;
    for (unsigned bit = 0; bit < 8; ++bit) mirrored |= (byte >> bit & 1) << (7 - bit);
    // DES three times with one key is DES.
    for (std::size_t part : {0u, 8u, 16u}) key[n + part] = static_cast<std::uint8_t>(mirrored);
  }
  std::array<std::uint8_t, 16> out{};
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  int length = 0;
  EVP_EncryptInit_ex(context, EVP_des_ede3_ecb(), nullptr, key.data(), nullptr);
  EVP_CIPHER_CTX_set_padding(context, 0);
  EVP_EncryptUpdate(context, out.data(), &length, challenge.data(), static_cast<int>(challenge.size()));
  EVP_CIPHER_CTX_free(context);
  return out;
}

Session::Session(Display& display, std::string name, std::string password,
                 const std::array<std::uint8_t, 16>& challenge, std::shared_ptr<TlsContext> tls)
    : display_(display),
      name_(std::move(name)),
      password_(std::move(password)),
      challenge_(challenge),
      tlsContext_(std::move(tls)) {
  out_ = kVersion;
}

std::string& Session::output() {
  if (!tls_) return out_;
  if (tls_->ready()) {
    tls_->send(out_);
    out_.clear();
  }
  tls_->take(wire_);
  return wire_;
}

const std::uint8_t* Session::need(std::size_t count) const {
  return in_.size() >= count ? reinterpret_cast<const std::uint8_t*>(in_.data()) : nullptr;
}

bool Session::receive(std::string_view bytes) {
  if (stage_ == Stage::over) return false;
  if (!tls_) {
    in_ += bytes;
  } else if (!tls_->receive(bytes, in_)) {
    stage_ = Stage::over;
  }
  while (stage_ != Stage::over && step()) {
  }
  return stage_ != Stage::over && in_.size() <= kMaxInput;
}

// One thing that the client said. False: it has not said it whole.
bool Session::step() {
  if (skip_ != 0) {
    std::size_t now = std::min(skip_, in_.size());
    drop(now);
    skip_ -= now;
    return now != 0;
  }
  switch (stage_) {
    case Stage::version:
      return stepVersion();
    case Stage::security:
      return stepSecurity();
    case Stage::tlsVersion:
      return stepTlsVersion();
    case Stage::tlsKind:
      return stepTlsKind();
    case Stage::handshake:
      if (!tls_->ready()) return false;
      stage_ = password_.empty() ? Stage::shared : Stage::password;
      if (password_.empty()) {
        put(out_, 0, 4);
      } else {
        out_.append(challenge_.begin(), challenge_.end());
      }
      return true;
    case Stage::password:
      return stepPassword();
    case Stage::shared:
      return stepShared();
    case Stage::running:
      return stepMessage();
    case Stage::over:
      break;
  }
  return false;
}

bool Session::stepVersion() {
  if (!need(kVersion.size())) return false;
  std::string version = in_.substr(0, kVersion.size());
  drop(kVersion.size());
  if (version.substr(0, 8) != kVersion.substr(0, 8)) {
    stage_ = Stage::over;
    return false;
  }
  char last = version[10];
  minor_ = last >= '8' ? 8 : last == '7' ? 7 : 3;
  offerSecurity();
  return true;
}

void Session::offerSecurity() {
  std::uint8_t kind = tlsContext_ ? kVeNCrypt : password_.empty() ? kNone : kPassword;
  if (minor_ == 3 && tlsContext_) {
    constexpr std::string_view kReason = "this server wants TLS (VeNCrypt)";
    put(out_, 0, 4);
    put(out_, kReason.size(), 4);
    out_ += kReason;
    stage_ = Stage::over;
    return;
  }
  if (minor_ == 3) {
    put(out_, kind, 4);
    stage_ = password_.empty() ? Stage::shared : Stage::password;
    if (!password_.empty()) out_.append(challenge_.begin(), challenge_.end());
    return;
  }
  put(out_, 1, 1);
  put(out_, kind, 1);
  stage_ = Stage::security;
}

bool Session::stepSecurity() {
  const std::uint8_t* choice = need(1);
  if (!choice) return false;
  bool good = *choice == (tlsContext_ ? kVeNCrypt : password_.empty() ? kNone : kPassword);
  drop(1);
  if (!good) {
    securityResult(false);
  } else if (tlsContext_) {
    put(out_, 2, 2);  // version 0.2
    stage_ = Stage::tlsVersion;
  } else if (password_.empty()) {
    if (minor_ >= 8) put(out_, 0, 4);
    stage_ = Stage::shared;
  } else {
    out_.append(challenge_.begin(), challenge_.end());
    stage_ = Stage::password;
  }
  return true;
}

bool Session::stepTlsVersion() {
  const std::uint8_t* version = need(2);
  if (!version) return false;
  bool good = get(version, 2) == 2;
  drop(2);
  put(out_, good ? 0 : 1, 1);
  stage_ = good ? Stage::tlsKind : Stage::over;
  if (!good) return true;
  put(out_, 1, 1);
  put(out_, tlsKind(), 4);
  return true;
}

std::uint32_t Session::tlsKind() const {
  if (tlsContext_->anonymous()) return password_.empty() ? kTlsNone : kTlsPassword;
  return password_.empty() ? kX509None : kX509Password;
}

bool Session::stepTlsKind() {
  const std::uint8_t* choice = need(4);
  if (!choice) return false;
  bool good = get(choice, 4) == tlsKind();
  drop(4);
  put(out_, good ? 1 : 0, 1);
  if (good) {
    startTls();
  } else {
    stage_ = Stage::over;
  }
  return true;
}

/// What was said until now goes out as it is; what the client has already sent behind its choice is TLS.
void Session::startTls() {
  tls_ = std::make_unique<Tls>(*tlsContext_);
  wire_ = std::exchange(out_, {});
  std::string first = std::exchange(in_, {});
  stage_ = Stage::handshake;
  if (!tls_->receive(first, in_)) stage_ = Stage::over;
}

bool Session::stepPassword() {
  const std::uint8_t* response = need(16);
  if (!response) return false;
  auto expected = passwordResponse(password_, challenge_);
  securityResult(::CRYPTO_memcmp(expected.data(), response, expected.size()) == 0);
  drop(16);
  return true;
}

void Session::securityResult(bool good) {
  put(out_, good ? 0 : 1, 4);
  stage_ = good ? Stage::shared : Stage::over;
  constexpr std::string_view kReason = "wrong password";
  if (good || minor_ < 8) return;
  put(out_, kReason.size(), 4);
  out_ += kReason;
}

bool Session::stepShared() {
  if (!need(1)) return false;
  drop(1);
  display_.refresh();
  shown_.resize(std::max(display_.screen().width, 1u), std::max(display_.screen().height, 1u));
  put(out_, shown_.width, 2);
  put(out_, shown_.height, 2);
  out_ += format_.bytes();
  put(out_, static_cast<std::uint32_t>(name_.size()), 4);
  out_ += name_;
  stage_ = Stage::running;
  return true;
}

}  // namespace lodge::vnc
