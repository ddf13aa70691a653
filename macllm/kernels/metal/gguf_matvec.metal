  // One simdgroup computes ROWS outputs of one row of x; a lane takes a part of a block (sixteen weights) at a time,
  // so that neighbouring lanes read neighbouring bytes. Template: T (of x and y). ``sizes``: K and N (inputs and
  // outputs of a matrix); ``index``: the matrix of each row of x.
  constexpr int ROWS = 4;
  constexpr int PARTS = BLOCK_WEIGHTS / 16;  // of a block
  constexpr int RUNS = BLOCK_APART / 8;      // parts that lie side by side
  threadgroup float table[16];
  const uint lane = thread_index_in_simdgroup;
  if (BLOCK_TABLE) {
    const uint t = thread_index_in_threadgroup;
    if (t < 16) table[t] = BLOCK_VALUES[t];
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  const int K = int(sizes[0]);
  const int N = int(sizes[1]);
  const uint input = threadgroup_position_in_grid.x;
  const int first = int(threadgroup_position_in_grid.y * 2 + simdgroup_index_in_threadgroup) * ROWS;
  const size_t row_bytes = size_t(K / BLOCK_WEIGHTS) * BLOCK_BYTES;
  const size_t matrix = size_t(index[input]) * N * row_bytes;
  float sums[ROWS] = {0, 0, 0, 0};
  for (int p = int(lane); p < K / 16; p += 32) {
    const int part = p % PARTS;
    const size_t k = size_t(input) * K + p / PARTS * BLOCK_WEIGHTS + part / RUNS * 2 * BLOCK_APART + part % RUNS * 8;
    float xs[16];
    float totals[2] = {0, 0};
    for (int i = 0; i < 16; i++) {
      xs[i] = float(x[k + i % 8 + i / 8 * BLOCK_APART]);
      totals[i / 8] += xs[i];
    }
    for (int r = 0; r < ROWS; r++) {
      const int row = first + r < N ? first + r : N - 1;  // the last rows of an odd count are computed twice
      const BlockPart found = block_part(weight + matrix + row * row_bytes + size_t(p / PARTS) * BLOCK_BYTES, part);
      for (int h = 0; h < 2; h++) {
        float sum = 0;
        for (int i = 0; i < 8; i++) {
          const uint code = (found.codes[2 * h + i / 4] >> (8 * (i % 4))) & 255u;
          sum += xs[8 * h + i] * (BLOCK_TABLE ? table[code] : float(int(code) - BLOCK_OFFSET));
        }
        sums[r] += found.scales[h] * sum;
        if (BLOCK_BIASED) sums[r] += found.biases[h] * totals[h];
      }
    }
  }
  for (int r = 0; r < ROWS; r++) {
    const float sum = simd_sum(sums[r]);
    if (lane == 0 && first + r < N) y[size_t(input) * N + first + r] = T(sum);
  }
