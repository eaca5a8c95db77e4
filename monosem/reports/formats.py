"""Tables written as LaTeX (booktabs), Markdown or CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence

from monosem.reports.paper_tables import Number, PaperRow, PaperTable
from monosem.results.formatting import format_mean, format_score, markdown_table

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$",
    ">": r"$>$", "±": r"$\pm$",
}  # fmt: skip


def written(number: Number) -> str:
    """`81.3 ± 0.4`, `+1.2 ± 0.3**`, `0.73 ± 0.01`."""
    if number.kind == "score":
        return format_score(number.point)
    sign = "+" if number.kind == "difference" else ""
    return f"{format_mean(number.point, sign)}{number.mark}"


# LaTeX


def latex(tables: Sequence[PaperTable]) -> str:
    """A table environment for each of them."""
    return "% \\usepackage{booktabs}\n\n" + "\n".join(map(_latex_table, tables))


def _latex_table(table: PaperTable) -> str:
    columns = "l" * len(table.stub) + "r" * len(table.columns)
    headings = " & ".join(map(escape, [*table.stub, *table.columns]))
    body = "\n".join(f"    {line}" for line in _latex_rows(table.rows))
    return (
        "\\begin{table}[t]\n"
        "  \\centering\n"
        f"  \\caption{{{escape(table.caption)}}}\n"
        f"  \\label{{tab:{table.name}}}\n"
        f"  \\begin{{tabular}}{{{columns}}}\n"
        "    \\toprule\n"
        f"    {headings} \\\\\n"
        "    \\midrule\n"
        f"{body}\n"
        "    \\bottomrule\n"
        "  \\end{tabular}\n"
        "\\end{table}\n"
    )


def _latex_rows(rows: Sequence[PaperRow]) -> Iterator[str]:
    """A name that stays the same is said once, with a little space before the next one."""
    before = ""
    for row in rows:
        first, *others = row.labels
        if others and before and first != before:
            yield "\\addlinespace"
        labels = ["" if others and first == before else first, *others]
        cells = [" ".join(map(_latex_number, cell)) for cell in row.cells]
        yield " & ".join([*map(escape, labels), *cells]) + " \\\\"
        before = first


def _latex_number(number: Number) -> str:
    text = written(number).rstrip("*").replace("±", r"\pm")
    text = re.sub(r"(\d)e([+-])0*(\d+)", _power, text)
    mark = f"^{{{number.mark}}}" if number.mark else ""
    return f"${text}{mark}$"


def _power(found: re.Match[str]) -> str:
    sign = "-" if found[2] == "-" else ""
    return rf"{found[1]} \times 10^{{{sign}{found[3]}}}"


def escape(text: str) -> str:
    """Text for LaTeX, of which no sign is a command."""
    return "".join(ESCAPES.get(sign, sign) for sign in text)


# Markdown and CSV


def markdown(tables: Sequence[PaperTable]) -> str:
    blocks = []
    for table in tables:
        rows = [
            [*row.labels, *("; ".join(map(written, cell)) for cell in row.cells)]
            for row in table.rows
        ]
        blocks.append(f"{markdown_table([*table.stub, *table.columns], rows)}\n\n{table.caption}\n")
    return "\n".join(blocks)


CSV_COLUMNS = (
    "table", "row", "at", "column", "kind", "mean", "half_interval", "p", "seeds", "repeats", "mark"
)  # fmt: skip


def csv_text(tables: Sequence[PaperTable]) -> str:
    """A line a number, in full precision; what there is none of is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                writer.writerows(_csv_line(table.name, row, column, number) for number in cell)
    return text.getvalue()


def _csv_line(name: str, row: PaperRow, column: str, number: Number) -> list[object]:
    first, at = (*row.labels, "")[:2]
    mean, half, p, seeds, repeats = number.point
    if number.kind != "difference":
        p = math.nan  # that a mean is not 0 is nothing to be tested
    known = ["" if math.isnan(value) else value for value in (mean, half, p)]
    return [name, first, at, column, number.kind, *known, seeds, repeats, number.mark]


FORMATS: dict[str, tuple[str, Callable[[Sequence[PaperTable]], str]]] = {
    "latex": ("tables.tex", latex),
    "markdown": ("tables.md", markdown),
    "csv": ("tables.csv", csv_text),
}  # as --table names them: the file, and what writes it
