"""Options of earlier versions, so that their config files still work with `--config`."""

from typing import Any

RENAMED = {
    "made": "synthetic",
    "model.quiet_blocks": "model.zero_init_blocks",
    "model.common_space": "mechanisms",
    "model.residual": "mechanisms",
    "training.alternate": "mechanisms",
}
"""Old name -> new name. Where the new one is a list, an old switch that is on adds its own name (`common-space`) to it."""


def with_new_names(entries: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The entries of a config file with the present names, and a note for each option that was renamed."""
    entries = {name: dict(value) if isinstance(value, dict) else value for name, value in entries.items()}
    notes = []
    for old, new in RENAMED.items():
        group, name = _group(entries, old)
        if name not in group:
            continue
        value = group.pop(name)
        target, key = _group(entries, new)
        if new != "mechanisms":
            target.setdefault(key, value)
        elif value and name.replace("_", "-") not in (chosen := list(target.get(key) or [])):
            target[key] = [*chosen, name.replace("_", "-")]
        notes.append(f"{old} is now {new}")
    return {name: value for name, value in entries.items() if value != {}}, notes


def _group(entries: dict[str, Any], flag: str) -> tuple[dict[str, Any], str]:
    """The group that an option belongs to, and its own name; an empty group if there is none."""
    group, dot, name = flag.rpartition(".")
    found = entries.get(group, {}) if dot else entries
    return (found if isinstance(found, dict) else {}), name
