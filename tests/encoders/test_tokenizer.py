"""Trained word pieces: the same for the same corpus, and special tokens stay whole."""

import pytest
from transformers import AutoTokenizer

from dqecir.encoders.tokenizer import SPECIAL_TOKENS, WordPieces, train_word_pieces
from dqecir.errors import CheckpointError
from dqecir.language.vocabulary import shipped_vocabularies


def test_the_same_corpus_makes_the_same_pieces():
    words = [word for vocabulary in shipped_vocabularies() for word in sorted(vocabulary.lexicon)]
    once, *again = (train_word_pieces(words, 400) for _ in range(4))
    assert len(once) == 400
    for tokenizer in again:
        assert tokenizer.vocabulary() == once.vocabulary()


def test_special_tokens_come_first_and_letters_are_plain():
    tokenizer = train_word_pieces(["red Röcke, red"], 60)
    assert [tokenizer.id_of(token) for token in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.special_ids == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.unknown_id == SPECIAL_TOKENS.index("[UNK]")
    assert tokenizer.id_of("[NONE]") is None
    (text,) = tokenizer(["Red rocke, !"], 10)
    assert text.tokens == ["[CLS]", "red", "rocke", ",", "[UNK]", "[SEP]"]
    assert tokenizer.pieces.decode(tokenizer.ids("red")) == "red"


def test_what_is_saved_reads_texts_alike_here_and_in_transformers(tmp_path):
    tokenizer = train_word_pieces(["is red and blue, with long sleeves"] * 3, 120)
    texts = ["is RED, with longer sleeves", "", "blue " * 20, "[MASK] is grün"]
    ours = tokenizer(texts, 8)
    tokenizer.save_pretrained(tmp_path)
    again = WordPieces.from_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    read = theirs(texts, truncation=True, max_length=8)["input_ids"]
    assert [text.ids for text in ours] == [text.ids for text in again(texts, 8)] == read
    assert len(tokenizer) == len(again) == len(theirs)
    assert set(theirs.all_special_tokens) == set(SPECIAL_TOKENS)
    # What was read before does not change what is written.
    again.save_pretrained(tmp_path / "second")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_text() == (tmp_path / "second" / name).read_text()


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"tokenizer_config\.json is missing: the model folder is incomplete"
    ):
        WordPieces.from_pretrained(tmp_path)
