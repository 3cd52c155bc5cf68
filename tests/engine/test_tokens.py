"""Encoders: text stays text, and the token that ends titles stands in none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.prompts.prompter import TEMPLATES, Prompter, Template
from rosepo_bench.engine.prompts.tokens import (
    Encoder,
    PretrainedEncoder,
    load_tiny,
    save_tiny,
    train_tiny,
)

TEMPLATE = TEMPLATES["items"]
TITLES = ["Iron Harbor (1990)", "Glass Orchard"]
SPECIAL = ["<begin>", "<end>", "</s>", "<s>", "<unk>", "<|endoftext|>", "Thing <end> x", "a<begin><end>b", r"\n"]


def saved(tokenizer: Tokenizer, folder: Path, **special: Any) -> PretrainedEncoder:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return PretrainedEncoder(str(folder))


def byte_level(folder: Path, texts: list[str] = TITLES, **special: str) -> PretrainedEncoder:
    """As GPT-2 has it: every special token is the end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return saved(tokenizer, folder, **special or {f"{kind}_token": "<|endoftext|>" for kind in ("bos", "eos", "unk")})


def pieces(folder: Path, fallback: bool = False) -> PretrainedEncoder:
    """As SentencePiece makes them: white space of any kind becomes the piece for a blank."""
    letters = [(letter, -3.0) for letter in sorted({*"".join([*TITLES, *TEMPLATE.words()])} - {" "})]
    rest = [(f"<0x{byte:02X}>", -10.0) for byte in range(256)] if fallback else []
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0), *letters, *rest]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=fallback))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return saved(tokenizer, folder, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def words(folder: Path, split: Any, **special: Any) -> PretrainedEncoder:
    known = ["<unk>", "<s>", "</s>", *dict.fromkeys(" ".join([*TITLES, *TEMPLATE.words()]).split())]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    return saved(tokenizer, folder, **{"unk_token": "<unk>", "eos_token": "</s>"} | special)


def prompter(encoder: Encoder, titles: list[str], template: Template = TEMPLATE) -> Prompter:
    return Prompter(template, encoder, titles, history=3, candidates=True)


@pytest.fixture(params=["tiny", "stored tiny", "byte level"])
def lossless(request: pytest.FixtureRequest, tmp_path: Path) -> Encoder:
    made = train_tiny([*TITLES, *SPECIAL, *TEMPLATE.words()], 400)
    if request.param == "stored tiny":
        save_tiny(made, tmp_path / "tokenizer.json")
        return load_tiny(tmp_path / "tokenizer.json")
    return byte_level(tmp_path, [*TITLES, *SPECIAL]) if request.param == "byte level" else made


def test_titles_that_read_like_special_tokens_are_text(lossless: Encoder) -> None:
    made = prompter(lossless, SPECIAL)
    for number, title in enumerate(SPECIAL):
        *ids, last = made.response(number).tolist()
        assert last == lossless.end
        assert not {lossless.end, *lossless.begin} & set(ids)
        assert lossless.decode(ids) == title


def test_templates_that_read_like_special_tokens_are_text(lossless: Encoder) -> None:
    template = Template("odd", 1, "<begin><|endoftext|>", "<end>", "</s>")
    made = prompter(lossless, TITLES, template)
    lines = (made.header[len(lossless.begin) :], made.listing, made.answer)
    assert [lossless.decode(line[:-1].tolist()) for line in lines] == list(template.words())
    assert made.header[: len(lossless.begin)].tolist() == list(lossless.begin)
    assert {int(line[-1]) for line in lines} == {lossless.end}


def test_a_line_break_ends_titles_where_it_is_a_token_of_its_own(tmp_path: Path) -> None:
    encoder = byte_level(tmp_path)
    assert encoder.decode([encoder.end]) == "\n"


@pytest.mark.parametrize("kind", ["pieces", "pieces with bytes", "words", "split at white space", "words and blanks"])
def test_else_the_end_of_sequence_does(kind: str, tmp_path: Path) -> None:
    """The piece for a blank, and the unknown token, stand inside titles."""
    if kind.startswith("pieces"):
        encoder = pieces(tmp_path, fallback=kind == "pieces with bytes")
        assert len(encoder.encode("\n")) == 1
        assert encoder.encode("\n")[0] in encoder.encode(TITLES[0])
    elif kind == "words and blanks":
        encoder = words(tmp_path, pre_tokenizers.Split(" ", "isolated"))
        assert encoder.encode("\n") == [encoder.unknown]
    else:
        encoder = words(tmp_path, pre_tokenizers.Whitespace() if kind == "words" else pre_tokenizers.WhitespaceSplit())
        assert encoder.encode("\n") == []
    assert encoder.decode([encoder.end]) == "</s>"


def test_a_tokenizer_with_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model hf:.*: its tokenizer has neither a token for a line break nor an end"):
        words(tmp_path, pre_tokenizers.WhitespaceSplit(), eos_token=None)


def test_what_the_tokenizer_makes_an_end_or_a_beginning_of_is_refused_by_name(tmp_path: Path) -> None:
    """A line break inside a title; special tokens that are ordinary words, too, of the vocabulary."""
    cases: list[tuple[Encoder, str, str]] = [
        (byte_level(tmp_path / "bytes"), "Iron\nHarbor", r"the token '\\n', which ends titles"),
        (pieces(tmp_path / "pieces"), "Iron </s> Harbor", "the token '</s>', which ends titles"),
        (pieces(tmp_path / "pieces"), "Iron<s>", "the token '<s>', which begins prompts"),
        (words(tmp_path / "words", pre_tokenizers.WhitespaceSplit()), "Iron </s>", "the token '</s>', which ends"),
    ]
    for encoder, title, said in cases:
        with pytest.raises(UserError, match=rf"^item 1: the title .* holds {said} .*of model hf:.*; reword it, or"):
            prompter(encoder, [TITLES[0], title])
        with pytest.raises(UserError, match=rf"^the template's .* holds {said} "):
            prompter(encoder, TITLES, Template("odd", 1, "Iron", title, "Harbor"))


def test_titles_of_which_nothing_is_left_are_refused_by_name(tmp_path: Path) -> None:
    unknown = "nothing but unknown tokens"
    cases: list[tuple[Encoder, str, str]] = [
        (words(tmp_path / "words", pre_tokenizers.WhitespaceSplit()), "Émile", unknown),
        (words(tmp_path / "words", pre_tokenizers.WhitespaceSplit()), "Quiet Ember", unknown),
        (words(tmp_path / "words", pre_tokenizers.WhitespaceSplit()), " \u3000", "nothing"),
        (pieces(tmp_path / "pieces"), "漢 字", unknown),
        (train_tiny(TITLES, 300), "", "nothing"),
    ]
    for encoder, title, rest in cases:
        said = rf"^item 1: the title '{title}' tokenises to {rest} with model {encoder.model}; give the item another"
        with pytest.raises(UserError, match=said.replace("\u3000", r"\\u3000")):
            prompter(encoder, [TITLES[0], title])
    partly = words(tmp_path / "words", pre_tokenizers.WhitespaceSplit())
    assert len(prompter(partly, ["Iron Émile"]).response(0)) == 3
    assert prompter(pieces(tmp_path / "pieces", fallback=True), ["漢 字"]).response(0)[-1] == 2
