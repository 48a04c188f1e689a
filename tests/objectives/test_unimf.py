"""UniMF: who attends to whom, translation without leaks, and fusion through one token."""

import pytest
import torch
from tests.helpers import first_batch, small_model, vectors
from torch.nn import functional

from lacunar.errors import ConfigError
from lacunar.objectives.patterns import random_patterns
from lacunar.objectives.unimf import BottleneckFusion, Translator, UniMF, fusion_attention, translation_attention
from lacunar.training.fit import fit


def test_start_is_the_only_bridge_in_translation():
    allowed = translation_attention(2, 2, 3)
    rows = ["11001000", "11001000", "00111000", "00111000", "11111000", "00001100", "00001110", "00001111"]
    assert ["".join(str(int(v)) for v in row) for row in allowed] == rows


def test_modalities_meet_only_in_cls_in_fusion():
    rows = ["".join(str(int(v)) for v in row) for row in fusion_attention(2, 2)]
    assert rows == ["11111", "11100", "11100", "10011", "10011"]


def translator(**options):
    torch.manual_seed(0)
    return Translator(8, 3, tokens=4, width=16, **options).eval()


def test_a_later_target_changes_no_earlier_output():
    module = translator()
    h, source = torch.randn(5, 3, 8), torch.tensor([[True, True, False]]).expand(5, 3)
    target, truth = torch.full((5,), 2), torch.randn(5, 8)
    before = module.translate(h, source, target, truth).unflatten(1, (4, 2))
    truth[:, 4:6] = 9.0  # the third token
    after = module.translate(h, source, target, truth).unflatten(1, (4, 2))
    torch.testing.assert_close(after[:, :3], before[:, :3], rtol=0, atol=0)
    assert not torch.equal(after[:, 3], before[:, 3])


def test_what_is_no_source_is_not_read_and_the_last_truth_neither():
    module = translator()
    h, source = torch.randn(5, 3, 8), torch.tensor([[True, False, False]]).expand(5, 3)
    target, truth = torch.full((5,), 2), torch.randn(5, 8)
    made = module.translate(h, source, target, truth)
    other = h.clone()
    other[:, 1:] = 7.0
    changed = truth.clone()
    changed[:, 6:] = 7.0
    assert torch.equal(module.translate(other, source, target, changed), made)
    other[:, 0] = 7.0
    assert not torch.equal(module.translate(other, source, target, truth), made)


def test_generation_repeats_what_teacher_forcing_on_it_gives():
    module = translator()
    h, source, target = torch.randn(5, 3, 8), torch.tensor([[True, True, False]]).expand(5, 3), torch.full((5,), 2)
    made = module.translate(h, source, target)
    assert made.shape == (5, 8)
    torch.testing.assert_close(module.translate(h, source, target, made), made)


def test_present_features_pass_and_complete_rows_are_untouched():
    module = translator()
    h, present = torch.randn(4, 3, 8), torch.tensor([[True, False, True]] * 3 + [[True, True, True]])
    out = module(h * present[:, :, None], present)
    assert torch.equal(out[present], h[present])
    assert (out[~present].abs().sum(1) > 0).all()


def test_cls_sees_every_token():
    torch.manual_seed(0)
    module = BottleneckFusion(8, 3, width=16).eval()
    h, present = torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool)
    out = module(h, present)
    for m in range(3):
        for part in range(4):
            other = h.clone()
            other[:, m, 2 * part] += 1
            assert not torch.equal(module(other, present), out)


def test_translation_moves_no_encoder_and_no_fusion():
    data = vectors(3, n=30)
    torch.manual_seed(0)
    model, objective = small_model(data), UniMF(width=16)
    objective.setup(model, data)
    objective(model, first_batch(data))["translation"].backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is None for p in objective.fusion.parameters())
    assert any(p.grad.abs().sum() > 0 for p in objective.translator.parameters())


def drawn(missing):
    """A method without dropout, what its loss terms are, and what the batch showed by the same random numbers."""
    data = vectors(3, n=24, missing=missing)
    torch.manual_seed(0)
    model, objective = small_model(data), UniMF(translation=2.0, width=16, dropout=0.0)
    objective.setup(model, data)
    batch = first_batch(data)
    torch.manual_seed(1)
    terms = objective(model, batch)
    torch.manual_seed(1)
    shown = random_patterns(batch.present, everything=True)
    return objective, terms, batch, model.encode(batch).h.detach(), shown


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_whatever_is_not_shown_is_generated_for_fusion_from_what_is(missing):
    objective, terms, batch, h, shown = drawn(missing)
    filled = h.clone()
    for row, m in (~shown).nonzero().tolist():
        made = objective.translator.translate(h[row : row + 1], shown[row : row + 1], torch.tensor([m]))
        filled[row, m] = made[0].detach()
    fused = objective.fusion(filled, torch.ones_like(shown))
    torch.testing.assert_close(terms["task"], functional.cross_entropy(objective.head(fused), batch.target))
    terms["task"].backward()
    assert all(p.grad is None for p in objective.translator.parameters())


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_each_modality_is_translated_from_the_others_that_are_shown(missing):
    objective, terms, batch, h, shown = drawn(missing)
    errors = []
    for row, m in batch.present.nonzero().tolist():
        source = shown[row : row + 1].clone()
        source[0, m] = False
        if source.any():
            made = objective.translator.translate(h[row : row + 1], source, torch.tensor([m]), h[row : row + 1, m])
            errors.append(functional.mse_loss(made[0], h[row, m]))
    torch.testing.assert_close(terms["translation"], 2 * torch.stack(errors).mean())


def test_it_trains_with_fit():
    data = vectors(3, n=80).split(train=0.7, val=0.3, test=0.0, seed=0)
    run = fit(data, small_model(data.train), UniMF(width=16), max_epochs=3, progress=False)
    assert "loss/translation" in run.history.columns
    assert run.model(first_batch(data.val)).shape == (len(data.val), 3)


@pytest.mark.parametrize(("options", "message"), [({"translation": -1.0}, "translation"), ({"tokens": 0}, "tokens")])
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        UniMF(**options)
