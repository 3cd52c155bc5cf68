"""Text to token ids: for `tiny` a BPE trained on the titles, for other models their own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError

BEGIN, END = "<begin>", "<end>"


@runtime_checkable
class Encoder(Protocol):
    """``model`` is its model's name in the settings. ``begin`` opens every prompt (may be empty), ``end`` closes every
    title and separates history items, ``unknown`` stands for what has no token (None: everything has one).

    ``encode`` takes all text for text: what reads like a special token becomes the tokens of its characters."""

    model: str
    begin: tuple[int, ...]
    end: int
    unknown: int | None
    size: int

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class TinyEncoder:
    """Byte-level BPE, which can encode any text."""

    model = "tiny"
    unknown: int | None = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # as text
        begin, end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
        assert begin is not None, "train_tiny adds it"
        assert end is not None, "train_tiny adds it"
        self.begin: tuple[int, ...] = (begin,)
        self.end: int = end
        self.size = tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))


def train_tiny(texts: Sequence[str], vocabulary: int) -> TinyEncoder:
    """BPE of at most ``vocabulary`` tokens over ``texts`` (each title once, and the template's words)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TinyEncoder(tokenizer)


def save_tiny(encoder: TinyEncoder, path: Path) -> None:
    """Writes the tokenizer's JSON."""
    store.write_text(path, encoder.tokenizer.to_str())


def load_tiny(path: Path) -> TinyEncoder:
    """Reads what ``save_tiny`` wrote."""
    return TinyEncoder(Tokenizer.from_str(path.read_text(encoding="utf-8")))


class PretrainedEncoder:
    """The tokenizer of a transformers model. A title ends with the line break where that is a token of its own, else,
    as with most SentencePiece and word-level tokenizers, with the end-of-sequence token."""

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer

        self.model = f"hf:{name}"
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            line_break = self.encode("\n")
        except (OSError, ValueError) as error:
            raise UserError(f"model {self.model}: no tokenizer could be loaded: {error}") from error
        self.size = len(self.tokenizer)
        bos, eos, unknown = (getattr(self.tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "unk"))
        self.begin: tuple[int, ...] = () if bos is None else (int(bos),)
        self.unknown = None if unknown is None else int(unknown)
        # A tokenizer may make a blank or the unknown token of a line break: both stand inside titles.
        if len(line_break) == 1 and self.decode(line_break) == "\n":
            self.end = line_break[0]
        elif eos is not None:
            self.end = int(eos)
        else:
            raise UserError(f"model {self.model}: its tokenizer has neither a token for a line break nor an end token")

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))
