  // One thread a word: the nearest of the sixteen values for each of eight weights, low bits first.
  const uint place = thread_position_in_grid.x;
  const float magnitude = magnitudes[place / 8];
  uint word = 0;
  for (int i = 0; i < 8; i++) {
    const float value = float(x[size_t(place) * 8 + i]);
    uint code = 0;
    for (int c = 0; c < 15; c++) {
      const float middle = (NF4_VALUES[c] + NF4_VALUES[c + 1]) * 0.5f;
      code += value > middle * magnitude ? 1u : 0u;
    }
    word |= code << (4 * i);
  }
  y[place] = word;
