// Metal's atomics on clang's, all relaxed, over any type of 1, 2, 4 or 8 bytes.
#pragma once

#include "metal/types.h"

namespace metal {

enum memory_order { memory_order_relaxed, memory_order_seq_cst };

template <class T>
struct atomic {
  T value;
};
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
typedef atomic<float> atomic_float;
typedef atomic<bool> atomic_bool;
typedef atomic<ulong> atomic_ulong;

}  // namespace metal

namespace harness {

template <class T>
using bits_like = std::conditional_t<
    sizeof(T) == 8, uint64_t,
    std::conditional_t<sizeof(T) == 4, uint32_t, std::conditional_t<sizeof(T) == 2, uint16_t, uint8_t>>>;

template <class T, class F>
inline T update(T* place, F f) {
  typedef bits_like<T> Bits;
  Bits* bits = (Bits*)place;
  Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  for (;;) {
    const T before = __builtin_bit_cast(T, old);
    const Bits after = __builtin_bit_cast(Bits, T(f(before)));
    if (__atomic_compare_exchange_n(bits, &old, after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      return before;
    }
  }
}

}  // namespace harness

namespace metal {

#define HARNESS_UPDATE(name, expression)                                                \
  template <class T, class U>                                                           \
  inline T name(const volatile atomic<T>* place, U given, memory_order) {               \
    const T y = T(given);                                                               \
    return harness::update((T*)&place->value, [=](T x) { (void)x; return expression; }); \
  }
HARNESS_UPDATE(atomic_exchange_explicit, y)
HARNESS_UPDATE(atomic_fetch_add_explicit, x + y)
HARNESS_UPDATE(atomic_fetch_sub_explicit, x - y)
HARNESS_UPDATE(atomic_fetch_max_explicit, x < y ? y : x)
HARNESS_UPDATE(atomic_fetch_min_explicit, y < x ? y : x)
HARNESS_UPDATE(atomic_fetch_or_explicit, x | y)
HARNESS_UPDATE(atomic_fetch_and_explicit, x & y)
HARNESS_UPDATE(atomic_fetch_xor_explicit, x ^ y)
#undef HARNESS_UPDATE

template <class T>
inline T atomic_load_explicit(const volatile atomic<T>* place, memory_order) {
  typedef harness::bits_like<T> Bits;
  return __builtin_bit_cast(T, __atomic_load_n((Bits*)&place->value, __ATOMIC_RELAXED));
}
template <class T, class U>
inline void atomic_store_explicit(volatile atomic<T>* place, U given, memory_order) {
  typedef harness::bits_like<T> Bits;
  __atomic_store_n((Bits*)&place->value, __builtin_bit_cast(Bits, T(given)), __ATOMIC_RELAXED);
}
template <class T>
inline bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* place, T* expected, T desired, memory_order,
                                                  memory_order) {
  typedef harness::bits_like<T> Bits;
  const Bits after = __builtin_bit_cast(Bits, desired);
  return __atomic_compare_exchange_n((Bits*)&place->value, (Bits*)expected, after, false, __ATOMIC_RELAXED,
                                     __ATOMIC_RELAXED);
}

}  // namespace metal
