"""Texts that tokenizers get wrong: code, scripts, emoji, digits, spaces, control characters, special tokens."""

TEXTS = [
    "",
    " ",
    "Hello world",
    " leading space",
    "trailing space ",
    "  two  spaces   three  ",
    "\t\ttabs\tand\n\nnewlines\r\n\r\n  mixed \n",
    "def f(x):\n    return {k: v**2 for k, v in x.items() if v != 0x1F}  # square\n",
    'for (int i=0;i<10;++i){printf("%d\\n",i);}',
    "👩‍👩‍👧‍👦 family 👍🏽 thumb 🏳️‍🌈 flag 🇫🇷",
    "我喜欢吃苹果，你呢？今天是2024年。",
    "日本語のテキスト、カタカナ。한국어 문장입니다.",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣",
    "שלום עולם, мир, κόσμε, ßtraße",
    "e\u0301 a\u0308 n\u0303 \u1e9b\u0323 क्षि é ä ñ",
    "1234567890 3.14159 1,000,000 ½ ² Ⅷ ٣٤",
    "I'm you'LL we'Ve THEY'D 's 't don't",
    "don’t “quote” — dash… ‹x›",
    "\u00a0nbsp\u2003em\u200bzero\u3000wide",
    "\x01\x7f control \x1b[0m",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "a<|endoftext|>b <s>x</s> y <unk>z<|im_end|>",
    "<bos><start_of_turn>user x<end_of_turn>\n",
    "a ▁ literal mark ▁▁x",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "=====-----_____ ...... !!!!!! $$^^~~||``",
    "http://example.com/a?b=c&d=%20#frag user@mail.example",
    "x" * 40 + " " * 40 + "y",
    "\n\n\n\n    indented\n\t\tmore\n ",
    "The quick brown fox jumps over the lazy dog.\n" * 3,
    "\ufeffbyte order mark, \U0010ffff last, \ud7ff before surrogates",
]

# What tiny tokenizers are trained on: the corpus without its special tokens, and some plain sentences.
TRAINING = [text for text in TEXTS if "<" not in text and "\x01" not in text and text.strip()] * 3 + [
    "The weather today is warm and the river runs slowly through the town.",
    "A function takes a list of numbers and returns the sum of their squares.",
    "She said that they would meet at the station in the evening, as they had before.",
]
