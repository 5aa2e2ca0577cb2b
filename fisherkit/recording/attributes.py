"""The attributes of a run in progress: values as JSON gives them back, and the JSON text of each, made once."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from fisherkit.recording import layout


class Attributes:
    """Attributes with their JSON texts, so that a publication does not encode what has not changed.

    A list that grows (the schedule, an entry an epoch) is encoded an entry at a time: encoding it whole at every
    epoch would take time with the square of their number.

    Raises:
        ValueError: A value that JSON cannot hold, or that readers could make nothing of, naming the attribute.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}  # of a list: its entries; of anything else: the one text
        self.update(values)

    def update(self, values: Mapping[str, Any]) -> None:
        """Set attributes."""
        normal = layout.normalise_attributes(values)
        layout.check_attributes(normal)
        self.values |= normal
        self._texts |= {name: _texts(value) for name, value in normal.items()}

    def extend(self, name: str, entries: Iterable[Any]) -> None:
        """Add entries to the end of an attribute that is a list."""
        if not isinstance(self.values.get(name), list):
            raise ValueError(f"attribute {name} must be a list to be extended; got {self.values.get(name)!r}.")
        added = layout.normalise_attributes({name: list(entries)})[name]
        self.values[name] += added
        self._texts[name] += _texts(added)

    def json(self) -> str:
        """All of them: what `json.dumps(values, sort_keys=True)` gives."""
        return "{" + ", ".join(f'"{name}": {self._text(name)}' for name in sorted(self.values)) + "}"

    def encoded(self) -> dict[str, str | int | float]:
        """All of them as HDF5 scalars: what `layout.encode_attributes(values)` gives."""
        return layout.encode_attributes(self.values, self._text)

    def _text(self, name: str) -> str:
        texts = self._texts[name]
        return f"[{', '.join(texts)}]" if isinstance(self.values[name], list) else texts[0]


def _texts(value: Any) -> list[str]:
    return [json.dumps(part, sort_keys=True) for part in (value if isinstance(value, list) else [value])]
