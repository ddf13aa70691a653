// Metal's scalar and vector types on clang's own: vectors are ext_vector_type, half is _Float16, bfloat is __bf16.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

typedef _Float16 half;
typedef __bf16 bfloat;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;

#define HARNESS_VECTORS(T)                                \
  typedef T T##2 __attribute__((ext_vector_type(2)));     \
  typedef T T##3 __attribute__((ext_vector_type(3)));     \
  typedef T T##4 __attribute__((ext_vector_type(4)));
HARNESS_VECTORS(char)
HARNESS_VECTORS(uchar)
HARNESS_VECTORS(short)
HARNESS_VECTORS(ushort)
HARNESS_VECTORS(int)
HARNESS_VECTORS(uint)
HARNESS_VECTORS(long)
HARNESS_VECTORS(ulong)
HARNESS_VECTORS(float)
HARNESS_VECTORS(half)
HARNESS_VECTORS(bfloat)
HARNESS_VECTORS(bool)
#undef HARNESS_VECTORS

// Address spaces are real in the lint build only: there a device pointer is no threadgroup pointer.
#if defined(HARNESS_LINT)
#define HARNESS_SPACE(n) __attribute__((address_space(n)))
#else
#define HARNESS_SPACE(n)
#endif

namespace harness {

template <class V>
struct VectorTraits {
  static constexpr int size = 1;
  typedef V element;
};
template <class T, int N>
struct VectorTraits<T __attribute__((ext_vector_type(N)))> {
  static constexpr int size = N;
  typedef T element;
};
template <class V>
using plain = std::remove_cv_t<std::remove_reference_t<V>>;
template <class V>
constexpr int size_of = VectorTraits<plain<V>>::size;
template <class V>
using element_of = typename VectorTraits<plain<V>>::element;

template <class V, class A>
inline void append(V& made, int& count, const A& part) {
  if constexpr (size_of<A> == 1) {
    made[count++] = element_of<V>(part);
  } else {
    for (int k = 0; k < size_of<A>; k++) made[count++] = element_of<V>(part[k]);
  }
}

// Metal's vector constructors: T4(x), T4(a, b, c, d), T4(v2, c, d), T4(v4 of another type).
template <class V, class... A>
inline V make(const A&... parts) {
  if constexpr (size_of<V> == 1) {
    return V(parts...);
  } else {
    V made = V(element_of<V>(0));
    int count = 0;
    (append(made, count, parts), ...);
    if (count == 1) {
      for (int k = 1; k < size_of<V>; k++) made[k] = made[0];
    }
    return made;
  }
}

// A function of one, two or three numbers, over every element.
template <class F, class V>
inline V each(V x, F f) {
  if constexpr (size_of<V> == 1) {
    return V(f(x));
  } else {
    V made;
    for (int i = 0; i < size_of<V>; i++) made[i] = element_of<V>(f(x[i]));
    return made;
  }
}
template <class F, class V>
inline V each(V x, V y, F f) {
  if constexpr (size_of<V> == 1) {
    return V(f(x, y));
  } else {
    V made;
    for (int i = 0; i < size_of<V>; i++) made[i] = element_of<V>(f(x[i], y[i]));
    return made;
  }
}
template <class F, class V>
inline V each(V x, V y, V z, F f) {
  if constexpr (size_of<V> == 1) {
    return V(f(x, y, z));
  } else {
    V made;
    for (int i = 0; i < size_of<V>; i++) made[i] = element_of<V>(f(x[i], y[i], z[i]));
    return made;
  }
}

template <class A, class B, bool = std::is_same_v<A, B>>
struct Common {
  typedef A type;
};
template <class A, class B>
struct Common<A, B, false> {
  typedef decltype(std::declval<A>() + std::declval<B>()) type;
};
template <class A, class B>
using common = typename Common<A, B>::type;

}  // namespace harness

namespace metal {

using ::bfloat;
using ::half;
using ::int16_t;
using ::int32_t;
using ::int64_t;
using ::int8_t;
using ::uchar;
using ::uint;
using ::uint16_t;
using ::uint32_t;
using ::uint64_t;
using ::uint8_t;
using ::ulong;
using ::ushort;

template <class T, int N>
using vec = T __attribute__((ext_vector_type(N)));

using std::bool_constant;
using std::conditional;
using std::conditional_t;
using std::decay_t;
using std::declval;
using std::enable_if;
using std::enable_if_t;
using std::false_type;
using std::integral_constant;
using std::is_base_of_v;
using std::is_convertible;
using std::is_convertible_v;
using std::is_integral;
using std::is_integral_v;
using std::is_same;
using std::is_same_v;
using std::is_signed;
using std::is_signed_v;
using std::is_unsigned;
using std::is_unsigned_v;
using std::make_unsigned_t;
using std::remove_cv_t;
using std::remove_reference_t;
using std::true_type;

template <class T>
constexpr bool is_floating_point_v =
    std::is_floating_point<T>::value || std::is_same_v<T, half> || std::is_same_v<T, bfloat>;
template <class T>
struct is_floating_point : std::bool_constant<is_floating_point_v<T>> {};

template <class T>
struct numeric_limits : std::numeric_limits<T> {};

// The 16-bit floats' limits by their bits: the standard library knows neither.
#define HARNESS_LIMITS(T, MAX, LOWEST, MIN, INF, NAN_, EPSILON, DIGITS)                       \
  template <>                                                                                 \
  struct numeric_limits<T> {                                                                  \
    static constexpr bool is_specialized = true, is_signed = true;                            \
    static constexpr bool is_integer = false, is_exact = false;                               \
    static constexpr bool has_infinity = true, has_quiet_NaN = true;                          \
    static constexpr int digits = DIGITS;                                                     \
    static constexpr T max() { return __builtin_bit_cast(T, uint16_t(MAX)); }                 \
    static constexpr T lowest() { return __builtin_bit_cast(T, uint16_t(LOWEST)); }           \
    static constexpr T min() { return __builtin_bit_cast(T, uint16_t(MIN)); }                 \
    static constexpr T infinity() { return __builtin_bit_cast(T, uint16_t(INF)); }            \
    static constexpr T quiet_NaN() { return __builtin_bit_cast(T, uint16_t(NAN_)); }          \
    static constexpr T epsilon() { return __builtin_bit_cast(T, uint16_t(EPSILON)); }         \
  };
HARNESS_LIMITS(half, 0x7bff, 0xfbff, 0x0400, 0x7c00, 0x7e00, 0x1400, 11)
HARNESS_LIMITS(bfloat, 0x7f7f, 0xff7f, 0x0080, 0x7f80, 0x7fc0, 0x3c00, 8)
#undef HARNESS_LIMITS

template <class T, class U>
inline T as_type(U x) {
  static_assert(sizeof(T) == sizeof(U), "as_type needs equal sizes");
  return __builtin_bit_cast(T, x);
}

}  // namespace metal
