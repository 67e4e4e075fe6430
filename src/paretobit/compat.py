"""The reports' names and file layout, translated into ours. Every old name stands here and nowhere else."""

from collections.abc import Mapping
from typing import Any

from paretobit.document import Document, split_key
from paretobit.nn import LAYERS

KEYS: Mapping[str, str] = {
    "dataset": "data.name",
    "load_name": "model.load",
    "max_epochs": "train.max_epochs",
    "batch_size": "train.batch_size",
    "learning_rate": "train.learning_rate",
    "accelerator": "train.device",
    "search.search_space.name": "search.space.name",
    "search.search_space.setup.by": "search.space.by",
    "search.search_space.seed": "search.space.seed",
    "search.strategy.eval_mode": "search.eval_mode",
    "search.strategy.setup.n_jobs": "search.workers",
    "search.strategy.setup.n_trials": "search.n_trials",
    "search.strategy.setup.timeout": "search.timeout",
    "search.strategy.setup.sampler": "search.strategy.sampler",
    "search.strategy.setup.sum_scaled_metrics": "search.sum_scaled_metrics",
    "search.strategy.setup.direction": "search.direction",
    "search.strategy.sw_runner": "search.runners",
    "search.strategy.hw_runner": "search.runners",
    "search.strategy.metrics": "search.metrics",
    "search.runners.basic_evaluation.data_loader": "search.runners.basic_evaluation.split",
}
"""Old key to new key, in the order in which they move; a table moves with all it holds."""

VALUES: Mapping[str, Mapping[str, str]] = {
    "model.name": {"JSC_Tiny": "jsc-tiny", "JSC_Custom": "jsc-custom", "JSC_Three_Linear_Layers": "jsc-three-linear"},
    "search.space.name": {
        "graph/quantize/mixed_precision_ptq": "quantize",
        "transform/linear_channel_multiplier": "channel_multiplier",
    },
    "search.strategy.name": {"brute-force": "brute_force", "bruteforce": "brute_force"},
    "search.strategy.sampler": {"brute-force": "bruteforce", "brute_force": "bruteforce"},
    "search.runners.basic_evaluation.split": {"val_dataloader": "val", "train_dataloader": "train"},
}
"""Key to old value to new value."""

ACCEPTED: Mapping[str, tuple[Any, ...]] = {
    "task": ("cls", "classification"),
    "load_type": ("pl", "pt", "mz"),
    "transform.style": ("graph",),
    "search.runners.average_bitwidth.compare_to": (32,),
    "search.runners.basic_train.data_loader": ("train_dataloader",),
    "search.strategy.setup.model_parallel": (False,),
}
"""Keys that say what is so anyway: checked, then left out."""

WITHOUT_MEANING = ("log_every_n_steps",)
"""Keys that are accepted and change nothing here: progress is shown per epoch."""


_OLD_TABLES = ("search.search_space.setup", "search.search_space", "search.strategy.setup")


def modernise(document: Document) -> list[str]:
    """Rewrite the reports' keys and names in a document, in place.

    Returns:
        What was set aside, one sentence each.

    Raises:
        BadInput: An old key stands beside its new name, or has a value that has no meaning here.
    """
    if isinstance(document.data.get("model"), str):
        document.data["model"] = {"name": document.data["model"]}
    for old, new in KEYS.items():
        value = _take(document, old)
        if value is not None:
            _move(document, old, new, value)
    for key, accepted in ACCEPTED.items():
        value = document.get(key)
        if value is not None and value not in accepted:
            raise document.error("a value without meaning here", key, found=value, allowed=map(str, accepted))
        _take(document, key)
    for table in _OLD_TABLES:
        _refuse_leftovers(document, table)
    aside = [key for key in WITHOUT_MEANING if _take(document, key) is not None]
    notes = [f"{key} changes nothing: progress is shown per epoch" for key in aside]
    for key, names in VALUES.items():
        value = document.get(key)
        if isinstance(value, str) and value in names:
            document.put(split_key(key), names[value])
    if document.get("search.strategy.name") == "brute_force" and _take(document, "search.strategy.sampler"):
        notes.append("search.strategy.sampler is set aside: brute_force has none")
    return notes + _seeds_by_type(document)


def translated(path: str) -> str:
    """A dotted key in today's words.

    >>> translated("search.strategy.setup.n_trials"), translated("train.seed")
    ('search.n_trials', 'train.seed')
    """
    for old, new in KEYS.items():
        if path == old or path.startswith(old + "."):
            path = new + path.removeprefix(old)
    return path


def aliases() -> list[dict[str, str]]:
    """Every old name and what it is called now."""
    rows = [{"where": "key", "old": old, "new": new} for old, new in KEYS.items()]
    rows += [{"where": key, "old": old, "new": new} for key, names in VALUES.items() for old, new in names.items()]
    rows += [{"where": "key", "old": key, "new": f"(only {', '.join(map(str, a))})"} for key, a in ACCEPTED.items()]
    return rows + [{"where": "key", "old": key, "new": "(changes nothing)"} for key in WITHOUT_MEANING]


def _take(document: Document, path: str) -> Any:
    """Remove a key and the tables it leaves empty, except a runner's: naming it is what counts."""
    keys = split_key(path)
    tables = [document.data]
    for key in keys[:-1]:
        child = tables[-1].get(key)
        if not isinstance(child, dict):
            return None
        tables.append(child)
    if keys[-1] not in tables[-1]:
        return None
    value = tables[-1].pop(keys[-1])
    for parent, key in reversed(list(zip(tables, keys, strict=False))[:-1]):
        if not parent[key] and not path.startswith("search.runners."):
            del parent[key]
    return value


def _move(document: Document, old: str, new: str, value: Any) -> None:
    present = document.get(new)
    if isinstance(present, dict) and isinstance(value, dict):
        if both := present.keys() & value.keys():
            key = min(both)
            raise document.error(f"the same is said twice: here and in '{new}'", f"{old}.{key}", found=value[key])
        value = {**present, **value}
    elif present is not None:
        raise document.error(f"the same is said twice: here and as '{new}'", old, found=value)
    document.put(split_key(new), value)
    for key, line in list(document.lines.items()):
        if key == old or key.startswith(old + "."):
            document.lines.setdefault(new + key.removeprefix(old), line)


def _refuse_leftovers(document: Document, table: str) -> None:
    """Refuse what an old table holds beside the keys that moved out of it."""
    left = document.get(table)
    if isinstance(left, dict) and left:
        key = next(iter(left))
        known = (old for old in (*KEYS, *ACCEPTED) if old.startswith(table + "."))
        allowed = dict.fromkeys(old.removeprefix(table + ".").partition(".")[0] for old in known)
        raise document.error("unknown key", f"{table}.{key}", found=key, allowed=allowed)
    if left:
        raise document.error("not a table", table, found=left)
    _take(document, table)


def _seeds_by_type(document: Document) -> list[str]:
    """Files of the reports list seeds for types beside those for names; `by` decides which count."""
    seed = document.get("search.space.seed")
    if document.get("search.space.by") != "name" or not isinstance(seed, dict):
        return []
    types = LAYERS.names()
    aside = [key for key in seed if key in types]
    for key in aside:
        del seed[key]
    return [f"search.space.seed.{key} is set aside: layers are chosen by name" for key in aside]
