  // One thread a word: eight weights. Template: T (of the matrix), K and N, DOUBLE (magnitudes are 8-bit codes).
  constexpr int WORD = 8;
  const uint place = thread_position_in_grid.x;
  constexpr int BLOCKS = K / NF4_BLOCK;
  constexpr int SECONDS = (N * BLOCKS + NF4_SECOND - 1) / NF4_SECOND;
  const uint block = place / uint(NF4_BLOCK / WORD);
  float magnitude;
  if (DOUBLE) {
    const uint within = block % uint(N * BLOCKS);
    const uint second = block / uint(N * BLOCKS) * uint(SECONDS) + within / uint(NF4_SECOND);
    magnitude = levels[uint(codes[block])] * seconds[2 * second] + seconds[2 * second + 1];
  } else {
    magnitude = float(codes[block]);
  }
  uint word = weight[place];
  for (int i = 0; i < WORD; i++) {
    y[size_t(place) * WORD + i] = T(magnitude * NF4_VALUES[word & 15]);
    word >>= 4;
  }
