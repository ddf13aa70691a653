  // Attention of a few queries over packed keys and values, with a softmax that is summed as it goes (MLX's
  // sdpa_vector; arXiv 2205.14135). A threadgroup takes ROWS rows of the queries that share a head of keys, and one of
  // the blocks that the keys in reach are cut into; its simdgroups take turns at the keys, and a simdgroup looks at
  // KEYS of them at once, LANES lanes each. Numbers are unpacked once for all rows.
  // Template: O (of y), BITS, D (of a head), ROWS, CAPPED, WHOLE (there is one block, so y is divided by the sum).
  // Nothing else is compiled in. reach holds the first place in view, the place after the last, the window, the places
  // of the buffers, the heads of keys, the rows of each (its query heads times the queries) and the queries; factors
  // hold what queries are multiplied by, what scores are (after the cap), and whether there are sinks.
  constexpr int SIMDS = 8;
  constexpr int GROUP = 64;
  constexpr int PACK = 32 / BITS;
  constexpr int WORDS = D / PACK;
  constexpr int LANES = (WORDS & -WORDS) < 32 ? (WORDS & -WORDS) : 32;
  constexpr int MINE = WORDS / LANES;  // words of a key that a lane reads
  constexpr int KEYS = 32 / LANES;
  constexpr int GROUPS = D / GROUP;
  constexpr uint MASK = (1u << BITS) - 1u;
  constexpr float NOTHING = -1e30f;  // less than any score; no infinity, which fast arithmetic may not know
  constexpr float LOG2_E = 1.4426950408889634f;
  threadgroup float parts[SIMDS * D];
  threadgroup float highest[SIMDS * ROWS];
  threadgroup float shares[SIMDS * ROWS];

  const int simd = int(simdgroup_index_in_threadgroup);
  const int lane = int(thread_index_in_simdgroup);
  const int t = int(thread_index_in_threadgroup);
  const int seat = lane / LANES;  // which of the keys that are looked at together
  const int own = lane % LANES;
  const int block = int(threadgroup_position_in_grid.y);
  const int blocks = int(threadgroups_per_grid.y);
  const int start = reach[0];
  const int stop = reach[1];
  const int window = reach[2];
  const size_t capacity = size_t(reach[3]);
  const int heads = reach[4];
  const int rows = reach[5];
  const int length = reach[6];
  const int chunks = (rows + ROWS - 1) / ROWS;
  const int chunk = int(threadgroup_position_in_grid.x) % chunks;
  const int head = int(threadgroup_position_in_grid.x) / chunks;  // counted through the batch
  const size_t row_of_batch = size_t(head / heads);
  const size_t key_plane = (row_of_batch * 2 * heads + head % heads) * capacity;
  const size_t value_plane = key_plane + heads * capacity;
  const size_t key_scales = (row_of_batch * 4 * heads + head % heads) * capacity;
  const size_t value_scales = key_scales + heads * capacity;
  const size_t to_bias = 2 * heads * capacity;

  float queries[ROWS][MINE * PACK];
  float sums[ROWS][MINE * PACK];
  float high[ROWS];
  float total[ROWS];
  for (int r = 0; r < ROWS; r++) {
    const int row = chunk * ROWS + r < rows ? chunk * ROWS + r : rows - 1;  // the last chunk may repeat the last row
    for (int w = 0; w < MINE; w++) {
      for (int i = 0; i < PACK; i++) {
        const size_t place = (size_t(head) * rows + row) * D + (w * LANES + own) * PACK + i;
        queries[r][w * PACK + i] = float(q[place]) * factors[0];
        sums[r][w * PACK + i] = 0;
      }
    }
    high[r] = NOTHING;
    total[r] = 0;
    if (factors[2] != 0 && block == 0 && simd == 0 && seat == 0) {
      high[r] = float(sinks[head % heads * (rows / length) + row / length]) * LOG2_E;
      total[r] = 1;
    }
  }

  const int first_seen = stop - length - window + 1;  // by the first query
  const int low = first_seen > start ? first_seen : start;
  const int each = (stop - low + blocks - 1) / blocks;
  const int begin = low + block * each;
  const int end = begin + each < stop ? begin + each : stop;
  for (int base = begin + simd * KEYS; base < end; base += SIMDS * KEYS) {
    const int place = base + seat < end ? base + seat : end - 1;
    float scores[ROWS];
    for (int r = 0; r < ROWS; r++) scores[r] = 0;
    for (int w = 0; w < MINE; w++) {
      const int column = w * LANES + own;
      const size_t group = (key_scales + place) * GROUPS + column * PACK / GROUP;
      const float scale = float(scales[group]);
      const float bias = float(scales[group + to_bias * GROUPS]);
      uint word = codes[(key_plane + place) * WORDS + column];
      for (int i = 0; i < PACK; i++) {
        const float number = scale * float(word & MASK) + bias;
        word >>= BITS;
        for (int r = 0; r < ROWS; r++) scores[r] += queries[r][w * PACK + i] * number;
      }
    }
    float shrink[ROWS];
    float weights[ROWS];
    for (int r = 0; r < ROWS; r++) {
      float score = scores[r];
      for (int m = LANES / 2; m > 0; m >>= 1) score += simd_shuffle_xor(score, m);
      if (CAPPED) {  // the hyperbolic tangent, which is one long before its power of two overflows
        const float bounded = min(max(score, -15.0f), 15.0f);
        score = 1.0f - 2.0f / (exp2(bounded * (2.0f * LOG2_E)) + 1.0f);
      }
      score *= factors[1];
      const int query = stop - length + (chunk * ROWS + r) % length;  // its own place
      const bool seen = base + seat < end && place <= query && place > query - window;
      const float higher = seen ? max(high[r], score) : high[r];
      shrink[r] = exp2(high[r] - higher);
      weights[r] = seen ? exp2(score - higher) : 0.0f;
      total[r] = total[r] * shrink[r] + weights[r];
      high[r] = higher;
    }
    for (int w = 0; w < MINE; w++) {
      const int column = w * LANES + own;
      const size_t group = (value_scales + place) * GROUPS + column * PACK / GROUP;
      const float scale = float(scales[group]);
      const float bias = float(scales[group + to_bias * GROUPS]);
      uint word = codes[(value_plane + place) * WORDS + column];
      for (int i = 0; i < PACK; i++) {
        const float number = scale * float(word & MASK) + bias;
        word >>= BITS;
        for (int r = 0; r < ROWS; r++) {
          sums[r][w * PACK + i] = sums[r][w * PACK + i] * shrink[r] + weights[r] * number;
        }
      }
    }
  }

  // One state of the seats of a simdgroup, then one of the simdgroups.
  for (int r = 0; r < ROWS; r++) {
    float higher = high[r];
    for (int m = LANES; m < 32; m <<= 1) higher = max(higher, simd_shuffle_xor(higher, m));
    const float fall = exp2(high[r] - higher);
    float sum = total[r] * fall;
    for (int m = LANES; m < 32; m <<= 1) sum += simd_shuffle_xor(sum, m);
    for (int i = 0; i < MINE * PACK; i++) {
      float part = sums[r][i] * fall;
      for (int m = LANES; m < 32; m <<= 1) part += simd_shuffle_xor(part, m);
      sums[r][i] = part;
    }
    high[r] = higher;
    if (lane == 0) {
      highest[simd * ROWS + r] = higher;
      shares[simd * ROWS + r] = sum;
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (int r = 0; r < ROWS; r++) {
    float higher = highest[r];
    for (int s = 1; s < SIMDS; s++) higher = max(higher, highest[s * ROWS + r]);
    float sum = 0;
    for (int s = 0; s < SIMDS; s++) sum += shares[s * ROWS + r] * exp2(highest[s * ROWS + r] - higher);
    const float fall = exp2(high[r] - higher);
    if (seat == 0) {
      for (int w = 0; w < MINE; w++) {
        for (int i = 0; i < PACK; i++) {
          parts[simd * D + (w * LANES + own) * PACK + i] = sums[r][w * PACK + i] * fall;
        }
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const int row = chunk * ROWS + r;
    if (row < rows) {
      const size_t part = (size_t(head) * rows + row) * blocks + block;
      if (t < D) {
        float found = 0;
        for (int s = 0; s < SIMDS; s++) found += parts[s * D + t];
        y[part * D + t] = O(WHOLE ? found / sum : found);
      }
      if (t == 0) {
        highs[part] = higher;
        totals[part] = sum;
      }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
