"""The doctor from Python: on a search that was assembled and not run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from paretobit.doctor import CHECKS, examine
from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.trials.evidence import fingerprint
from paretobit.workflow.settings import Settings
from paretobit.workflow.setup import assemble

TEXT = """
model = "jsc-tiny"
data = "digits"
[search]
maximize = "accuracy"
minimize = "bitops"
subject_to = "accuracy >= baseline + 1"
strategy = "tpe"
[search.space.seed.linear]
data_in_width = [3, 8]
weight_width = [3, 8]
"""


def test_the_search_is_examined_whatever_its_constraints_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(CHECKS._entries, "a worker process agrees")
    (tmp_path / "search.toml").write_text(TEXT)
    document = Document.read(tmp_path / "search.toml")
    settings = Settings.from_document(document)
    search = assemble(settings, document).session
    before, state = fingerprint(search.model, search.splits), torch.get_rng_state()
    checks = {check.name: check for check in examine(search, trained=False)}
    assert list(checks) == CHECKS.names()
    assert {name: check.said for name, check in checks.items() if check.state == "failed"} == {}
    assert checks["trials do not leak"].evidence["compared"] == 4
    assert fingerprint(search.model, search.splits) == before
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(BadInput, match="too few"):
        examine(search, 3)
