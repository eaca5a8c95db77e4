"""What is taken along: tables against the estimates themselves, figures by their size, the page."""

from __future__ import annotations

import csv
import html.parser
import io
import re
import xml.etree.ElementTree as ET

import pytest
from conftest import here
from made_rows import MEASURED, named_study, study

from monosem.figures.curves import panel_columns
from monosem.figures.style import PAPER, SCREEN
from monosem.reports.formats import csv_text, escape, latex, markdown
from monosem.reports.markdown_html import to_html
from monosem.reports.page import page_text
from monosem.reports.paper_tables import paper_tables
from monosem.results.rows import table_text
from monosem.results.stats import areas, estimate
from monosem.results.summary import tables
from monosem.results.table import Table

ROWS = [*study("simclr"), *study("n_cl", 2.0), MEASURED._replace(experiment="simclr")]
TABLE = Table(ROWS)
TABLES = paper_tables(TABLE)


# Tables


def test_there_is_a_table_of_accuracies_differences_areas_and_measures():
    assert [each.name for each in TABLES] == [
        "accuracy",
        "differences",
        "areas",
        "monosemanticity",
    ]


def test_a_line_of_the_csv_is_a_number_in_full_precision():
    lines = list(csv.DictReader(io.StringIO(csv_text(TABLES))))
    (line,) = (each for each in lines if each["table"] == "areas" and each["kind"] == "difference")
    assert (line["row"], line["column"]) == ("n_cl", "gaussian")
    point = estimate(areas(TABLE.differences(TABLE.lines[1], "gaussian")))
    assert float(line["mean"]) == point.mean and float(line["half_interval"]) == point.half
    assert float(line["p"]) == point.p and (line["seeds"], line["repeats"]) == ("3", "3")
    means = [each for each in lines if each["table"] == "accuracy"]
    assert len(means) == 4 and {each["at"] for each in means} == {"0", "0.5"}


def test_stars_say_how_sure_a_difference_is_and_nothing_else_has_any():
    bounds = {"***": (0, 0.001), "**": (0.001, 0.01), "*": (0.01, 0.05), "": (0.05, 1.01)}
    starred = 0
    for line in csv.DictReader(io.StringIO(csv_text(TABLES))):
        if line["kind"] == "difference" and line["p"]:
            low, high = bounds[line["mark"]]
            assert low <= float(line["p"]) < high
            starred += bool(line["mark"])
        else:
            assert line["mark"] == line["p"] == ""
    assert starred


def test_latex_has_booktabs_rules_and_as_many_cells_as_columns():
    text = latex(TABLES)
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(f"\\{rule}") == len(TABLES)
    bodies = re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    for columns, body in bodies:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {line.count(" & ") + line.startswith("     &") for line in rows} <= {
            len(columns) - 1,
            len(columns),
        }
    assert r"n\_cl" in text and "n_cl" not in text
    assert re.search(r"\$\+\d\.\d \\pm \d\.\d\^\{\*+\}\$", text)
    assert "95 \\%" in text and "p $<$ .05" in text


@pytest.mark.parametrize("sign", list("&%$#_{}~^\\<>±"))
def test_no_sign_of_a_name_is_a_command_of_latex(sign):
    assert escape(sign) != sign and escape(f"a{sign}b").startswith("a")


def test_markdown_says_the_same_means_as_the_summary():
    text, summary = markdown(TABLES), tables(TABLE)
    means = re.findall(r"(?<![+-])\b\d+\.\d ± \d+\.\d", summary)
    assert means and set(means) <= set(re.findall(r"\d+\.\d ± \d+\.\d", text))


def test_named_points_are_rows_by_name():
    named = Table([*named_study("a"), *named_study("b", 1.0)])
    (accuracy, *_) = paper_tables(named)
    assert [row.labels for row in accuracy.rows] == [
        ("common", "clean"),
        ("common", "snow"),
        ("common", "fog"),
    ]


# Markdown as HTML


class Shape(html.parser.HTMLParser):
    """Checks that elements are closed in order, and collects text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open[-1] == "li" and tag != "li":  # which may be left open
            self.open.pop()
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def shape_of(text: str) -> Shape:
    shape = Shape()
    shape.feed(text)
    assert shape.open == []
    return shape


def test_a_summary_becomes_headings_lists_and_tables():
    text = (
        "## A <b>\n\n- one\n- two\n  - deep `x_y`\n- three\n\n| a | b |\n|---|---|\n| 1 | **2** |\n"
    )
    shape = shape_of(to_html(text))
    assert shape.seen.count("li") == 4 and shape.seen.count("ul") == 2
    assert shape.seen.count("tr") == 2 and "A <b>" in shape.text
    assert shape.seen.count("b") == 1 and "code" in shape.seen


def test_every_word_of_a_real_summary_is_on_the_page():
    summary = tables(TABLE)
    shown = shape_of(to_html(summary)).text
    for word in re.findall(r"[\w.]+", summary):
        assert word in shown


def test_the_page_has_tables_before_the_list_of_what_was_done(tmp_path):
    (tmp_path / "summary.md").write_text("# x\n\n- probed: it\n  - deep\n\n" + tables(TABLE))
    text = shape_of(page_text(tmp_path)).text
    assert text.index("severity") < text.index("What was trained") < text.index("probed: it")


# The folder, by the command


@pytest.fixture
def finished(tmp_path):
    folder = tmp_path / "runs" / "study"
    folder.mkdir(parents=True)
    (folder / "curves.csv").write_text(table_text(ROWS))
    (folder / "summary.md").write_text("# study\n\n" + tables(TABLE))
    (folder / "config.gin").write_text("Experiment.name = 'study'  # </pre><script>\n")
    (folder / "gallery.html").write_text('<p class="x">what & how</p>')
    return folder


def test_gather_prints_only_the_table_and_leaves_paper_and_page(finished, capsys):
    out = here(capsys, "--gather", finished, "--table", "latex", "--figures", "svg", "pdf")
    assert out.returncode == 0, out.stderr
    assert out.stdout == (finished / "paper" / "tables.tex").read_text() == latex(TABLES)
    assert out.stderr.count("written:") == 2
    page = (finished / "index.html").read_text()
    assert (finished / "paper" / "curves.pdf").read_bytes().startswith(b"%PDF")
    svg = ET.parse(finished / "paper" / "curves.svg").getroot()
    assert svg.get("width") == f"{72 * PAPER.width:g}pt"
    shape = shape_of(page)
    assert {"figure", "table", "iframe", "pre"} <= set(shape.seen)
    assert "study" in shape.text and "</pre><script>" in shape.text
    assert not re.search(r"(src|href)=\"(?!data:)", page)  # nothing from elsewhere


def test_the_page_leaves_out_what_is_absent(finished):
    for name in ("gallery.html", "config.gin", "summary.md"):
        (finished / name).unlink()
    shape = shape_of(page_text(finished))
    assert not {"iframe", "pre", "table"} & set(shape.seen) and "study" in shape.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--table", "word"], "invalid choice: 'word' (choose from"),
        (["--figures", "gif"], "invalid choice: 'gif' (choose from"),
        (["--table", "latex"], "--gin FILE is needed"),
        (["--gin", "gin/ncl.gin", "--plan", "--table", "csv"], "--plan has none"),
    ],
)
def test_what_cannot_be_taken_along_is_one_line(arguments, said, capsys):
    out = here(capsys, *arguments)
    assert out.returncode == 2 and said in out.stderr and out.stderr.count("\n") == 1


# Figures


def test_panels_of_a_paper_fill_their_rows():
    assert [panel_columns(panels, PAPER) for panels in (1, 2, 3, 4, 5, 6, 7)] == [
        1,
        2,
        3,
        2,
        3,
        3,
        3,
    ]
    assert panel_columns(7, SCREEN) == 7
