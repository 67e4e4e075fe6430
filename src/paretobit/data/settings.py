"""The `[data]` section: what to load and how to prepare it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, field_validator, model_validator

from paretobit.data.tokenizer import WORDPIECE
from paretobit.errors import BadInput
from paretobit.runtime import MAX_SEED

SPLIT = "{split}"
"""In a path of texts: the place of train, dev (or val, validation) and test."""


class DataSettings(BaseModel):
    """What to load and how to prepare it.

    Raises:
        BadInput: Two settings contradict each other.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        "digits",
        description="source: digits, npz:PATH, csv:PATH, tsv:PATH, jsc, text:PATH, docstrings, "
        "glue:TASK, imdb, datasets:NAME, file.py:function; of a list, the first that is there; "
        "$VARIABLES of the environment are filled in",
    )
    path: str | None = Field(None, description="file or folder, where the source does not carry it")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="draws the splits and the rows kept by limit")
    val_fraction: float = Field(0.15, gt=0, lt=1, description="share of the rows for validation")
    test_fraction: float = Field(0.15, ge=0, lt=1, description="share of the rows for the test; 0 for none")
    limit: int | None = Field(None, ge=2, description="rows to split, stratified; a given test set stays whole")
    standardize: bool | None = Field(None, description="None: feature vectors yes, images no")
    mean: tuple[float, ...] | None = Field(None, description="per channel, images only, after scaling")
    std: tuple[PositiveFloat, ...] | None = Field(None, description="per channel, images only, after scaling")
    crop_padding: int = Field(0, ge=0, description="zero padding of the random crop while training, in pixels")
    flip: bool = Field(False, description="random horizontal flip while training")
    label: str | int | None = Field(None, description="label column of a table, by name or index")
    text: str | int | None = Field(None, description="sentence column of a text, by name or index")
    tokenizer: str = Field(
        WORDPIECE, description="text: wordpiece (trained on the training split), or a folder or name of HuggingFace"
    )
    vocab_size: int = Field(4096, ge=8, description="entries of a trained wordpiece vocabulary at most")
    max_tokens: int = Field(64, ge=1, description="text: longer sentences are cut; marks count")
    lowercase: bool = Field(True, description="wordpiece: drop case and accents")
    lineage: Literal["openml", "hdf5"] | None = Field(None, description="which jet data set; None: by suffix")
    download: bool = Field(False, description="fetch the jet data where no path is given")

    @field_validator("tokenizer")
    @classmethod
    def _filled_in(cls, given: str) -> str:
        return os.path.expandvars(given)

    @field_validator("name", mode="before")
    @classmethod
    def _first_there(cls, given: Any) -> Any:
        names = given if isinstance(given, list) and given else [given]
        if not all(isinstance(name, str) for name in names):
            return given
        expanded = [os.path.expandvars(name) for name in names]
        return next((name for name in expanded[:-1] if _is_there(name)), expanded[-1])

    @model_validator(mode="after")
    def _agree(self) -> DataSettings:
        # BadInput is no ValueError, so pydantic lets it through as it is.
        if self.val_fraction + self.test_fraction >= 1:
            total = round(self.val_fraction + self.test_fraction, 6)
            problem = "val_fraction and test_fraction leave no rows for training"
            raise BadInput(problem, key="data.val_fraction", found=total, allowed="a sum below 1")
        if (self.mean is None) != (self.std is None):
            raise BadInput("mean and std are given together or not at all", key="data.mean")
        if self.mean is not None and self.standardize:
            raise BadInput("standardize fits what mean and std already give", key="data.standardize")
        return self


def _is_there(name: str) -> bool:
    """Whether a source could be read; only files, and the package of the sources of text, can be absent."""
    kind, colon, rest = name.partition(":")
    if kind in ("glue", "imdb", "datasets"):
        return find_spec("datasets") is not None
    if kind == "text" and SPLIT in rest:
        return Path(rest.replace(SPLIT, "train")).exists()
    path = kind if kind.endswith(".py") else rest
    return not colon or Path(path).exists()
