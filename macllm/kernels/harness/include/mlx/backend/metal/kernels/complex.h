// In place of MLX's, which overloads constructors by address space: only what other headers need to compile.
template <typename T>
struct complex_t {
  T real, imag;
  constexpr complex_t() : real(0), imag(0) {}
  constexpr complex_t(T r, T i) : real(r), imag(i) {}
  template <typename U>
  constexpr complex_t(U x) : real(T(x)), imag(0) {}
};
typedef complex_t<float> complex64_t;
