  // One thread a part of a block: sixteen weights. Template: T (of the matrix). ``count``: parts.
  constexpr int PARTS = BLOCK_WEIGHTS / 16;  // of a block
  constexpr int RUNS = BLOCK_APART / 8;      // parts that lie side by side
  threadgroup float table[16];
  if (BLOCK_TABLE) {
    const uint t = thread_index_in_threadgroup;
    if (t < 16) table[t] = BLOCK_VALUES[t];
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  const uint place = thread_position_in_grid.x;
  if (place < count[0]) {
    const int part = int(place % uint(PARTS));
    const size_t block = place / uint(PARTS);
    const BlockPart found = block_part(weight + block * BLOCK_BYTES, part);
    const size_t k = block * BLOCK_WEIGHTS + part / RUNS * 2 * BLOCK_APART + part % RUNS * 8;
    for (int i = 0; i < 16; i++) {
      const uint code = (found.codes[i / 4] >> (8 * (i % 4))) & 255u;
      float value = found.scales[i / 8] * (BLOCK_TABLE ? table[code] : float(int(code) - BLOCK_OFFSET));
      if (BLOCK_BIASED) value += found.biases[i / 8];
      y[k + i % 8 + i / 8 * BLOCK_APART] = T(value);
    }
  }
