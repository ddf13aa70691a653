// Barriers, and the functions by which the 32 lanes of a simdgroup hand values to each other.
#pragma once

#include <cstring>

#include "metal/math.h"
#include "metal/threads.h"

// Default arguments take the caller's place in the kernel's text.
#define HARNESS_HERE const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()
#define HARNESS_SITE(name) harness::Site{name, file_, line_}

namespace metal {

enum class mem_flags {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8,
  mem_object_data = 16
};
inline constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }

inline harness::Fence fence_of(mem_flags flags) {
  return {(int(flags) & int(mem_flags::mem_threadgroup)) != 0, (int(flags) & int(mem_flags::mem_device)) != 0};
}
inline void threadgroup_barrier(mem_flags flags, HARNESS_HERE) {
  harness::threadgroup_wait(HARNESS_SITE("threadgroup_barrier"), fence_of(flags));
}
inline void simdgroup_barrier(mem_flags flags, HARNESS_HERE) {
  harness::simdgroup_wait(HARNESS_SITE("simdgroup_barrier"), fence_of(flags));
}

}  // namespace metal

namespace harness {

template <class T>
struct Lanes {
  Exchange given;
  bool has(unsigned lane) const { return lane < kLanes && ((given.active >> lane) & 1); }
  T operator[](unsigned lane) const {
    T value;
    memcpy(&value, given.slots[lane], sizeof value);
    return value;
  }
};

template <class T>
inline Lanes<T> gather(const T& value, Site site) {
  static_assert(sizeof(T) <= kLargestValue, "value too large for a simd function");
  exchange(&value, sizeof value, site);
  return {answer.exchange};
}

template <class T>
inline T pull(const Lanes<T>& lanes, unsigned lane, Site site) {
  if (!lanes.has(lane)) fault("a lane that does not take part is read", site);
  return lanes[lane];
}

// In the order of a butterfly (distances 16, 8, 4, 2, 1), as hardware sums; inactive lanes are left out.
template <class T, class F>
inline T reduce(const Lanes<T>& lanes, F f) {
  T values[kLanes];
  bool there[kLanes];
  for (unsigned i = 0; i < kLanes; i++) {
    there[i] = lanes.has(i);
    if (there[i]) values[i] = lanes[i];
  }
  for (unsigned step = kLanes / 2; step; step /= 2) {
    for (unsigned i = 0; i < step; i++) {
      if (!there[i + step]) continue;
      values[i] = there[i] ? f(values[i], values[i + step]) : values[i + step];
      there[i] = true;
    }
  }
  return values[0];
}

}  // namespace harness

namespace metal {

#define HARNESS_REDUCE(name, expression)                                                   \
  template <class T>                                                                       \
  inline T name(T value, HARNESS_HERE) {                                                   \
    return harness::reduce(harness::gather(value, HARNESS_SITE(#name)), [](T a, T b) -> T { \
      return expression;                                                                   \
    });                                                                                    \
  }
HARNESS_REDUCE(simd_sum, T(a + b))
HARNESS_REDUCE(simd_product, T(a * b))
HARNESS_REDUCE(simd_max, metal::max(a, b))
HARNESS_REDUCE(simd_min, metal::min(a, b))
HARNESS_REDUCE(simd_and, T(a & b))
HARNESS_REDUCE(simd_or, T(a | b))
HARNESS_REDUCE(simd_xor, T(a ^ b))
#undef HARNESS_REDUCE

// `source` is the lane to read, from `lane`, the caller's own.
#define HARNESS_SHUFFLE(name, argument, source)                             \
  template <class T>                                                        \
  inline T name(T value, ushort argument, HARNESS_HERE) {                   \
    const auto lanes = harness::gather(value, HARNESS_SITE(#name));         \
    const unsigned lane = lanes.given.lane;                                 \
    (void)lane;                                                             \
    return harness::pull(lanes, unsigned(source), HARNESS_SITE(#name));     \
  }
HARNESS_SHUFFLE(simd_broadcast, from, from)
HARNESS_SHUFFLE(simd_shuffle, from, from)
HARNESS_SHUFFLE(simd_shuffle_xor, mask, lane ^ mask)
HARNESS_SHUFFLE(simd_shuffle_rotate_down, delta, (lane + delta) & 31)
HARNESS_SHUFFLE(simd_shuffle_rotate_up, delta, (lane - delta) & 31)
// past the edge a lane keeps its own value
HARNESS_SHUFFLE(simd_shuffle_down, delta, lane + delta > 31 ? lane : lane + delta)
HARNESS_SHUFFLE(simd_shuffle_up, delta, delta > lane ? lane : lane - delta)
HARNESS_SHUFFLE(quad_broadcast, from, (lane & ~3u) + from)
HARNESS_SHUFFLE(quad_shuffle_xor, mask, lane ^ (mask & 3))
HARNESS_SHUFFLE(quad_shuffle_down, delta, (lane & 3) + delta > 3 ? lane : lane + delta)
#undef HARNESS_SHUFFLE

template <class T>
inline T simd_broadcast_first(T value, HARNESS_HERE) {
  const auto lanes = harness::gather(value, HARNESS_SITE("simd_broadcast_first"));
  return lanes[__builtin_ctz(lanes.given.active)];
}
template <class T>
inline T simd_shuffle_and_fill_down(T value, T fill, ushort delta, HARNESS_HERE) {
  const harness::Site site = HARNESS_SITE("simd_shuffle_and_fill_down");
  const auto lanes = harness::gather(value, site), filling = harness::gather(fill, site);
  const unsigned from = lanes.given.lane + delta;
  return from > 31 ? filling[from & 31] : harness::pull(lanes, from, site);
}
template <class T>
inline T simd_shuffle_and_fill_up(T value, T fill, ushort delta, HARNESS_HERE) {
  const harness::Site site = HARNESS_SITE("simd_shuffle_and_fill_up");
  const auto lanes = harness::gather(value, site), filling = harness::gather(fill, site);
  const unsigned lane = lanes.given.lane;
  return delta > lane ? filling[(32 + lane - delta) & 31] : harness::pull(lanes, lane - delta, site);
}
template <class T>
inline T simd_prefix_inclusive_sum(T value, HARNESS_HERE) {
  const auto lanes = harness::gather(value, HARNESS_SITE("simd_prefix_inclusive_sum"));
  T sum = 0;
  for (unsigned i = 0; i <= lanes.given.lane; i++) {
    if (lanes.has(i)) sum += lanes[i];
  }
  return sum;
}
template <class T>
inline T simd_prefix_exclusive_sum(T value, HARNESS_HERE) {
  const auto lanes = harness::gather(value, HARNESS_SITE("simd_prefix_exclusive_sum"));
  T sum = 0;
  for (unsigned i = 0; i < lanes.given.lane; i++) {
    if (lanes.has(i)) sum += lanes[i];
  }
  return sum;
}
template <class T>
inline T quad_sum(T value, HARNESS_HERE) {
  const auto lanes = harness::gather(value, HARNESS_SITE("quad_sum"));
  const unsigned first = lanes.given.lane & ~3u;
  const T even = lanes[first] + lanes[first + 2], odd = lanes[first + 1] + lanes[first + 3];
  return even + odd;
}

struct simd_vote {
  typedef ulong vote_t;
  ulong bits, active;
  explicit operator vote_t() const { return bits; }
  bool all() const { return bits == active; }
  bool any() const { return bits != 0; }
};
inline simd_vote simd_ballot(bool value, HARNESS_HERE) {
  const auto lanes = harness::gather(uint(value), HARNESS_SITE("simd_ballot"));
  ulong bits = 0;
  for (unsigned i = 0; i < harness::kLanes; i++) {
    if (lanes.has(i) && lanes[i]) bits |= 1ul << i;
  }
  return {bits, lanes.given.active};
}
inline bool simd_any(bool value, HARNESS_HERE) { return simd_ballot(value, file_, line_).any(); }
inline bool simd_all(bool value, HARNESS_HERE) { return simd_ballot(value, file_, line_).all(); }
inline bool simd_is_first(HARNESS_HERE) {
  const auto lanes = harness::gather(0u, HARNESS_SITE("simd_is_first"));
  return lanes.given.lane == unsigned(__builtin_ctz(lanes.given.active));
}

}  // namespace metal
