// Metal's math, integer and relational functions over scalars and vectors. Computed in float, rounded once.
#pragma once

#include <cmath>

#include "metal/types.h"

namespace metal {

#define HARNESS_UNARY(name, expression)                              \
  template <class V>                                                 \
  inline V name(V given) {                                           \
    return harness::each(given, [](float x) { return expression; }); \
  }
#define HARNESS_BINARY(name, expression)                                      \
  template <class V>                                                          \
  inline V name(V a, V b) {                                                   \
    return harness::each(a, b, [](float x, float y) { return expression; });  \
  }
// metal::, metal::precise:: and metal::fast:: differ on a GPU; here all are precise.
#define HARNESS_FLOAT_MATH                          \
  HARNESS_UNARY(exp, ::expf(x))                     \
  HARNESS_UNARY(exp2, ::exp2f(x))                   \
  HARNESS_UNARY(exp10, ::powf(10.0f, x))            \
  HARNESS_UNARY(log, ::logf(x))                     \
  HARNESS_UNARY(log2, ::log2f(x))                   \
  HARNESS_UNARY(log10, ::log10f(x))                 \
  HARNESS_UNARY(sqrt, ::sqrtf(x))                   \
  HARNESS_UNARY(rsqrt, 1.0f / ::sqrtf(x))           \
  HARNESS_UNARY(sin, ::sinf(x))                     \
  HARNESS_UNARY(cos, ::cosf(x))                     \
  HARNESS_UNARY(tan, ::tanf(x))                     \
  HARNESS_UNARY(sinh, ::sinhf(x))                   \
  HARNESS_UNARY(cosh, ::coshf(x))                   \
  HARNESS_UNARY(tanh, ::tanhf(x))                   \
  HARNESS_UNARY(asin, ::asinf(x))                   \
  HARNESS_UNARY(acos, ::acosf(x))                   \
  HARNESS_UNARY(atan, ::atanf(x))                   \
  HARNESS_UNARY(asinh, ::asinhf(x))                 \
  HARNESS_UNARY(acosh, ::acoshf(x))                 \
  HARNESS_UNARY(atanh, ::atanhf(x))                 \
  HARNESS_UNARY(floor, ::floorf(x))                 \
  HARNESS_UNARY(ceil, ::ceilf(x))                   \
  HARNESS_UNARY(round, ::roundf(x))                 \
  HARNESS_UNARY(rint, ::rintf(x))                   \
  HARNESS_UNARY(trunc, ::truncf(x))                 \
  HARNESS_UNARY(fabs, ::fabsf(x))                   \
  HARNESS_UNARY(fract, x - ::floorf(x))             \
  HARNESS_BINARY(pow, ::powf(x, y))                 \
  HARNESS_BINARY(powr, ::powf(x, y))                \
  HARNESS_BINARY(atan2, ::atan2f(x, y))             \
  HARNESS_BINARY(fmod, ::fmodf(x, y))               \
  HARNESS_BINARY(fmin, ::fminf(x, y))               \
  HARNESS_BINARY(fmax, ::fmaxf(x, y))               \
  HARNESS_BINARY(copysign, ::copysignf(x, y))       \
  HARNESS_BINARY(divide, x / y)
HARNESS_FLOAT_MATH
namespace precise {
HARNESS_FLOAT_MATH
}
namespace fast {
HARNESS_FLOAT_MATH
}
#undef HARNESS_FLOAT_MATH
#undef HARNESS_UNARY
#undef HARNESS_BINARY

template <class V>
inline V sign(V a) {
  return harness::each(a, [](auto x) { return x > 0 ? 1 : (x < 0 ? -1 : 0); });
}
template <class V>
inline V fma(V a, V b, V c) {
  return harness::each(a, b, c, [](float x, float y, float z) { return __builtin_fmaf(x, y, z); });
}
template <class V>
inline V mad(V a, V b, V c) {
  return fma(a, b, c);
}
template <class V>
inline V ldexp(V a, int exponent) {
  return harness::each(a, [exponent](float x) { return ::ldexpf(x, exponent); });
}
template <class A, class B>
inline harness::common<A, B> min(A a, B b) {
  typedef harness::common<A, B> V;
  return harness::each(V(a), V(b), [](auto x, auto y) { return y < x ? y : x; });
}
template <class A, class B>
inline harness::common<A, B> max(A a, B b) {
  typedef harness::common<A, B> V;
  return harness::each(V(a), V(b), [](auto x, auto y) { return x < y ? y : x; });
}
template <class V>
inline V clamp(V x, V low, V high) {
  return min(max(x, low), high);
}
template <class V>
inline V saturate(V x) {
  return clamp(x, V(0), V(1));
}
template <class V>
inline V mix(V a, V b, V t) {
  return a + (b - a) * t;
}
template <class V>
inline V abs(V a) {
  return harness::each(a, [](auto x) { return x < 0 ? decltype(x)(-x) : x; });
}

template <class V>
inline auto isnan(V x) {
  if constexpr (harness::size_of<V> == 1) {
    return bool(x != x);
  } else {
    return x != x;
  }
}
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline bool signbit(float x) { return __builtin_signbit(x); }
template <class V>
inline V select(V a, V b, bool chosen) {
  return chosen ? b : a;
}
template <class V, class C, class = std::enable_if_t<(harness::size_of<C> > 1)>>
inline V select(V a, V b, C chosen) {
  V made;
  for (int i = 0; i < harness::size_of<V>; i++) made[i] = chosen[i] ? b[i] : a[i];
  return made;
}
template <class V>
inline bool any(V a) {
  if constexpr (harness::size_of<V> == 1) return bool(a);
  for (int i = 0; i < harness::size_of<V>; i++) {
    if (a[i]) return true;
  }
  return false;
}
template <class V>
inline bool all(V a) {
  return !any(!a);
}
template <class V>
inline harness::element_of<V> dot(V a, V b) {
  harness::element_of<V> sum = 0;
  for (int i = 0; i < harness::size_of<V>; i++) sum += a[i] * b[i];
  return sum;
}
template <class V>
inline harness::element_of<V> length(V a) {
  return sqrt(dot(a, a));
}

// ---- bits ----

template <class T>
constexpr int bits_of = int(sizeof(T) * 8);

template <class V>
inline V popcount(V a) {
  return harness::each(a, [](auto x) {
    return __builtin_popcountll((unsigned long long)std::make_unsigned_t<decltype(x)>(x));
  });
}
template <class V>
inline V clz(V a) {
  return harness::each(a, [](auto x) {
    typedef decltype(x) T;
    const auto wide = (unsigned long long)std::make_unsigned_t<T>(x);
    return x == 0 ? bits_of<T> : __builtin_clzll(wide) - (64 - bits_of<T>);
  });
}
template <class V>
inline V ctz(V a) {
  return harness::each(a, [](auto x) {
    return x == 0 ? bits_of<decltype(x)> : __builtin_ctzll((unsigned long long)x);
  });
}
template <class V>
inline V extract_bits(V a, uint offset, uint count) {
  return harness::each(a, [=](auto x) {
    typedef decltype(x) T;
    typedef std::make_unsigned_t<T> U;
    const U mask = count >= uint(bits_of<T>) ? U(~U(0)) : U((U(1) << count) - 1);
    U found = U(U(x) >> offset) & mask;
    if (std::is_signed_v<T> && count && ((found >> (count - 1)) & 1)) found |= U(~mask);
    return T(found);
  });
}
template <class V>
inline V insert_bits(V base, V given, uint offset, uint count) {
  return harness::each(base, given, [=](auto x, auto y) {
    typedef decltype(x) T;
    typedef std::make_unsigned_t<T> U;
    const U mask = count >= uint(bits_of<T>) ? U(~U(0)) : U((U(1) << count) - 1);
    return T((U(x) & U(~(mask << offset))) | ((U(y) & mask) << offset));
  });
}
inline uint reverse_bits(uint x) { return __builtin_bitreverse32(x); }
inline ulong mulhi(ulong a, ulong b) { return ulong((__uint128_t(a) * b) >> 64); }
inline uint mulhi(uint a, uint b) { return uint((uint64_t(a) * b) >> 32); }
template <class V>
inline V rotate(V a, V b) {
  return harness::each(a, b, [](auto x, auto n) {
    constexpr int width = bits_of<decltype(x)>;
    n &= width - 1;
    return decltype(x)((x << n) | (n ? x >> (width - n) : 0));
  });
}
inline float4 unpack_unorm4x8_to_float(uint x) {
  float4 made;
  for (int i = 0; i < 4; i++) made[i] = float((x >> (8 * i)) & 255) / 255.0f;
  return made;
}

}  // namespace metal
