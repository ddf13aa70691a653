// Runs a kernel's threadgroups one after another, each Metal thread as a fiber with a stack of its own.
#pragma once

#include <cstdint>

#include "metal/threads.h"

namespace harness {

enum class Order : uint64_t { forward, reverse, random };

struct Grid {
  uint3 threads;     // of the whole grid
  uint3 threadgroup;  // of a threadgroup; those at the edges have fewer
};

// Runs every thread of the grid. `fill` is the byte that threadgroup memory holds before it is written.
void run_grid(const Kernel& kernel, void** buffers, Grid grid, Order order, uint64_t seed, unsigned char fill);

}  // namespace harness
