"""Scoring data, losses and outputs as people have them, against ten lines of SNIP."""

import pytest
import torch
import torch.nn.functional as F
from networks import count, equal, normal, sensitivity
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sculpt
from sculpt.errors import InputError, NumericsError

STREAM = torch.Generator().manual_seed(0)
INPUTS = torch.randn(24, 16, generator=STREAM)
LABELS = torch.arange(24) % 10
TOKENS = torch.randint(0, 50, (24, 7), generator=STREAM)


def top(scores, masks):
    """Keep the highest of the scores that masks are about, as many as these keep."""
    flat = torch.cat([scores[name].flatten() for name in masks])
    threshold = flat.topk(count(masks)).values.min()
    return {name: scores[name] >= threshold for name in masks}


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 10))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(16, 8), nn.Linear(4, 8), nn.Linear(8, 10)

    def forward(self, wide, narrow, scale=1.0, where=None):
        hidden = self.first(wide) + scale * self.second(narrow)
        return self.head(torch.tanh(hidden if where is None else hidden * where[:, None]))


class Tagger(nn.Module):
    """A transformer that names each token, as the libraries of such networks return it."""

    def __init__(self, named=True):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.head = nn.Linear(16, 10)
        self.named = named

    def forward(self, input_ids, attention_mask=None):
        padding = None if attention_mask is None else attention_mask == 0
        hidden = self.block(self.words(input_ids), src_key_padding_mask=padding)
        logits = self.head(hidden)
        return {"logits": logits} if self.named else logits


class TestInputs:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: DataLoader(TensorDataset(INPUTS, LABELS), batch_size=7),
            lambda: DataLoader(TensorDataset(INPUTS, LABELS), batch_size=7, shuffle=True),
            lambda: [(INPUTS[:20], LABELS[:20]), [INPUTS[20:], LABELS[20:]]],
            lambda: ((x, y) for x, y in zip(INPUTS.split(5), LABELS.split(5), strict=True)),
            lambda: [{"input": INPUTS, "labels": LABELS}],
            lambda: {"input": INPUTS, "label": LABELS},
        ],
    )
    @pytest.mark.parametrize("criterion", ["connection_sensitivity", "grasp", "iterative_snip"])
    def test_batches_score_as_one_tensor_does(self, criterion, make):
        options = {"targets": "gt"} | ({"rounds": 3} if criterion == "iterative_snip" else {})
        expected = sculpt.prune(
            mlp(), 150, criterion=criterion, inputs=INPUTS, labels=LABELS, **options
        )
        found = sculpt.prune(mlp(), 150, criterion=criterion, inputs=make(), **options)
        same = sum(int((found[name] == expected[name]).sum()) for name in found)
        assert same >= 442 - 2, "sums in another order may exchange two weights"

    @pytest.mark.parametrize("loader", [DataLoader(INPUTS, 5), DataLoader(TensorDataset(INPUTS))])
    def test_batches_need_no_labels(self, loader):
        expected = sculpt.prune(mlp(), 150, inputs=INPUTS)
        found = sculpt.prune(mlp(), 150, inputs=loader)
        assert sum(int((found[name] != expected[name]).sum()) for name in found) <= 2
        with pytest.raises(InputError, match="labels of the inputs, but there are none"):
            sculpt.prune(mlp(), 150, inputs=loader, targets="gt")

    @pytest.mark.parametrize("criterion", ["connection_sensitivity", "synflow", "random"])
    @pytest.mark.parametrize("rule", [{}, {"effective": True}, {"mac_exponent": 0.5}], ids=str)
    def test_several_inputs(self, criterion, rule):
        narrow = torch.randn(24, 4, generator=torch.Generator().manual_seed(1))
        rule = rule | ({"rounds": 3} if criterion == "synflow" else {})
        forms = [
            (INPUTS, narrow),
            {"wide": INPUTS, "narrow": narrow, "scale": 1.0},
            [
                {"wide": INPUTS[:9], "narrow": narrow[:9]},
                {"wide": INPUTS[9:], "narrow": narrow[9:]},
            ],
            [((INPUTS, narrow), LABELS)],
        ]
        masks = [
            sculpt.prune(TwoInputs(), 100, criterion=criterion, inputs=form, **rule)
            for form in forms
        ]
        assert all(count(found) == 100 for found in masks)
        for found in masks[1:]:
            assert sum(int((found[name] != masks[0][name]).sum()) for name in found) <= 2

    def test_masks_and_settings_are_handed_on(self):
        model = TwoInputs()
        inputs = {"wide": INPUTS, "narrow": INPUTS[:, :4], "where": torch.arange(24) % 2 == 0}
        masks = sculpt.prune(model, 100, inputs=inputs)
        model = TwoInputs()
        logits = model(**inputs)
        scores = sensitivity(model, [-logits.log_softmax(1).mean(1).sum()])
        assert equal(masks, top(scores, masks))

    @pytest.mark.parametrize(
        ("inputs", "error", "message"),
        [
            ([], InputError, "there must be a batch"),
            ([INPUTS[:0]], InputError, "must see at least one image"),
            ([(INPUTS, LABELS - 5)], InputError, "labels must be 0 or more, but one is -5"),
            ([(INPUTS, LABELS, LABELS)], InputError, r"a pair \(inputs, labels\).*tuple of 3"),
            ([(INPUTS, LABELS[:3])], InputError, "3 labels for 24 inputs"),
            ([(INPUTS.double(), LABELS)], InputError, r"of torch\.float32, normalised"),
            ([INPUTS, INPUTS * torch.nan], NumericsError, "must be finite"),
            ({"wide": INPUTS, "narrow": "text"}, RuntimeError, None),
            ((), InputError, "one tensor"),
            ({}, InputError, "one tensor"),
        ],
    )
    def test_others_are_refused(self, inputs, error, message):
        if error is RuntimeError:  # the network's own words
            with pytest.raises((TypeError, AttributeError)):
                sculpt.prune(mlp(), 150, inputs=inputs)
        else:
            with pytest.raises(error, match=message):
                sculpt.prune(mlp(), 150, inputs=inputs)


class TestOutputs:
    def test_of_pixels(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1))
        images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        labels = torch.randint(0, 5, (4, 6, 6), generator=torch.Generator().manual_seed(0))
        labels[0, 0, 0] = -100  # not counted
        for options, loss in (
            ({}, lambda y: -y.log_softmax(1).mean(1).sum()),
            ({"targets": "gt"}, lambda y: F.cross_entropy(y, labels, reduction="sum")),
        ):
            fresh = normal(model)
            expected = sensitivity(fresh, [loss(fresh(images))])
            fresh.zero_grad()
            masks = sculpt.prune(fresh, 100, inputs=images, labels=labels, **options)
            assert equal(masks, top(expected, masks))

    @pytest.mark.parametrize("targets", ["jacobian_1", "jacobian_2"])
    def test_no_jacobian_is_taken_of_pixels(self, targets):
        model = normal(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)))
        images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        with pytest.raises(InputError, match="one answer for each input, but the network gives 16"):
            sculpt.prune(model, 100, inputs=images, targets=targets)

    @pytest.mark.filterwarnings("ignore:.*words.weight")
    def test_of_tokens(self):
        model = Tagger()
        masks = {
            criterion: sculpt.prune(Tagger(), 900, criterion=criterion, inputs=TOKENS, **options)
            for criterion, options in (
                ("connection_sensitivity", {}),
                ("grasp", {"targets": "uniform"}),
                ("synflow", {"rounds": 3}),
                ("random", {"effective": True}),
            )
        }
        assert all(count(found) == 900 for found in masks.values())
        scores = sensitivity(model, [-model(TOKENS)["logits"].log_softmax(2).mean(2).sum()])
        found = masks["connection_sensitivity"]
        assert "block.self_attn.in_proj_weight" in found
        assert sum(int((top(scores, found)[name] != found[name]).sum()) for name in found) <= 2
        with pytest.raises(InputError, match=r"shape \(24, 7, 10\).*or give loss="):
            sculpt.prune(Tagger(named=False), 900, inputs=TOKENS)

    @pytest.mark.filterwarnings("ignore:.*words.weight")
    def test_a_padding_mask_reaches_the_network(self):
        inputs = {"input_ids": TOKENS, "attention_mask": (torch.arange(7) < 4).expand(24, 7).long()}
        padded = sculpt.prune(Tagger(), 900, inputs=inputs)
        assert not equal(padded, sculpt.prune(Tagger(), 900, inputs=TOKENS))


class TestLosses:
    @pytest.mark.parametrize("criterion", ["connection_sensitivity", "grasp", "iterative_snip"])
    def test_of_ones_own(self, criterion):
        """A regression and a task that no criterion has of itself."""
        model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
        wanted = INPUTS.sum(1, keepdim=True)

        def loss(network, batch):
            inputs, answers = batch
            return F.mse_loss(network(inputs), answers, reduction="sum")

        loader = DataLoader(TensorDataset(INPUTS, wanted), batch_size=10)
        options = {"rounds": 2} if criterion == "iterative_snip" else {}
        masks = sculpt.prune(
            normal(model), 100, criterion=criterion, inputs=loader, loss=loss, **options
        )
        assert count(masks) == 100
        if criterion == "connection_sensitivity":
            scores = sensitivity(normal(model), [loss(model, (INPUTS, wanted))])
            assert sum(int((top(scores, masks)[name] != masks[name]).sum()) for name in masks) <= 2

    @pytest.mark.parametrize("labels", [None, LABELS])
    def test_a_batch_is_what_was_given(self, labels):
        seen = []

        def loss(network, batch):
            seen.append(batch)
            inputs = batch if labels is None else batch[0]
            return network(inputs).square().sum()

        sculpt.prune(mlp(), 150, inputs=INPUTS, labels=labels, loss=loss, batch_size=20)
        first = seen[0] if labels is None else seen[0][0]
        assert torch.equal(first, INPUTS[:20])
        assert len(seen) == 2
        seen.clear()
        sculpt.prune(mlp(), 150, inputs=[INPUTS if labels is None else (INPUTS, 1, 2)], loss=loss)
        assert labels is None or seen[0][1:] == (1, 2)

    @pytest.mark.parametrize(
        ("loss", "options", "message"),
        [
            (lambda network, batch: network(batch), {}, r"one number.*shape \(24, 10\)"),
            (lambda network, batch: 3.0, {}, "one number.*float"),
            (lambda network, batch: network(batch).sum().detach(), {}, "depends on the weights"),
            (lambda network, batch: network(batch).sum(), {"targets": "gt"}, "one loss"),
        ],
    )
    def test_others_are_refused(self, loss, options, message):
        with pytest.raises(InputError, match=message):
            sculpt.prune(mlp(), 150, inputs=INPUTS, loss=loss, **options)
