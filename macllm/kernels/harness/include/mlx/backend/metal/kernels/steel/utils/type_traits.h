// In place of MLX's, which specialises by address space: the same names without.
namespace metal {
using std::is_empty;
using std::is_empty_v;
using std::void_t;
template <class T>
struct is_static : std::bool_constant<std::is_empty<std::remove_cv_t<T>>::value> {};
template <class T>
struct pointer_element {};
template <class T>
struct pointer_element<T*> {
  using type = std::remove_cv_t<T>;
};
template <class T>
using pointer_element_t = typename pointer_element<std::remove_cv_t<T>>::type;
template <class T>
using remove_addrspace_t = T;
}  // namespace metal
