"""Sentences to token ids: a WordPiece vocabulary of the training sentences, or the tokenizer of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretobit.errors import BadInput, first_line
from paretobit.runtime import optional

Text = str | Sequence[str]
"""A sentence, or two."""
WORDPIECE = "wordpiece"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PAD, _UNKNOWN, _BEGIN, _END = SPECIAL[:4]
_CONTINUES = "##"


@dataclass(frozen=True)
class Tokenizer:
    """How sentences become token ids, without any setting left open.

    Args:
        own: A tokenizer of the package `tokenizers`.
        pad: Id that fills up shorter rows.
        max_tokens: Longest row, marks of begin and end included; longer ones are cut.
        origin: Where it comes from, for people.
    """

    own: Any
    pad: int
    max_tokens: int
    origin: str

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        ids: dict[str, int] = self.own.get_vocab(with_added_tokens=True)
        return 1 + max(self.pad, *ids.values())

    def ids(self, texts: Sequence[Text]) -> tuple[list[list[int]], int]:
        """The token ids of each text, marks of begin and end included; and how many texts were cut."""
        pairs = [text if isinstance(text, str) else tuple(text) for text in texts]
        marks = self.own.num_special_tokens_to_add(any(isinstance(pair, tuple) for pair in pairs))
        if self.max_tokens <= marks:
            allowed = f"more than the {marks} marks of begin and end"
            raise BadInput("no room for words", key="data.max_tokens", found=self.max_tokens, allowed=allowed)
        self.own.no_padding()
        self.own.enable_truncation(self.max_tokens)
        found = self.own.encode_batch(pairs)
        return [encoding.ids for encoding in found], sum(bool(encoding.overflowing) for encoding in found)

    def describe(self) -> dict[str, Any]:
        """All it takes to make it again, JSON-able; see `again`."""
        self.own.no_padding()
        self.own.no_truncation()
        return {
            "tokenizer": self.own.to_str(),
            "tokenizer_from": self.origin,
            "pad": self.pad,
            "max_tokens": self.max_tokens,
            "vocab_size": self.vocab_size,
        }


def again(described: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that `describe` described.

    Raises:
        BadInput: It is not described there.
        MissingExtra: tokenizers is not installed.
    """
    keys = {"tokenizer", "tokenizer_from", "pad", "max_tokens"}
    if not described.keys() >= keys:
        raise BadInput("no tokenizer here", key="preprocessing", found=sorted(described), allowed=sorted(keys))
    own = _tokenizers().Tokenizer.from_str(described["tokenizer"])
    return Tokenizer(own, described["pad"], described["max_tokens"], described["tokenizer_from"])


def padded(rows: Sequence[Sequence[int]], pad: int, width: int | None = None) -> Tensor:
    """Rows of token ids, filled up at their end, N×T int64.

    Args:
        rows: Token ids of each row.
        pad: What fills up.
        width: T; None for the longest row, and 1 where all are empty.
    """
    width = width or max([1, *map(len, rows)])
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], dtype=torch.int64)


def train_wordpiece(texts: Sequence[Text], vocab_size: int, max_tokens: int, lowercase: bool) -> Tokenizer:
    """A WordPiece vocabulary of these sentences, the same whenever they are the same.

    Words are split as BERT splits them, into the longest pieces that the vocabulary has. `[PAD]` is 0;
    a row is `[CLS]` sentence `[SEP]`, and a second sentence and its `[SEP]` follow where there is one.

    Args:
        texts: The sentences.
        vocab_size: Entries at most; fewer where the sentences give no more.
        max_tokens: Longest row.
        lowercase: Drop case and accents.

    Raises:
        BadInput: The vocabulary has no room for every character.
        MissingExtra: tokenizers is not installed.
    """
    room = _tokenizers()
    own = room.Tokenizer(room.models.WordPiece(unk_token=_UNKNOWN))
    own.normalizer = room.normalizers.BertNormalizer(lowercase=lowercase)
    own.pre_tokenizer = room.pre_tokenizers.BertPreTokenizer()
    sentences = [sentence for text in texts for sentence in ([text] if isinstance(text, str) else text)]
    words = {
        word
        for sentence in sentences
        for word, _ in own.pre_tokenizer.pre_tokenize_str(own.normalizer.normalize_str(sentence))
    }
    characters = [
        *sorted({word[0] for word in words}),
        *sorted({_CONTINUES + letter for word in words for letter in word[1:]}),
    ]
    if len(SPECIAL) + len(characters) > vocab_size:
        allowed = f"{len(SPECIAL) + len(characters)} or more"
        problem = "the vocabulary has no room for every character of the training sentences"
        raise BadInput(problem, key="data.vocab_size", found=vocab_size, allowed=allowed)
    # The trainer numbers characters in the order of a hash table that differs from run to run, and settles
    # ties between pairs by number. Given as special tokens, they have their numbers before it starts.
    trainer = room.trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL, *characters],
        limit_alphabet=len(characters) + 1,
        continuing_subword_prefix=_CONTINUES,
        show_progress=False,
    )
    own.train_from_iterator(sentences, trainer)
    vocabulary = own.get_vocab(with_added_tokens=True)
    trained = room.Tokenizer(room.models.WordPiece(vocabulary, unk_token=_UNKNOWN))
    trained.normalizer, trained.pre_tokenizer = own.normalizer, own.pre_tokenizer
    trained.decoder = room.decoders.WordPiece(prefix=_CONTINUES)
    trained.add_special_tokens(list(SPECIAL))
    trained.post_processor = room.processors.TemplateProcessing(
        single=f"{_BEGIN} $A {_END}",
        pair=f"{_BEGIN} $A {_END} $B:1 {_END}:1",
        special_tokens=[(mark, vocabulary[mark]) for mark in (_BEGIN, _END)],
    )
    return Tokenizer(trained, vocabulary[_PAD], max_tokens, f"{WORDPIECE} of the training split")


def open_tokenizer(name: str, max_tokens: int) -> Tokenizer:
    """The tokenizer of a model: a folder as transformers saves it, or a name on HuggingFace's hub.

    Args:
        name: Folder or name.
        max_tokens: Longest row.

    Raises:
        BadInput: There is none, it cannot be read, or it has nothing to pad with.
        MissingExtra: transformers is not installed.
    """
    models = optional("transformers", extra="huggingface", purpose="a tokenizer of HuggingFace")
    where = Path(name).expanduser()
    if not where.is_dir() and (where.is_absolute() or name.startswith((".", "~"))):
        allowed = f"'{WORDPIECE}', a folder, or a name on HuggingFace's hub"
        raise BadInput("no such folder", key="data.tokenizer", found=name, allowed=allowed)
    try:
        found = models.AutoTokenizer.from_pretrained(str(where) if where.is_dir() else name)
    except Exception as error:  # each kind of tokenizer fails in its own way
        problem = f"transformers cannot open this tokenizer: {first_line(error)}"
        allowed = f"'{WORDPIECE}', a folder with a tokenizer, or a name on HuggingFace's hub"
        raise BadInput(problem, key="data.tokenizer", found=name, allowed=allowed) from error
    own = getattr(found, "backend_tokenizer", None)
    if own is None:
        raise BadInput("not a tokenizer of the package tokenizers", key="data.tokenizer", found=name)
    # GPT-2 has no token to pad with: by custom its end of text, which no sentence holds.
    pad = found.pad_token_id if found.pad_token_id is not None else found.eos_token_id
    if pad is None:
        problem = "the tokenizer has neither a token to pad with nor one that ends a text"
        raise BadInput(problem, key="data.tokenizer", found=name)
    own = _tokenizers().Tokenizer.from_str(own.to_str())
    return Tokenizer(own, int(pad), max_tokens, name)


def _tokenizers() -> Any:
    return optional("tokenizers", extra="huggingface", purpose="text")
