"""Word pieces that are trained here: the same from the same corpus, and special tokens kept whole."""

from dqecir.encoders.tokenizer import SPECIAL_TOKENS, train_word_pieces
from dqecir.language.vocabulary import shipped_vocabularies


def test_the_same_corpus_makes_the_same_pieces():
    words = [word for vocabulary in shipped_vocabularies() for word in sorted(vocabulary.lexicon)]
    once, *again = (train_word_pieces(words, 400) for _ in range(4))
    assert len(once) == 400
    for tokenizer in again:
        assert tokenizer.get_vocab() == once.get_vocab()


def test_special_tokens_come_first_and_letters_are_plain():
    tokenizer = train_word_pieces(["red Röcke, red"], 60)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    assert set(tokenizer.all_special_tokens) == set(SPECIAL_TOKENS)
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("Red rocke, !")["input_ids"])
    assert pieces == ["[CLS]", "red", "rocke", ",", "[UNK]", "[SEP]"]
    assert tokenizer.decode(tokenizer("red")["input_ids"], skip_special_tokens=True) == "red"
