"""The tables of docs/benchmarks.md from the JSON files beside it.

python benchmarks/tables.py docs/benchmarks/cost-*.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from timing import EXTRAS


def tables(path: Path) -> list[str]:
    """The tables of a file as Markdown; it holds one, or several in a list."""
    found = json.loads(path.read_text())
    return [markdown(table, path.name) for table in found.get("tables", [found])]


def markdown(table: dict[str, Any], file: str) -> str:
    """One table's rows, with what they depend on."""
    extras = {key: extra for key, extra in EXTRAS.items() if any(key in row for row in table["rows"])}
    lines = [
        f"**{table['title']}** ([{file}](benchmarks/{file}))",
        "",
        "| | median [range] |" + "".join(f" {heading} |" for heading, _ in extras.values()),
        "|---|---|" + "---|" * len(extras),
    ]
    for row in table["rows"]:
        cells = [row["name"], f"{row['median']:.2f} [{row['min']:.2f}, {row['max']:.2f}]"]
        cells += [form.format(row[key]) if key in row else "" for key, (_, form) in extras.items()]
        lines.append(f"| {' | '.join(cells)} |")
    rounds = {row["n"] for row in table["rows"]}
    return "\n".join([*lines, "", f"n = {', '.join(map(str, sorted(rounds)))} interleaved rounds."])


def main() -> None:
    print("\n\n".join(text for name in sys.argv[1:] for text in tables(Path(name))))


if __name__ == "__main__":
    main()
