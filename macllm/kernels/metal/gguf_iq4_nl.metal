// IQ4_NL: as Q4_0, and a code stands for one of 16 values.

constant constexpr int BLOCK_WEIGHTS = 32;
constant constexpr int BLOCK_BYTES = 18;
constant constexpr int BLOCK_APART = 16;
constant constexpr int BLOCK_OFFSET = 0;
constant constexpr bool BLOCK_TABLE = true;
constant constexpr bool BLOCK_BIASED = false;

METAL_FUNC BlockPart block_part(const device uint8_t* block, int part) {
  BlockPart found;
  const device uint8_t* codes = block + 2 + 8 * part;
  block_nibbles(found, block_word_of_pairs(codes), block_word_of_pairs(codes + 4));
  block_same_scale(found, block_half_at(block), 0);
  return found;
}
