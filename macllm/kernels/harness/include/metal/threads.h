// What a kernel's text needs of the threads that run it: where each is, and the points where threads meet.
// The other side of these declarations is runtime/fibers.cpp, which is compiled without any sanitizer.
#pragma once

#include "metal/types.h"

namespace harness {

// Every [[attribute]] that a kernel may ask for.
struct Position {
  uint3 thread_position_in_grid, thread_position_in_threadgroup, threadgroup_position_in_grid;
  uint3 threads_per_threadgroup, dispatch_threads_per_threadgroup;
  uint3 threads_per_grid, threadgroups_per_grid, grid_size, grid_origin;
  uint thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup;
  uint simdgroups_per_threadgroup, dispatch_simdgroups_per_threadgroup;
  uint threads_per_simdgroup, thread_execution_width;
  uint quadgroup_index_in_threadgroup, thread_index_in_quadgroup;
  uint quadgroups_per_threadgroup, dispatch_quadgroups_per_threadgroup;
};

typedef void (*Entry)(void** buffers, const Position& position);

struct Kernel {
  const char* name;
  Entry entry;
};

// Where in the kernel's text a thread is: for messages, and to tell one meeting from another.
struct Site {
  const char* what;
  const char* file;
  int line;
};

constexpr unsigned kLanes = 32;
constexpr size_t kLargestValue = 64;  // bytes that a lane may hand to the others

// What the lanes of a simdgroup handed in; `active` has a bit for each lane that took part.
struct Exchange {
  const char (*slots)[kLargestValue];
  unsigned active;
  unsigned lane;  // of the caller
};

// What the runtime answers, read at once after a call. A global, because MemorySanitizer would take a value that
// code without instrumentation returns for uninitialised.
struct Answer {
  Exchange exchange;
  unsigned lane;
  void* memory;
};
extern Answer answer;

// Waits until every living lane of the caller's simdgroup has come to `site`, each with a value; answer.exchange.
void exchange(const void* value, size_t bytes, Site site);
// What a barrier puts in order: writes to a threadgroup's memory, to buffers, or neither.
struct Fence {
  bool shared, device;
};
void threadgroup_wait(Site site, Fence fence);
void simdgroup_wait(Site site, Fence fence);
void find_lane();  // answer.lane
// Memory that the threads of a threadgroup share, garbage at first; answer.memory.
void find_memory(unsigned variable, size_t bytes);
// Ends the program with a message: the kernel did what it must not.
[[noreturn]] void fault(const char* message, Site site);

inline unsigned current_lane() {
  find_lane();
  return answer.lane;
}
template <class T>
inline T* threadgroup_memory(unsigned variable) {
  find_memory(variable, sizeof(T));
  return (T*)answer.memory;
}

// A kernel's arguments take their types from its signature.
struct PointerArgument {
  void* place;
  template <class T>
  operator T*() const {
    return (T*)place;
  }
};
struct ReferenceArgument {
  void* place;
  template <class T>
  operator T&() const {
    return *(T*)place;
  }
};
struct PositionArgument {  // declared as uint, uint2 or uint3
  uint3 value;
  operator uint3() const { return value; }
  operator uint2() const { return value.xy; }
  operator uint() const { return value.x; }
  operator ushort() const { return ushort(value.x); }
};

}  // namespace harness
