// Q5_0: scale, the fifth bits of all 32 codes, 16 bytes of which the low halves are the first 16 codes.

constant constexpr int BLOCK_WEIGHTS = 32;
constant constexpr int BLOCK_BYTES = 22;
constant constexpr int BLOCK_APART = 16;
constant constexpr int BLOCK_OFFSET = 16;
constant constexpr bool BLOCK_TABLE = false;
constant constexpr bool BLOCK_BIASED = false;

METAL_FUNC BlockPart block_part(const device uint8_t* block, int part) {
  BlockPart found;
  const device uint8_t* codes = block + 6 + 8 * part;
  block_nibbles(found, block_word_of_pairs(codes), block_word_of_pairs(codes + 4));
  const uint fifths = block_word_of_pairs(block + 2) >> (8 * part);
  found.codes[0] |= block_spread(fifths) << 4;
  found.codes[1] |= block_spread(fifths >> 4) << 4;
  found.codes[2] |= block_spread(fifths >> 16) << 4;
  found.codes[3] |= block_spread(fifths >> 20) << 4;
  block_same_scale(found, block_half_at(block), 0);
  return found;
}
