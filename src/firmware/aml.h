// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace lodge::firmware {

/// Writes AML, the byte code of ACPI tables (ACPI 6.0, chapter 20). Bodies are written by the function that is passed:
///   AmlWriter aml;
///   aml.device("COM1", [&] {
///     aml.name("_HID").eisaId("PNP0501");
///     aml.name("_UID").integer(1);
///   });
/// Names are given as in ASL ("\\_SB.PCI0", "^^BRDG"), segments of up to four characters. For trusted input only: the
/// board's description.
class AmlWriter {
 public:
  using Body = std::function<void()>;

  // --- objects
  void scope(std::string_view path, const Body& body);
  void device(std::string_view path, const Body& body);
  /// `arguments` 0..7.
  void method(std::string_view path, unsigned arguments, bool serialized, const Body& body);
  /// The value follows: integer(), text(), eisaId(), package(), buffer().
  AmlWriter& name(std::string_view path);

  /// PCI configuration space of the surrounding device, `length` bytes from `offset` on, and fields of a byte each in
  /// it.
  void configurationRegion(std::string_view path, std::uint8_t offset, std::uint8_t length,
                           std::span<const std::string_view> fields);

  // --- data
  void integer(std::uint64_t value);
  void text(std::string_view value);
  void eisaId(std::string_view id);  ///< "PNP0A08", as the integer that EISAID() makes
  void buffer(std::span<const std::uint8_t> bytes);
  void package(std::uint8_t count, const Body& elements);
  /// The 16-byte buffer that ToUUID() makes of "33DB4D5B-1FF7-...".
  void uuid(std::string_view text);

  // --- terms of methods
  void nameReference(std::string_view path);
  void argument(unsigned index);
  void local(unsigned index);
  void createWordField(const Body& source, std::uint64_t byteOffset, std::string_view path);
  void createDwordField(const Body& source, std::uint64_t byteOffset, std::string_view path);
  void store(const Body& value, const Body& target);
  void shiftLeft(const Body& value, const Body& count, const Body& target);
  /// The number of the lowest bit that is set, from 1 on.
  void findSetRightBit(const Body& value, const Body& target);
  void decrement(const Body& target);
  void bitAnd(const Body& a, const Body& b, const Body& target);
  void bitOr(const Body& a, const Body& b, const Body& target);
  void equal(const Body& a, const Body& b);
  void notEqual(const Body& a, const Body& b);
  void ifThen(const Body& condition, const Body& body);
  void otherwise(const Body& body);
  void returnValue(const Body& value);

  std::vector<std::uint8_t> take() { return std::move(bytes_); }

 private:
  void op(std::uint8_t code) { bytes_.push_back(code); }
  void extendedOp(std::uint8_t code);
  void number(std::uint64_t value, unsigned size);
  void path(std::string_view text);
  void withLength(const Body& body);

  std::vector<std::uint8_t> bytes_;
};

}  // namespace lodge::firmware
