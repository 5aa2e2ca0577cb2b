"""The tables of docs/benchmarks.md from the JSON files beside it.

python benchmarks/tables.py docs/benchmarks/cost-*.json
"""

import json
import sys
from pathlib import Path


def table(path: Path) -> str:
    """One file's rows as Markdown, with what they depend on."""
    found = json.loads(path.read_text())
    memory = any("memory" in row for row in found["rows"])
    lines = [
        f"**{found['title']}** ([{path.name}](benchmarks/{path.name}))",
        "",
        "| | median [range] |" + (" extra memory |" if memory else ""),
        "|---|---|" + ("---|" if memory else ""),
    ]
    for row in found["rows"]:
        cells = [row["name"], f"{row['median']:.2f} [{row['min']:.2f}, {row['max']:.2f}]"]
        cells += [f"{row['memory']:.2f}"] if "memory" in row else []
        lines.append(f"| {' | '.join(cells)} |")
    rounds = {row["n"] for row in found["rows"]}
    return "\n".join([*lines, "", f"n = {', '.join(map(str, sorted(rounds)))} interleaved rounds."])


def main() -> None:
    print("\n\n".join(table(Path(name)) for name in sys.argv[1:]))


if __name__ == "__main__":
    main()
