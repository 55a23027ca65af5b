// SPDX-License-Identifier: Apache-2.0
#include "firmware/aml.h"

#include <algorithm>
#include <array>

namespace lodge::firmware {

namespace {
// ACPI 6.0, 20.2: encodings.
enum Op : std::uint8_t {
  zeroOp = 0x00,
  oneOp = 0x01,
  nameOp = 0x08,
  bytePrefix = 0x0a,
  wordPrefix = 0x0b,
  dwordPrefix = 0x0c,
  stringPrefix = 0x0d,
  qwordPrefix = 0x0e,
  scopeOp = 0x10,
  bufferOp = 0x11,
  packageOp = 0x12,
  methodOp = 0x14,
  dualNamePrefix = 0x2e,
  multiNamePrefix = 0x2f,
  extOpPrefix = 0x5b,
  rootChar = 0x5c,
  local0Op = 0x60,
  arg0Op = 0x68,
  storeOp = 0x70,
  decrementOp = 0x76,
  shiftLeftOp = 0x79,
  andOp = 0x7b,
  orOp = 0x7d,
  findSetRightBitOp = 0x82,
  createDwordFieldOp = 0x8a,
  createWordFieldOp = 0x8b,
  lnotOp = 0x92,
  lequalOp = 0x93,
  ifOp = 0xa0,
  elseOp = 0xa1,
  returnOp = 0xa4,
};
// After extOpPrefix.
constexpr std::uint8_t kRegionOp = 0x80, kFieldOp = 0x81, kDeviceOp = 0x82;

unsigned hexDigit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  return (static_cast<unsigned>(c) | 0x20u) - 'a' + 10u;
}
}  // namespace

void AmlWriter::extendedOp(std::uint8_t code) {
  op(extOpPrefix);
  op(code);
}

void AmlWriter::number(std::uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) bytes_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

void AmlWriter::path(std::string_view text) {
  if (!text.empty() && text.front() == '\\') {
    op(rootChar);
    text.remove_prefix(1);
  }
  for (; !text.empty() && text.front() == '^'; text.remove_prefix(1)) op('^');
  auto segments = static_cast<std::size_t>(std::ranges::count(text, '.')) + 1;
  if (segments == 2) op(dualNamePrefix);
  if (segments > 2) {
    op(multiNamePrefix);
    op(static_cast<std::uint8_t>(segments));
  }
  while (!text.empty()) {
    std::size_t length = std::min(text.find('.'), text.size());
    for (std::size_t i = 0; i < 4; ++i) op(i < length ? static_cast<std::uint8_t>(text[i]) : '_');
    text.remove_prefix(std::min(length + 1, text.size()));
  }
}

// PkgLength (20.2.4): its own bytes count; 6 bits in one byte, or 4 bits and up to three more bytes.
void AmlWriter::withLength(const Body& body) {
  std::size_t start = bytes_.size();
  body();
  std::size_t length = bytes_.size() - start;
  std::array<std::uint8_t, 4> prefix{};
  std::size_t extra = 0;
  if (length + 1 < 0x40) {
    prefix[0] = static_cast<std::uint8_t>(length + 1);
  } else {
    extra = length + 2 < 0x1000 ? 1 : length + 3 < 0x100000 ? 2 : 3;
    std::size_t total = length + 1 + extra;
    prefix[0] = static_cast<std::uint8_t>((extra << 6) | (total & 0xf));
    for (std::size_t i = 0; i < extra; ++i) prefix[i + 1] = static_cast<std::uint8_t>(total >> (4 + 8 * i));
  }
  bytes_.insert(bytes_.begin() + static_cast<std::ptrdiff_t>(start), prefix.begin(),
                prefix.begin() + static_cast<std::ptrdiff_t>(1 + extra));
}

void AmlWriter::scope(std::string_view p, const Body& body) {
  op(scopeOp);
  withLength([&] {
    path(p);
    body();
  });
}

void AmlWriter::device(std::string_view p, const Body& body) {
  extendedOp(kDeviceOp);
  withLength([&] {
    path(p);
    body();
  });
}

void AmlWriter::method(std::string_view p, unsigned arguments, bool serialized, const Body& body) {
  op(methodOp);
  withLength([&] {
    path(p);
    op(static_cast<std::uint8_t>(arguments | (serialized ? 8u : 0u)));
    body();
  });
}

void AmlWriter::configurationRegion(std::string_view p, std::uint8_t offset, std::uint8_t length,
                                    std::span<const std::string_view> fields) {
  constexpr std::uint8_t kPciConfig = 2, kByteAccess = 1;
  extendedOp(kRegionOp);
  path(p);
  op(kPciConfig);
  integer(offset);
  integer(length);
  extendedOp(kFieldOp);
  withLength([&] {
    path(p);
    op(kByteAccess);
    for (std::string_view field : fields) {
      path(field);
      op(8);  // bits, as a PkgLength
    }
  });
}

AmlWriter& AmlWriter::name(std::string_view p) {
  op(nameOp);
  path(p);
  return *this;
}

void AmlWriter::integer(std::uint64_t value) {
  if (value == 0) return op(zeroOp);
  if (value == 1) return op(oneOp);
  unsigned size = value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= 0xffffffff ? 4 : 8;
  op(size == 1 ? bytePrefix : size == 2 ? wordPrefix : size == 4 ? dwordPrefix : qwordPrefix);
  number(value, size);
}

void AmlWriter::text(std::string_view value) {
  op(stringPrefix);
  for (char c : value) op(static_cast<std::uint8_t>(c));
  op(0);
}

// Three letters of five bits each, four hexadecimal digits, big-endian (19.3.4, EISAID).
void AmlWriter::eisaId(std::string_view id) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 3; ++i) value = (value << 5) | (static_cast<unsigned>(id[i]) - 0x40u);
  for (std::size_t i = 3; i < 7; ++i) value = (value << 4) | hexDigit(id[i]);
  op(dwordPrefix);
  number(__builtin_bswap32(value), 4);
}

void AmlWriter::buffer(std::span<const std::uint8_t> bytes) {
  op(bufferOp);
  withLength([&] {
    integer(bytes.size());
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  });
}

void AmlWriter::package(std::uint8_t count, const Body& elements) {
  op(packageOp);
  withLength([&] {
    op(count);
    elements();
  });
}

// The first three groups are little-endian in the buffer (19.6.136, ToUUID).
void AmlWriter::uuid(std::string_view value) {
  constexpr std::array<unsigned, 16> kDigitAt{6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34};
  std::array<std::uint8_t, 16> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::uint8_t>((hexDigit(value[kDigitAt[i]]) << 4) | hexDigit(value[kDigitAt[i] + 1]));
  }
  buffer(bytes);
}

void AmlWriter::nameReference(std::string_view p) {
  path(p);
}
void AmlWriter::argument(unsigned index) {
  op(static_cast<std::uint8_t>(arg0Op + index));
}
void AmlWriter::local(unsigned index) {
  op(static_cast<std::uint8_t>(local0Op + index));
}

void AmlWriter::createWordField(const Body& source, std::uint64_t byteOffset, std::string_view p) {
  op(createWordFieldOp);
  source();
  integer(byteOffset);
  path(p);
}

void AmlWriter::shiftLeft(const Body& value, const Body& count, const Body& target) {
  op(shiftLeftOp);
  value();
  count();
  target();
}

void AmlWriter::findSetRightBit(const Body& value, const Body& target) {
  op(findSetRightBitOp);
  value();
  target();
}

void AmlWriter::decrement(const Body& target) {
  op(decrementOp);
  target();
}

void AmlWriter::createDwordField(const Body& source, std::uint64_t byteOffset, std::string_view p) {
  op(createDwordFieldOp);
  source();
  integer(byteOffset);
  path(p);
}

void AmlWriter::store(const Body& value, const Body& target) {
  op(storeOp);
  value();
  target();
}

void AmlWriter::bitAnd(const Body& a, const Body& b, const Body& target) {
  op(andOp);
  a();
  b();
  target();
}

void AmlWriter::bitOr(const Body& a, const Body& b, const Body& target) {
  op(orOp);
  a();
  b();
  target();
}

void AmlWriter::equal(const Body& a, const Body& b) {
  op(lequalOp);
  a();
  b();
}

void AmlWriter::notEqual(const Body& a, const Body& b) {
  op(lnotOp);
  equal(a, b);
}

void AmlWriter::ifThen(const Body& condition, const Body& body) {
  op(ifOp);
  withLength([&] {
    condition();
    body();
  });
}

void AmlWriter::otherwise(const Body& body) {
  op(elseOp);
  withLength(body);
}

void AmlWriter::returnValue(const Body& value) {
  op(returnOp);
  value();
}

}  // namespace lodge::firmware
