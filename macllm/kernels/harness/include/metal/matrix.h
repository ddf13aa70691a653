// simdgroup_matrix: 8x8, two elements of one row in each of the 32 lanes.
#pragma once

#include "metal/simd.h"

namespace metal {

template <class T, int ROWS, int COLUMNS>
struct simdgroup_matrix {
  static_assert(ROWS == 8 && COLUMNS == 8, "Metal has only 8x8");
  typedef vec<T, 2> Elements;
  Elements elements;

  simdgroup_matrix() {}
  explicit simdgroup_matrix(T diagonal) {
    const uint2 at = place();
    elements = Elements{T(at.y == at.x ? diagonal : T(0)), T(at.y == at.x + 1 ? diagonal : T(0))};
  }
  Elements& thread_elements() { return elements; }

  // Column (x) and row (y) of this lane's first element, as Apple's hardware has it.
  static uint2 place() {
    const uint lane = harness::current_lane(), quad = lane / 4;
    return uint2{(quad & 2) * 2 + (lane % 2) * 2, (quad & 4) + (lane / 2) % 4};
  }
  // The lane that holds an element: place() the other way.
  static uint lane_of(uint row, uint column) {
    return ((row & 4) << 2) | ((row & 3) << 1) | ((column & 4) << 1) | ((column >> 1) & 1);
  }
};
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;

template <class T, int ROWS, int COLUMNS>
inline simdgroup_matrix<T, ROWS, COLUMNS> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, ROWS, COLUMNS> made;
  made.elements = vec<T, 2>{value, value};
  return made;
}

#define HARNESS_LOAD_AND_STORE(space)                                                              \
  template <class T>                                                                               \
  inline void simdgroup_load(simdgroup_matrix<T, 8, 8>& to, const T space* from, ulong stride = 8, \
                             ulong2 origin = ulong2{0, 0}, bool transpose = false, HARNESS_HERE) {  \
    harness::gather(0, HARNESS_SITE("simdgroup_load"));                                            \
    const uint2 at = to.place();                                                                   \
    for (uint j = 0; j < 2; j++) {                                                                 \
      to.elements[j] = transpose ? from[(origin.x + at.x + j) * stride + origin.y + at.y]          \
                                 : from[(origin.y + at.y) * stride + origin.x + at.x + j];         \
    }                                                                                              \
  }                                                                                                \
  template <class T>                                                                               \
  inline void simdgroup_store(const simdgroup_matrix<T, 8, 8>& from, T space* to, ulong stride = 8, \
                              ulong2 origin = ulong2{0, 0}, bool transpose = false, HARNESS_HERE) { \
    harness::gather(0, HARNESS_SITE("simdgroup_store"));                                           \
    const uint2 at = from.place();                                                                 \
    for (uint j = 0; j < 2; j++) {                                                                 \
      (transpose ? to[(origin.x + at.x + j) * stride + origin.y + at.y]                            \
                 : to[(origin.y + at.y) * stride + origin.x + at.x + j]) = from.elements[j];       \
    }                                                                                              \
  }
HARNESS_LOAD_AND_STORE()
#if defined(HARNESS_LINT)
HARNESS_LOAD_AND_STORE(HARNESS_SPACE(1))
HARNESS_LOAD_AND_STORE(HARNESS_SPACE(3))
#endif
#undef HARNESS_LOAD_AND_STORE

// d = a * b + c, summed in float.
template <class D, class A, class B, class C>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                                          const simdgroup_matrix<B, 8, 8>& b,
                                          const simdgroup_matrix<C, 8, 8>& c, HARNESS_HERE) {
  struct Pair {
    vec<A, 2> a;
    vec<B, 2> b;
  };
  const harness::Site site = HARNESS_SITE("simdgroup_multiply_accumulate");
  const auto lanes = harness::gather(Pair{a.elements, b.elements}, site);
  if (lanes.given.active != ~0u) harness::fault("a matrix is multiplied by less than 32 lanes", site);
  const uint2 at = d.place();
  float first = float(c.elements[0]), second = float(c.elements[1]);
  for (uint k = 0; k < 8; k++) {
    const Pair left = lanes[d.lane_of(at.y, k)], right = lanes[d.lane_of(k, at.x)];
    const float factor = float(left.a[k & 1]);
    first += factor * float(right.b[0]);
    second += factor * float(right.b[1]);
  }
  d.elements = vec<D, 2>{D(first), D(second)};
}
template <class D, class A, class B>
inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, const simdgroup_matrix<A, 8, 8>& a,
                               const simdgroup_matrix<B, 8, 8>& b, HARNESS_HERE) {
  const auto zero = make_filled_simdgroup_matrix<D, 8, 8>(D(0));
  simdgroup_multiply_accumulate(d, a, b, zero, file_, line_);
}

}  // namespace metal
