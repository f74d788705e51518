"""Write the tables and figures of docs/atlas.md."""

import re
from pathlib import Path

import pandas as pd

from examples.atlas.pictures import draw_all
from examples.atlas.tables import TABLES, Results, markdown
from static_dynamic.files import atomic_path, write_text


def write_page(save_dir: Path, docs: Path | None) -> Path:
    """Write all tables and figures to ``save_dir/page``; if `docs` is given, update its page and figures.

    Returns the folder. The page ``docs/atlas.md`` holds each table between the comments
    ``<!-- table NAME -->`` and ``<!-- end -->``.
    """
    results, folder = Results(save_dir), save_dir / "page"
    tables = {}
    for name, make in TABLES.items():
        rows = make(results)
        tables[name] = markdown(rows)
        with atomic_path(folder / f"{name}.csv") as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
    text = "\n\n".join(f"## {name}\n\n{table}" for name, table in tables.items())
    write_text(folder / "tables.md", text + "\n")
    draw_all(results, folder)
    if docs:
        write_text(docs / "atlas.md", fill((docs / "atlas.md").read_text(), tables))
        draw_all(results, docs)
    return folder


def fill(page: str, tables: dict[str, str]) -> str:
    """Return the page with every table between its comments replaced by the table of that name."""
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = pattern.sub(lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", page)  # type: ignore[misc]
    return page
