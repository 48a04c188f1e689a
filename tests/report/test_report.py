"""The page: complete, self-contained, escaped, the same every time."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from lacunar.errors import ConfigError, RunError
from lacunar.report import DataSummary, report
from lacunar.report.course import training_sections
from lacunar.report.data import data_sections
from lacunar.report.encoders import capability_section, representation_section
from lacunar.report.page import Table
from lacunar.report.results import calibration_section, results_sections, tiles, verdict
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
    assert "The drop is against all modalities, on the samples that have them all" in said
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


def summary_of(patterns, labels=None, **options):
    """Counts of patterns of three modalities: 1 is audio alone, 3 audio and image, and so on."""
    samples = {part: sum(counts.values()) for part, counts in patterns.items()}
    facts = dict.fromkeys(NAMES, "vector")
    return DataSummary("toy", list(NAMES), facts, facts, samples, patterns, labels or {}, **options)


def tables_of(sections):
    """Rows of every table by its caption."""
    found = {}
    for section in sections:
        found |= {block.caption: block for block in section.blocks if isinstance(block, Table)}
    return found


def test_rates_of_a_part_with_hidden_patterns_are_hidden_too():
    # 36 samples, 19 of them shown: with the rate of image, 12 of 36, the hidden 12 and 5 would be known.
    data = summary_of({"train": {3: 19, 1: 12, 2: 5}, "test": {3: 20, 1: 10}})
    sections = data_sections(data, 10)
    rates = tables_of(sections)["Modalities and their missing rates"]
    assert [row.cells[3:] for row in rates.rows] == [["-", "0.000"], ["-", "0.333"], ["-", "1.000"]]
    assert "0.333" not in sections[0].blocks[0].text
    rows = tables_of(sections)["Samples with each combination"].rows
    assert [row.cells[0] for row in rows] == ["audio+image", "audio", "image"]
    assert [row.cells[1].startswith("fewer than 10") for row in rows] == [False, True, True]


def test_the_order_of_patterns_tells_nothing_of_hidden_ones():
    first, second = (summary_of({"all": {1: 40, 2: a, 4: b, 3: 9}}).shown(10).patterns for a, b in ((3, 8), (8, 3)))
    assert first.index.tolist() == second.index.tolist()
    assert first.equals(second)


@pytest.mark.parametrize(
    ("counts", "hidden"),
    [
        ([30, 12, 2, 2], 3),  # a sum of 4 is a small count itself
        ([30, 12, 9, 9, 9], 4),  # 27 is three times 9
        ([30, 12, *[1] * 10], 11),  # ten of them in ten samples
        ([30, 12, 3, 8], 2),
    ],
)
def test_hidden_counts_do_not_follow_from_their_sum(counts, hidden):
    assert suppress(pd.DataFrame({"train": counts}), 10)["train"].isna().sum() == hidden


def test_a_small_part_and_what_tells_it_are_hidden():
    patterns = {"train": {1: 20, 3: 30}, "val": {1: 1, 3: 2}, "test": {1: 4, 2: 4, 3: 4}}
    labels = {"train": {"no": 20, "yes": 30}, "val": {"no": 0, "yes": 3}, "test": {"no": 0, "yes": 12}}
    sections = data_sections(summary_of(patterns, labels, dropped=2), 5)
    assert sections[0].blocks[0].text.startswith("Samples in 3 presence patterns.")
    assert "left out" not in sections[0].blocks[0].text
    rows = tables_of(sections)["Samples in each part and of each class"].rows
    assert rows[0].cells == ["train", "50", "20", "30"]
    for row in rows[1:]:  # in test, three counts of 4 would follow from 12
        assert all("fewer than 5" in cell for cell in row.cells[1:])
    assert "2 samples that had nothing" in data_sections(summary_of(patterns, dropped=2))[0].blocks[0].text


def test_hidden_counts_are_in_no_other_section():
    frames = all_frames()
    columns = [
        column.title
        for section in (
            capability_section(frames["probes"], None, NAMES, "accuracy", min_cell=5),
            representation_section(frames["representation"], NAMES, min_cell=5),
        )
        for table in tables_of([section]).values()
        for column in table.columns
    ]
    assert not {"n", "trained on", "scored on"} & set(columns)
    (drawing,) = calibration_section(frames["calibration"], min_cell=20).blocks[1:]
    assert "answers." not in drawing.alt
    assert len(drawing.figure.axes) == 1
    assert drawing.figure.axes[0].lines[1].get_xdata().tolist() == [0.9]
    assert len(calibration_section(frames["calibration"], min_cell=50).blocks) == 1
    history = pd.DataFrame({f"{key}/{name}": [0.25] for key in "AB" for name in NAMES})
    told, hidden = (training_sections(history, NAMES, 0, "accuracy", min_cell=n)[0].blocks[0].alt for n in (0, 5))
    assert "A audio 0.250" in told
    assert "A audio" not in hidden
    assert "B audio 0.250" in hidden


def test_numbers_of_samples_with_a_subset_are_hidden():
    few = make_table(n=3, experts=False)
    scores = tables_of(results_sections(few, min_cell=10))["Scores on the test samples"]
    assert "n" not in [column.title for column in scores.columns]
    many = make_table(n=60, experts=False)
    many.scores[57:, -1] = np.nan
    assert "57" not in verdict(many, min_cell=10)
    many.notes = [
        "subsets are scored on different samples (n from 57 to 60); common_rows=True scores all of them",
        "3 samples have nothing and count only for the baseline",
        "2 cells were generated by a completer",
    ]
    notes = results_sections(many, min_cell=10)[0].blocks[-1].entries
    assert notes == [
        "Subsets are scored on different samples; common_rows=True scores all of them.",
        "Some samples have nothing and count only for the baseline.",
        "Some cells were generated by a completer.",
    ]
    assert "(n from 57 to 60)" in results_sections(many)[0].blocks[-1].entries[0]


def test_a_lone_small_subgroup_takes_another_with_it():
    table = make_table(n=60, experts=False)
    sex = ["f"] * 30 + ["m"] * 27 + ["x"] * 3
    found = table.by_subgroup(pd.DataFrame({"sex": sex, "site": ["a", "b"] * 30}))
    section = results_sections(table, found, min_cell=10)[-1]
    assert [row.cells[:3] for row in section.blocks[0].rows] == [
        ["sex", "f", "30"], ["site", "a", "30"], ["site", "b", "30"],
    ]  # fmt: skip
    assert section.blocks[1].text.startswith("2 subgroups")
    table.scores[57:, 1:] = np.nan
    found = table.by_subgroup(pd.DataFrame({"sex": sex}))
    assert results_sections(table, found)[-1].blocks[0].rows[2].cells == ["sex", "x", "3", "-", "", "-", "-", "-"]


@pytest.mark.parametrize(
    ("select", "kept"),
    [
        ("best", "The weights of epoch 2 were kept: the best mean over subsets."),
        ("loss", "The weights of epoch 2 were kept: the lowest validation loss"),
        ("last", "The weights of epoch 3 were kept: the last one"),
    ],
)
def test_the_page_says_which_epoch_was_kept_and_why(folder, table, select, kept):
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"lr"', f'"select": "{select}", "lr"'))
    said = read(report(folder, table)).words()
    assert kept in said
    assert f"kept: epoch {3 if select == 'last' else 2}" in said
    assert ("Weights were selected on the validation samples." in said) == (select != "last")
    assert "The test samples were read once" in said


def test_scores_on_validation_samples_are_called_so(folder, table, splits):
    table.save(folder / "subsets.json")
    summary = DataSummary.of(splits)
    for counts in (summary.samples, summary.patterns, summary.labels):
        del counts["test"]
    summary.save(folder / "data.json")
    said = read(report(folder)).words()
    assert "Scores on the val samples" in said
    assert "The scores are of the same samples" in said
    assert "test samples" not in said
    assert "Scores on the test samples" in read(report(folder, part="test")).words()


def test_means_are_over_the_subsets_that_somebody_has():
    table = make_table(n=60, experts=False)
    assert "averaged over all 7 combinations of modalities" in verdict(table)
    table.scores[:, -2:] = np.nan
    said = verdict(table)
    assert said.startswith("No test sample has every modality; averaged over 5 of the 7 combinations of modalities the")
    assert "of them" not in said
    assert tiles(table)[1].name == "Mean over 5 subsets"
    table.score_name = "dice"
    said = verdict(table, "val")
    assert said.startswith("No val sample has every modality; averaged over 5 of the 7 combinations of modalities the")
    assert f"the model's dice is {table.mean:.3f}, and in the worst case" in said
    table.scores[:, 2:] = np.nan
    assert verdict(table).startswith("No test sample has every modality; given audio the model's dice is")


def test_a_drawing_that_leaves_out_subsets_says_so():
    captions = [
        results_sections(make_table(names, n=20, experts=False))[0].blocks[0].caption
        for names in (NAMES, tuple(f"m{i}" for i in range(6)))
    ]
    assert "Of 63 combinations the 20 best and the 20 worst are drawn." in captions[1]
    assert "are drawn" not in captions[0]
