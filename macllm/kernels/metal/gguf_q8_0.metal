// Q8_0: scale, 32 signed codes.

constant constexpr int BLOCK_WEIGHTS = 32;
constant constexpr int BLOCK_BYTES = 34;
constant constexpr int BLOCK_APART = 8;
constant constexpr int BLOCK_OFFSET = 128;
constant constexpr bool BLOCK_TABLE = false;
constant constexpr bool BLOCK_BIASED = false;

METAL_FUNC BlockPart block_part(const device uint8_t* block, int part) {
  BlockPart found;
  for (int i = 0; i < 4; i++) {
    found.codes[i] = block_word_of_pairs(block + 2 + 16 * part + 4 * i) ^ 0x80808080u;
  }
  block_same_scale(found, block_half_at(block), 0);
  return found;
}
