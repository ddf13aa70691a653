  // One simdgroup computes ROWS outputs of one row of x; a lane takes eight weights (one word) at a time.
  // Template: T (of x and y), K and N (inputs and outputs of a matrix), GATHER (each row of x has a matrix of its
  // own), DOUBLE (magnitudes are 8-bit codes).
  constexpr int ROWS = 4;
  constexpr int WORD = 8;
  threadgroup float values[16];
  threadgroup float levels_near[256];
  const uint lane = thread_index_in_simdgroup;
  const uint t = thread_index_in_threadgroup;
  if (t < 16) values[t] = NF4_VALUES[t];
  if (DOUBLE) {
    for (uint i = t; i < 256; i += 64) levels_near[i] = levels[i];
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);

  const uint input = threadgroup_position_in_grid.x;
  const size_t matrix = GATHER ? size_t(index[input]) : 0;
  const int first = int(threadgroup_position_in_grid.y * 2 + simdgroup_index_in_threadgroup) * ROWS;
  constexpr int BLOCKS = K / NF4_BLOCK;                            // of a row
  constexpr int SECONDS = (N * BLOCKS + NF4_SECOND - 1) / NF4_SECOND;  // of a matrix
  float sums[ROWS] = {0, 0, 0, 0};
  for (int k = int(lane) * WORD; k < K; k += 32 * WORD) {
    float xs[WORD];
    for (int i = 0; i < WORD; i++) xs[i] = float(x[size_t(input) * K + k + i]);
    for (int r = 0; r < ROWS; r++) {
      const int row = first + r < N ? first + r : N - 1;  // the last rows of an odd count are computed twice
      const int block = row * BLOCKS + k / NF4_BLOCK;
      const size_t place = matrix * size_t(N * BLOCKS) + block;
      float magnitude;
      if (DOUBLE) {
        const size_t second = matrix * SECONDS + block / NF4_SECOND;
        magnitude = levels_near[uint(codes[place])] * seconds[2 * second] + seconds[2 * second + 1];
      } else {
        magnitude = float(codes[place]);
      }
      uint word = weight[(matrix * N + row) * size_t(K / WORD) + k / WORD];
      float sum = 0;
      for (int i = 0; i < WORD; i++) {
        sum += xs[i] * values[word & 15];
        word >>= 4;
      }
      sums[r] += magnitude * sum;
    }
  }
  for (int r = 0; r < ROWS; r++) {
    const float sum = simd_sum(sums[r]);
    if (lane == 0 && first + r < N) y[size_t(input) * N + first + r] = T(sum);
  }
