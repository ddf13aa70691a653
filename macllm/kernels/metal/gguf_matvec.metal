  // One simdgroup computes ROWS outputs of V rows of x, which share what it reads and decodes; a lane takes a part of a
  // block (sixteen weights) at a time, so that neighbouring lanes read neighbouring bytes. Template: T (of x and y), V.
  // ``sizes``: K and N (inputs and outputs of a matrix), rows of x; ``index``: where V is 1, the matrix of each row.
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
  const int inputs = int(sizes[2]);
  const int input = int(threadgroup_position_in_grid.x) * V;
  const int first = int(threadgroup_position_in_grid.y * 2 + simdgroup_index_in_threadgroup) * ROWS;
  const size_t row_bytes = size_t(K / BLOCK_WEIGHTS) * BLOCK_BYTES;
  const size_t matrix = V == 1 ? size_t(index[input]) * N * row_bytes : 0;
  float sums[ROWS][V];
  for (int r = 0; r < ROWS; r++) {
    for (int v = 0; v < V; v++) sums[r][v] = 0;
  }
  for (int p = int(lane); p < K / 16; p += 32) {
    const int part = p % PARTS;
    const int k = p / PARTS * BLOCK_WEIGHTS + part / RUNS * 2 * BLOCK_APART + part % RUNS * 8;
    float xs[V][16];
    float totals[V][2];
    for (int v = 0; v < V; v++) {
      const int one = input + v < inputs ? input + v : inputs - 1;  // the last rows of an odd count are taken twice
      totals[v][0] = 0;
      totals[v][1] = 0;
      for (int i = 0; i < 16; i++) {
        xs[v][i] = float(x[size_t(one) * K + k + i % 8 + i / 8 * BLOCK_APART]);
        totals[v][i / 8] += xs[v][i];
      }
    }
    for (int r = 0; r < ROWS; r++) {
      const int row = first + r < N ? first + r : N - 1;
      const BlockPart found = block_part(weight + matrix + row * row_bytes + size_t(p / PARTS) * BLOCK_BYTES, part);
      for (int h = 0; h < 2; h++) {
        float partial[V];
        for (int v = 0; v < V; v++) partial[v] = 0;
        for (int i = 0; i < 8; i++) {
          const uint code = (found.codes[2 * h + i / 4] >> (8 * (i % 4))) & 255u;
          const float value = BLOCK_TABLE ? table[code] : float(int(code) - BLOCK_OFFSET);
          for (int v = 0; v < V; v++) partial[v] += xs[v][8 * h + i] * value;
        }
        for (int v = 0; v < V; v++) {
          sums[r][v] += found.scales[h] * partial[v];
          if (BLOCK_BIASED) sums[r][v] += found.biases[h] * totals[v][h];
        }
      }
    }
  }
  for (int r = 0; r < ROWS; r++) {
    for (int v = 0; v < V; v++) {
      const float sum = simd_sum(sums[r][v]);
      if (lane == 0 && first + r < N && input + v < inputs) y[size_t(input + v) * N + first + r] = T(sum);
    }
  }
