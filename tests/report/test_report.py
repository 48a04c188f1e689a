"""The page: complete, self-contained, escaped, the same every time."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from lacunar.errors import ConfigError, RunError
from lacunar.report import DataSummary, report
from lacunar.report.results import verdict
from lacunar.report.summary import suppress
from lacunar.report.write import keep_frame
from tests.report.toys import EVIL, NAMES, make_data, make_folder, make_table

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and texts of a page; refuses tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def words(self):
        return " ".join(" ".join(self.text).split())


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def all_frames():
    keys = [(name, "observed", head) for name in NAMES for head in ("linear", "mlp")]
    index = pd.MultiIndex.from_tuples(keys, names=["modality", "rows", "head"])
    facts = {"score": 0.625, "std": 0.01, "scores": [[0.6, 0.65]] * 6, "baseline": 0.5, "n_train": 30, "n": 20}
    probes = pd.DataFrame(facts, index=index)
    quality = pd.DataFrame({"n": [60, 20], "intra": 2.0, "inter": 4.0, "ratio": 0.5}, index=["all", "audio"])
    return {
        "probes": probes,
        "trajectory": pd.concat({0: probes, 5: probes}, names=["epoch"]),
        "representation": quality.rename_axis("subset"),
        "calibration": pd.DataFrame({"confidence": [0.3, 0.9], "accuracy": [0.2, 0.8], "count": [10, 30]}),
    }


def test_a_full_page_says_everything(folder, table, splits):
    page = read(report(folder, table, splits, **all_frames()))
    said = page.words()
    headings = [
        "Every combination of modalities", "Against single-modality models", "What each modality contributes",
        "Subgroups",
        "Who has what", "The data", "How training went", "What each encoder knows", "Representation quality",
        "Calibration", "Configuration", "How to read this",
    ]  # fmt: skip
    for heading in headings:
        assert heading in said
    assert "A missing rate is the fraction of samples in which a modality is absent" in said
    assert f"{table.mean:.3f}" in said
    assert f"{table.full:.3f}" in said
    assert f"{table.worst.score:.3f}" in said
    assert splits.hash in said
    assert splits.presence.hash in said
    anchors = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links
    assert all(link.startswith("#") and link[1:] in anchors for link in links)


def test_every_subset_is_in_the_table_with_best_and_worst_marked(folder, table):
    text = report(folder, table).read_text(encoding="utf-8")
    for label in table.labels[1:]:
        assert f"</span>{label.replace('+', ' + ')}" in text
    best = table.frame.iloc[1:]["score"].idxmax().replace("+", " + ")
    assert re.search(rf'<tr class="best">.*?{re.escape(best)} <span class="tag">best', text)
    assert re.search(rf'<tr class="worst">.*?{re.escape(table.worst.subset)} <span class="tag">worst', text)


def test_the_page_needs_nothing_beside_it(folder, table, splits):
    path = report(folder, table, splits, **all_frames())
    page = read(path)
    assert "http:" not in path.read_text(encoding="utf-8")
    assert "https:" not in path.read_text(encoding="utf-8")
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img", "base", "form")
        assert "src" not in attributes
        assert "srcset" not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in path.read_text()
    assert "url(h" not in path.read_text()


def test_accessible_names_and_real_tables(folder, table, splits):
    page = read(report(folder, table, splits))
    drawings = [attributes for tag, attributes in page.tags if attributes.get("role") == "img"]
    assert drawings
    assert all(len(attributes["aria-label"]) > 40 for attributes in drawings)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") == tags.count("thead") > 4
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    assert page.tags[0] == ("html", {"lang": "en"})


@pytest.mark.parametrize("where", ["modality", "class", "title", "subgroup", "argument"])
def test_names_cannot_inject_html(tmp_path, where):
    names = (EVIL, "image", "text") if where == "modality" else NAMES
    classes = (EVIL, "yes") if where == "class" else ("no", "yes")
    data = make_data(names, classes)
    if where == "subgroup":
        for part in data.parts.values():
            part.subgroups = pd.DataFrame({EVIL: [EVIL, "b"] * (len(part) // 2)})
    folder = make_folder(tmp_path / "run", names)
    if where == "argument":
        config = folder / "config.json"
        config.write_text(config.read_text().replace("MCE(single=1.0)", EVIL).replace('"lr": 0.001', f'"lr": "{EVIL}"'))
    table = make_table(names, n=len(data.test))
    path = report(folder, table, data, title=EVIL if where == "title" else None)
    page = read(path)
    assert all(tag != "img" for tag, _ in page.tags)
    assert "<img" not in path.read_text(encoding="utf-8")
    assert EVIL in "".join(page.text), "the name is shown, as text"


def test_the_same_input_gives_the_same_bytes(folder, table, splits, tmp_path):
    first = report(folder, table, splits, path=tmp_path / "a.html").read_bytes()
    assert report(folder, table, splits, path=tmp_path / "b.html").read_bytes() == first


def test_a_folder_remembers_what_was_found(folder, table, splits):
    whole = report(folder, table, splits, **all_frames()).read_text(encoding="utf-8")
    table.save(folder / "subsets.json")
    DataSummary.of(splits).save(folder / "data.json")
    for name, frame in all_frames().items():
        keep_frame(folder, name, frame)
    keep_frame(folder, "subgroups", table.by_subgroup(splits.test.subgroups))
    again = report(folder).read_text(encoding="utf-8")
    for heading in ("What each encoder knows", "Representation quality", "Calibration", "Subgroups", "Who has what"):
        assert heading in whole or heading == "Subgroups"
        assert heading in again
    assert DataSummary.load(folder / "data.json") == DataSummary.of(splits)


def test_an_unfinished_run_says_so(folder):
    (folder / "result.json").unlink()
    assert "Training is unfinished" in read(report(folder)).words()


def test_below_an_expert_is_told(folder):
    table = make_table()
    assert table.below_experts["clear"].any()
    assert "clearly better" in verdict(table)
    page = read(report(folder, table)).words()
    assert "clearly below" in page
    without = read(report(folder, make_table(experts=False))).words()
    assert "Against single-modality models" not in without


def test_verdict_for_scores_that_are_not_accuracy(table):
    other = make_table(experts=False)
    other.score_name = "dice"
    assert f"dice on the val samples is {other.full:.3f}" in verdict(other, "val")


def test_few_samples_are_never_sold_as_many(table):
    few = make_table(n=12, experts=False)
    assert "(too few to rely on)" in verdict(few)
    many = make_table(n=60, experts=False)
    assert "too few" not in verdict(many)
    many.scores[5:, -1] = np.nan
    assert "of the 5 test samples that have them all (too few to rely on)" in verdict(many)
    assert "of the few test samples" in verdict(many, min_cell=10)


def test_one_modality_makes_a_page(tmp_path):
    names = ("only",)
    data = make_data(names, n=60)
    page = read(report(make_folder(tmp_path / "run", names), make_table(names, n=len(data.test)), data))
    assert "What each modality contributes" not in page.words()


def test_many_modalities_fold_the_long_table(tmp_path):
    names = tuple(f"m{i}" for i in range(7))
    path = report(make_folder(tmp_path / "run", names), make_table(names, n=40))
    assert "<summary>Scores on the test samples (128 rows)" in path.read_text()


def test_small_counts_are_hidden_everywhere(folder, table):
    data = make_data(n=60)
    counts = DataSummary.of(data).pattern_table[0]
    assert ((counts > 0) & (counts < 5)).to_numpy().any(), "the toy data must have small cells"
    text = read(report(folder, table, data, min_cell=5)).words()
    assert "fewer than 5" in text
    shown = suppress(counts, 5)
    assert not ((shown > 0) & (shown < 5)).to_numpy().any()


def test_a_lone_hidden_count_takes_another_with_it():
    shown = suppress(pd.DataFrame({"train": [40, 3, 9], "test": [10, 10, 0]}), 5)
    assert shown["train"].isna().tolist() == [False, True, True]
    assert shown["test"].tolist() == [10, 10, 0]
    assert suppress(pd.DataFrame({"train": [1, 2]}), 0)["train"].tolist() == [1, 2]


def test_rates_that_tell_a_small_count_are_hidden(folder):
    data = make_data(n=60)
    summary = DataSummary.of(data)
    summary.patterns["train"] = {1: 28, 4: 2}
    text = report(folder, None, summary, min_cell=5).read_text(encoding="utf-8")
    assert "not shown" in text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: report(folder / "nothing"), "is not the folder of a run"),
        (lambda folder: report(folder, min_cell=-1), "min_cell: expected a whole number"),
        (lambda folder: keep_frame(folder, "probe", pd.DataFrame()), "Did you mean 'probes'"),
        (lambda folder: DataSummary.load(folder / "config.json"), "no data summary can be read"),
    ],
)
def test_errors_say_what_is_wrong(folder, call, message):
    with pytest.raises((ConfigError, RunError), match=message):
        call(folder)


def test_a_damaged_file_of_the_run_is_told(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        report(folder)


def test_nothing_half_written_stays(folder, table, monkeypatch):
    import os

    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        report(folder, table)
    assert not list(folder.glob(".report*"))
    assert not (folder / "report.html").exists()


def test_numbers_for_people():
    from lacunar.report.page import number

    assert [number(value) for value in (0.12345, float("nan"), None, True, np.int64(1234), 12345.678)] == [
        "0.123", "-", "-", "yes", "1\u202f234", "1.235e+04",
    ]  # fmt: skip
