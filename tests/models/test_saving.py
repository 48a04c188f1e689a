"""Saved models: built again from plain data, all or nothing, and never unpickled."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lacunar.data.batch import Batch
from lacunar.errors import ConfigError, RunError
from lacunar.models import architecture, saving
from lacunar.models.chain import Chain
from lacunar.models.completion import TokenTransformer
from lacunar.models.configurable import Configurable
from lacunar.models.encoders import LSTM, MLP, Conv3dEncoder, SoundNet, TextCNN
from lacunar.models.fusions import AttentionFusion, ConcatFusion
from lacunar.models.heads import DenseHead, MLPHead
from lacunar.models.multimodal import MultimodalModel
from lacunar.models.preprocessing import InputNoise, Standardize
from lacunar.models.saving import load_model, read_config, save_model
from lacunar.tasks import Classification


def model(width=8, hidden=16):
    torch.manual_seed(0)
    return MultimodalModel(
        encoders={
            "blood.test": Chain(Standardize((5,)), InputNoise(0.1), MLP(5, width, hidden)),
            "sound": LSTM(3, width),
            "text": TextCNN(4, width, vocabulary=20),
        },
        completion=TokenTransformer(width),
        fusion=ConcatFusion(width),
        head=nn.Sequential(nn.Linear(3 * width, 6, bias=False), nn.GELU("tanh"), nn.Dropout(0.2), nn.Linear(6, 2)),
        task=Classification(["no", "yes"]),
    ).eval()


def batch(size=6):
    generator = torch.Generator().manual_seed(2)
    present = torch.tensor([[True, True, True], [True, False, False], [False, True, True]] * 2)[:size]
    counts = present.sum(0).tolist()
    return Batch(
        {
            "blood.test": torch.randn(counts[0], 5, generator=generator),
            "sound": torch.randn(counts[1], 7, 3, generator=generator),
            "text": torch.randint(20, (counts[2], 6), generator=generator),
        },
        present,
        None,
        torch.arange(len(present)),
        {"sound": torch.full((counts[1],), 5), "text": torch.full((counts[2],), 6)},
    )


def test_a_model_comes_back_the_same(tmp_path):
    original = model()
    save_model(original, tmp_path / "m", extra={"epoch": 3})
    assert sorted(os.listdir(tmp_path)) == ["m"]
    assert sorted(os.listdir(tmp_path / "m")) == ["config.json", "model.safetensors"]
    loaded = load_model(tmp_path / "m")
    assert torch.equal(loaded(batch()), original(batch()))
    assert repr(loaded) == repr(original)
    assert not loaded.training
    assert loaded.names == original.names
    assert loaded.task == original.task
    config = read_config(tmp_path / "m")
    assert config["extra"] == {"epoch": 3}
    assert config["names"] == ["blood.test", "sound", "text"]


def test_saving_draws_no_random_numbers(tmp_path):
    original = model()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    save_model(original, tmp_path / "m")
    assert torch.equal(torch.rand(3), expected)


class Remembers(Configurable):
    def __init__(self, width, *steps, scale=(1.0, 2.0), inner=None, **options):
        super().__init__()
        self.steps, self.inner = nn.ModuleList(steps), inner
        self.layer = nn.Linear(width, options.get("out", 2))


class Attributes(nn.Module):
    def __init__(self, width, depth=2):
        super().__init__()
        self.width, self.depth = width, depth
        self.layers = nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])

    def forward(self, x):
        return self.layers(x)


class Forgets(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x):
        return self.layer(x)


class Lies(nn.Module):
    """Keeps an attribute named like its argument, but not the argument."""

    def __init__(self, rate=0.1):
        super().__init__()
        self.rate = 0.5
        self.dropout = nn.Dropout(rate)


# Made when asked for: the volume modules import MONAI, which takes seconds.
MODULES = [
    lambda: Remembers(3, nn.ReLU(), nn.Linear(2, 2), scale=[3, 4], inner=nn.Tanh(), out=5),
    lambda: Attributes(3),
    lambda: MLP((2, 3), 4, hidden=[5, 6], dropout=0.1),
    lambda: SoundNet((1, 9, 9), 4, norm="batch"),
    lambda: Conv3dEncoder(1, 4, widths=(4, 4)),
    lambda: DenseHead(4, 2, hidden=8),
    lambda: MLPHead(4, 2),
    lambda: AttentionFusion(6),
    lambda: TokenTransformer(6, heads=2).bind(["a", "b"]),
    lambda: ConcatFusion(6, modalities=3),
    lambda: nn.ModuleDict({"a": nn.Conv2d(1, 2, 3, padding=1, bias=False), "b": nn.BatchNorm1d(3, eps=0.1)}),
    lambda: nn.ModuleList([nn.LayerNorm(3), nn.LayerNorm(4, bias=False), nn.Flatten(), nn.Identity(), nn.PReLU()]),
    lambda: nn.Sequential(nn.Embedding(5, 3), nn.GRU(3, 4, 2, batch_first=True, bidirectional=True)),
    lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d((2, 3)), nn.MaxPool2d(2, stride=1)),
]


@pytest.mark.parametrize("make", MODULES)
def test_every_kind_of_module_is_built_again(make, tmp_path):
    module = make()
    save_model(module, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert repr(loaded) == repr(module)
    for (key, found), expected in zip(loaded.state_dict().items(), module.state_dict().values()):
        assert torch.equal(found, expected), key


class Table:
    """Something that is no module and saves itself, as references do."""

    def __init__(self, numbers):
        self.numbers = numbers

    def save(self, folder):
        folder.mkdir()
        (folder / "numbers.json").write_text(json.dumps(self.numbers))

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "numbers.json").read_text()))


class WithTables(Configurable):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second


def test_what_saves_itself_gets_a_folder_of_its_own(tmp_path, monkeypatch):
    save_model(WithTables(Table([1]), Table([2])), tmp_path / "foreign")
    with pytest.raises(RunError, match=r"WithTables.*an argument is a Table"):
        load_model(tmp_path / "foreign")
    monkeypatch.setattr(architecture, "_saves_itself", lambda kind: kind is Table)
    for numbers in ([3, 4], [5]):
        save_model(WithTables(Table(numbers), Table([2])), tmp_path / "m")
        loaded = load_model(tmp_path / "m")
        assert (loaded.first.numbers, loaded.second.numbers) == (numbers, [2])
    edit(tmp_path / "m", lambda c: c["model"]["$module"]["arguments"]["first"]["$saved"].update(folder="../foreign"))
    with pytest.raises(RunError, match="nothing that lacunar saves"):
        load_model(tmp_path / "m")


def test_replaced_parts_are_the_ones_that_are_saved(tmp_path):
    changed = model()
    changed.head = nn.Linear(24, 2)
    save_model(changed, tmp_path / "m")
    assert torch.equal(load_model(tmp_path / "m")(batch()), changed(batch()))


@pytest.mark.parametrize(("module", "reason"), [(Forgets(3), "'width'"), (Lies(), "differs")])
def test_a_class_that_cannot_be_built_needs_the_model(module, reason, tmp_path, caplog):
    save_model(module, tmp_path / "m")
    assert "can only be loaded with model=" in caplog.text
    with pytest.raises(RunError, match=f"{type(module).__name__}.*{reason}.*model="):
        load_model(tmp_path / "m")
    given = type(module)(*[3] * (type(module) is Forgets))
    loaded = load_model(tmp_path / "m", model=given)
    assert loaded is given
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), module.state_dict().values()))


def test_the_custom_encoder_inside_is_named(tmp_path):
    inside = MultimodalModel({"x": Forgets(4)}, None, ConcatFusion(4), nn.Linear(4, 2))
    save_model(inside, tmp_path / "m")
    with pytest.raises(RunError, match=r"test_saving:Forgets"):
        load_model(tmp_path / "m")


def test_a_class_made_inside_a_function_is_named(tmp_path):
    class Local(Configurable):
        def __init__(self):
            super().__init__()

    save_model(Local(), tmp_path / "m")
    with pytest.raises(RunError, match=r"Local.*inside a function"):
        load_model(tmp_path / "m")


def test_a_class_that_is_gone_is_named(tmp_path):
    save_model(Attributes(3), tmp_path / "m")
    edit(tmp_path / "m", lambda config: config["model"]["$module"].update({"class": "gone.module:Encoder"}))
    with pytest.raises(RunError, match=r"'gone.module:Encoder' cannot be imported.*model="):
        load_model(tmp_path / "m")


def edit(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_only_modules_are_ever_called(tmp_path):
    save_model(nn.Linear(1, 1), tmp_path / "m")
    for path in ("os:system", "builtins:eval", "subprocess:Popen"):
        edit(tmp_path / "m", lambda config, path=path: config["model"]["$module"].update({"class": path}))
        with pytest.raises(RunError, match=r"not a torch.nn.Module class"):
            load_model(tmp_path / "m")


def test_a_class_that_changed_since_is_named(tmp_path):
    save_model(Attributes(3), tmp_path / "m")
    edit(tmp_path / "m", lambda config: config["model"]["$module"]["arguments"].update({"colour": 1}))
    with pytest.raises(RunError, match=r"Attributes.*colour"):
        load_model(tmp_path / "m")


def test_weights_of_another_model_are_refused(tmp_path):
    save_model(model(), tmp_path / "m")
    with pytest.raises(
        RunError, match=r"another model.*of another shape: .*weight is \(8, 16\), expected \(4, 16\).*and 26 more"
    ):
        load_model(tmp_path / "m", model=model(width=4))
    other = model()
    other.completion = None
    with pytest.raises(RunError, match=r"not expected: completion\.attention_norm\.bias.*and \d+ more"):
        load_model(tmp_path / "m", model=other)
    names = MultimodalModel({"x": MLP(2, 3)}, None, ConcatFusion(3), nn.Linear(3, 2))
    with pytest.raises(RunError, match=r"modalities \['blood.test', 'sound', 'text'\].*\['x'\]"):
        load_model(tmp_path / "m", model=names)


def test_a_newer_format_is_refused(tmp_path):
    save_model(nn.Linear(1, 1), tmp_path / "m")
    edit(tmp_path / "m", lambda config: config.update(format=99, lacunar="9.9"))
    with pytest.raises(RunError, match=r"format 99, written by lacunar 9.9.*Upgrade"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "x"}', '{"format": 1}'])
def test_a_damaged_configuration_is_refused(content, tmp_path):
    save_model(nn.Linear(1, 1), tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(content)
    with pytest.raises(RunError, match="damaged"):
        load_model(tmp_path / "m")


def test_damaged_or_exchanged_weights_are_refused(tmp_path):
    save_model(nn.Linear(1, 1), tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[:-3], b"", b"\xff" * 200):
        weights.write_bytes(damaged)
        with pytest.raises(RunError, match="damaged"):
            load_model(tmp_path / "m")
    save_file({"weight": torch.ones(1, 1), "bias": torch.ones(1)}, weights)
    with pytest.raises(RunError, match="does not belong"):
        load_model(tmp_path / "m")
    weights.unlink()
    with pytest.raises(RunError, match="missing"):
        load_model(tmp_path / "m")


def test_pickles_are_refused_wherever_they_are(tmp_path):
    state = nn.Linear(1, 1).state_dict()
    torch.save(state, tmp_path / "model.pt")
    (tmp_path / "disguised").write_bytes(pickle.dumps({"a": 1}))
    for name in ("model.pt", "disguised"):
        with pytest.raises(RunError, match="would need unpickling"):
            load_model(tmp_path / name)
    (tmp_path / "folder").mkdir()
    torch.save(state, tmp_path / "folder" / "model.pt")
    with pytest.raises(RunError, match="would need unpickling"):
        load_model(tmp_path / "folder")
    save_model(nn.Linear(1, 1), tmp_path / "m")
    torch.save(state, tmp_path / "m" / "model.safetensors")
    with pytest.raises(RunError, match="would need unpickling"):
        load_model(tmp_path / "m")


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        load_model(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"config.json is missing"):
        load_model(tmp_path / "empty")
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(RunError, match="is a file"):
        load_model(tmp_path / "note.txt")
    with pytest.raises(RunError, match="is a file"):
        save_model(nn.Linear(1, 1), tmp_path / "note.txt")


def test_saving_again_replaces_and_foreign_files_are_safe(tmp_path):
    save_model(nn.Linear(1, 1), tmp_path / "m")
    second = nn.Linear(1, 1)
    save_model(second, tmp_path / "m")
    assert torch.equal(load_model(tmp_path / "m").weight, second.weight)
    assert os.listdir(tmp_path) == ["m"]
    (tmp_path / "m" / "thesis.tex").write_text("all of it")
    with pytest.raises(RunError, match=r"thesis.tex"):
        save_model(second, tmp_path / "m")
    assert (tmp_path / "m" / "thesis.tex").read_text() == "all of it"


@pytest.mark.parametrize("name", ["participants.csv", "part2/", "part0", "partners/"])
def test_what_only_sounds_like_a_part_is_safe(name, tmp_path):
    save_model(nn.Linear(1, 1), tmp_path / "m")
    mine = tmp_path / "m" / name
    if name.endswith("/"):
        mine.mkdir()
        mine = mine / "notes.txt"
    mine.write_text("all of it")
    with pytest.raises(RunError, match=f"holds '{name.strip('/')}', which is no part of a saved model"):
        save_model(nn.Linear(1, 1), tmp_path / "m")
    assert mine.read_text() == "all of it"


def test_a_model_that_cannot_be_built_is_saved_again_and_leaves_no_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(architecture, "_saves_itself", lambda kind: kind is Table)
    for _ in range(2):
        save_model(nn.Sequential(WithTables(Table([1]), Table([2])), Lies()), tmp_path / "m")
        assert sorted(os.listdir(tmp_path / "m")) == ["config.json", "model.safetensors"]


def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    first = nn.Linear(1, 1)
    save_model(first, tmp_path / "m")
    with pytest.raises(ConfigError, match="extra must be plain JSON"):
        save_model(nn.Linear(1, 1), tmp_path / "m", extra={"x": object()})
    replace = os.replace

    def killed(source, target):
        if os.path.basename(target) == "m":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(saving.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save_model(nn.Linear(1, 1), tmp_path / "m")
    monkeypatch.undo()
    assert torch.equal(load_model(tmp_path / "m").weight, first.weight)
    save_model(first, tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]


def test_shared_half_precision_and_odd_tensors(tmp_path):
    module = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    module[1].weight = module[0].weight
    module[1].bias.data = module[1].bias.data.double()
    save_model(module, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert torch.equal(loaded[1].weight, module[0].weight)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_of_another_precision_predicts_as_it_did(kind, tmp_path):
    original = model()
    original.encoder("blood.test").steps[0].mean.fill_(1000.3)
    rows = batch()
    rows.inputs["blood.test"] += 1000
    original.to(kind)
    save_model(original, tmp_path / "m")
    expected = original(rows)
    assert expected.dtype == kind
    for given in (None, model()):
        loaded = load_model(tmp_path / "m", model=given)
        assert torch.equal(loaded(rows), expected)
    assert loaded.encoder("blood.test").steps[0].mean.dtype == (kind if kind == torch.float64 else torch.float32)


def test_what_stands_beside_a_model_in_half_precision_keeps_its_own(tmp_path):
    beside = Beside(model().to(torch.bfloat16))
    save_model(beside, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert torch.equal(loaded.prior, beside.prior)
    assert torch.equal(loaded.share, beside.share)
    assert torch.equal(loaded.inner(batch()), beside.inner(batch()))


class Beside(Configurable):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_buffer("prior", torch.tensor([0.1]))
        self.register_buffer("share", torch.tensor([0.3]), persistent=False)


def test_a_model_is_loaded_in_another_process(tmp_path):
    original = model()
    save_model(original, tmp_path / "m")
    code = "import sys, lacunar; print(sum(p.double().sum().item() for p in lacunar.load(sys.argv[1]).parameters()))"
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m")], capture_output=True, text=True, check=True
    )
    assert float(answer.stdout) == pytest.approx(sum(p.double().sum().item() for p in original.parameters()))
