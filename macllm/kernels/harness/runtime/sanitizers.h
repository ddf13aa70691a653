// The sanitizers' interfaces, as calls that are nothing in a build without them. The runtime itself is compiled
// without instrumentation: only the kernel's own reads and writes are watched.
#pragma once

#include <cstddef>

#if defined(HARNESS_ADDRESS)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(HARNESS_THREAD)
#include <sanitizer/tsan_interface.h>
#elif defined(HARNESS_MEMORY)
#include <sanitizer/msan_interface.h>
#endif

namespace harness {

// What happened before release(tag) is seen by whoever calls acquire(tag) after it.
inline void release(void* tag) {
#if defined(HARNESS_THREAD)
  __tsan_release(tag);
#endif
  (void)tag;
}
inline void acquire(void* tag) {
#if defined(HARNESS_THREAD)
  __tsan_acquire(tag);
#endif
  (void)tag;
}

// Memory whose contents nobody may use before it is written.
inline void mark_uninitialised(void* place, size_t bytes) {
#if defined(HARNESS_MEMORY)
  __msan_poison(place, bytes);
#endif
  (void)place, (void)bytes;
}
inline void mark_initialised(const void* place, size_t bytes) {
#if defined(HARNESS_MEMORY)
  __msan_unpoison(place, bytes);
#endif
  (void)place, (void)bytes;
}
// The first byte that is not initialised, or -1.
inline long first_uninitialised(const void* place, size_t bytes) {
#if defined(HARNESS_MEMORY)
  return __msan_test_shadow(place, bytes);
#else
  (void)place, (void)bytes;
  return -1;
#endif
}
inline void mark_arguments_initialised(size_t count) {
#if defined(HARNESS_MEMORY)
  __msan_unpoison_param(count);
#endif
  (void)count;
}

// Memory that nobody may touch.
inline void forbid(void* place, size_t bytes) {
#if defined(HARNESS_ADDRESS)
  __asan_poison_memory_region(place, bytes);
#endif
  (void)place, (void)bytes;
}
inline void allow(void* place, size_t bytes) {
#if defined(HARNESS_ADDRESS)
  __asan_unpoison_memory_region(place, bytes);
#endif
  (void)place, (void)bytes;
}

}  // namespace harness
