"""Word pieces for models trained from scratch; published models bring BERT's own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
"""In the order of their ids; ``[DEC]`` is BLIP-2's start token."""


def train_word_pieces(corpus: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train an uncased word-piece tokenizer of at most ``size`` entries on ``corpus``."""
    texts = list(corpus)
    learner = _untrained({})
    assert learner.normalizer is not None
    letters = sorted({letter for text in texts for letter in learner.normalizer.normalize_str(text)})
    # Pieces are numbered as they are met, in the order of a hash, and equally frequent pairs are joined in
    # the order of those numbers: given beforehand, the same corpus makes the same pieces every time.
    given = [
        *SPECIAL_TOKENS,
        *(form for letter in letters for form in (letter, f"##{letter}") if letter > " "),
    ]
    learner.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=given, show_progress=False)
    )
    tokenizer = _untrained(learner.get_vocab())
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[DEC]",
    )


def _untrained(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer that lies in a model folder; nothing is fetched."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
