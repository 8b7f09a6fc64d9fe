"""Embeddings are pruned on request: by their whole names, weight by weight, to an exact budget."""

import copy

import pytest
import torch
from any_networks import LanguageModel
from networks import equal
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import sculpt
from sculpt.errors import BudgetError, InputError, SculptWarning
from sculpt.pruning.masks import count_kept, count_parameters, prunable_parameters

TOKENS = torch.randint(1, 30, (6, 7), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 4
EMBEDDING = 30 * 8
LAYERS = 8 * 12 + 12 + 12 * 4 + 4


class Classifier(nn.Module):
    """Words, their mean, and two linear layers."""

    def __init__(self, bag: bool = False, **options: object) -> None:
        super().__init__()
        kind = nn.EmbeddingBag if bag else nn.Embedding
        self.tokens = kind(30, 8, padding_idx=0, **options)
        self.places = nn.Embedding(7, 8)
        self.hidden, self.head = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        words = self.tokens(tokens)
        if words.dim() == 3:
            words = (words + self.places(torch.arange(7))).mean(1)
        return self.head(torch.tanh(self.hidden(words)))


def build(**options: object) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(**options).double()
    with torch.no_grad():
        model.tokens.weight.mul_(0.2)  # of the size of the others
    return model


def prune(model: nn.Module, budget: int, **options: object) -> dict[str, Tensor]:
    given = {"inputs": TOKENS, "labels": LABELS, "include": ["*", "tokens.weight"]}
    with pytest.warns(SculptWarning, match="is left alone") as warned:
        masks = sculpt.prune(model, budget, **given | options)
    assert "tokens.weight" not in str(warned[0].message)
    return masks


CRITERIA = [
    ("connection_sensitivity", {"targets": "gt"}),
    ("connection_sensitivity", {"scope": "layer"}),
    ("iterative_snip", {"rounds": 4}),
    ("grasp", {}),
    ("magnitude", {"granularity": "kernel"}),
    ("random", {}),
    ("erk_random", {}),
    ("shuffled", {}),
]


@pytest.mark.parametrize(("criterion", "options"), CRITERIA, ids=str)
def test_the_budget_is_exact_under_both_rules(criterion, options):
    model, other = build(), build()
    masks = prune(model, 150, criterion=criterion, **options)
    assert masks.keys() == {"tokens.weight"} | prunable_parameters(model).keys()
    assert count_kept(model, masks, "paper") == sum(int(m.sum()) for m in masks.values()) == 150
    assert 0 < int(masks["tokens.weight"].sum()) < EMBEDDING
    assert not model.tokens.weight[~masks["tokens.weight"]].any()
    masks = prune(other, 150 + 56, criterion=criterion, counting="total", **options)
    assert count_kept(other, masks, "total") == 150 + 56, "56 of places are never pruned"
    assert count_parameters(other, "paper") == LAYERS


@pytest.mark.parametrize("build_options", [{}, {"sparse": True}, {"bag": True}])
def test_scores_are_those_of_ten_independent_lines(build_options):
    model = build(**build_options)
    plain, twin = build(**build_options | {"sparse": False}), copy.deepcopy(model)
    loss = nn.functional.cross_entropy(plain(TOKENS), LABELS)
    names = ["tokens.weight", *prunable_parameters(plain)]
    weights = [plain.get_parameter(name) for name in names]
    gradients = torch.autograd.grad(loss, weights)
    scores = torch.cat([(w * g).abs().flatten() for w, g in zip(weights, gradients, strict=True)])
    expected = scores >= scores.sort(descending=True).values[149]
    masks = prune(model, 150, targets="gt")
    assert torch.equal(torch.cat([masks[name].flatten() for name in names]), expected)
    assert model.tokens.sparse == twin.tokens.sparse
    assert vars(model.tokens).keys() == vars(twin.tokens).keys(), "nothing is left on the network"


def test_only_a_whole_name_means_it():
    for include in (["*"], ["*.weight", "*.bias"], ["*", "head.weight"]):
        model = build()
        with pytest.warns(SculptWarning, match=r"tokens\.weight, places\.weight"):
            masks = sculpt.prune(model, 100, criterion="magnitude", include=include)
        assert masks.keys() == prunable_parameters(model).keys()
    masks = prune(build(), 100, include=["tokens.weight"], criterion="magnitude")
    assert int(masks["tokens.weight"].sum()) == 100
    assert all(mask.all() for name, mask in masks.items() if name != "tokens.weight")
    with pytest.raises(InputError, match=r"got 'tok\*'.*; tokens\.weight, in full, is an emb"):
        sculpt.prune(build(), 100, criterion="magnitude", include=["*", "tok*"])
    with pytest.warns(SculptWarning, match="is left alone"):
        masks = sculpt.prune(
            build(), 90, criterion="magnitude", include=["*", "tokens.weight"], exclude=["tokens*"]
        )
    assert masks["tokens.weight"].all()
    frozen = build()
    frozen.tokens.requires_grad_(False)
    with pytest.raises(InputError, match="got 'tokens"):
        sculpt.prune(frozen, 100, criterion="magnitude", include=["*", "tokens.weight"])


@pytest.mark.parametrize(
    "options",
    [
        {"criterion": "synflow"},
        {"criterion": "synflow_random_rounds"},
        {"criterion": "npb"},
        {"effective": True},
        {"mac_exponent": 0.5},
        {"granularity": "channel"},
    ],
    ids=str,
)
def test_whatever_follows_paths_refuses_it_by_name(options):
    model = build()
    before = copy.deepcopy(model.state_dict())
    given = {"inputs": TOKENS, "include": ["*", "tokens.weight"]}
    with pytest.raises(InputError, match=r"behind tokens\.weight; leave it out of include"):
        sculpt.prune(model, 150, **given | options)
    assert equal(model.state_dict(), before)
    assert "pruned_on_request" not in vars(model.tokens)


def test_a_tied_one_is_the_linear_layers():
    model = LanguageModel()
    inputs = {"inputs": TOKENS, "include": ["*", "words.weight"]}
    with pytest.warns(SculptWarning, match=r"places\.weight"):
        masks = sculpt.prune(model, 2000, **inputs)
    assert masks.keys() == prunable_parameters(model).keys()
    assert count_kept(model, masks, "paper") == 2000


def test_a_second_time_nothing_comes_back():
    model = build()
    first = prune(model, 200, criterion="magnitude")
    second = prune(model, 120, criterion="random")
    assert not (second["tokens.weight"] & ~first["tokens.weight"])[1:].any()
    with pytest.raises(BudgetError, match="must not exceed the weights that are there"):
        sculpt.prune(model, 300, criterion="random", include=["*", "tokens.weight"])


def test_padding_may_be_kept():
    model = build()
    masks = prune(model, EMBEDDING + LAYERS, criterion="magnitude")
    assert all(mask.all() for mask in masks.values())


def test_masks_are_kept_in_training_diagnosed_and_handed_over():
    model = build()
    masks = prune(model, 150)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    sculpt.attach_masks(optimizer, model, masks)
    for _ in range(3):
        nn.functional.cross_entropy(model(TOKENS), LABELS).backward()
        optimizer.step()
    assert not model.tokens.weight[~masks["tokens.weight"]].any()
    assert model.tokens.weight[masks["tokens.weight"]].all()
    embedding = model.tokens.weight.clone()
    sculpt.repair_isometry(model, masks)
    assert torch.equal(model.tokens.weight, embedding)
    found = sculpt.diagnose(model, masks, TOKENS)
    assert found["kept_parameters"] == 150
    assert [layer["name"] for layer in found["layers"]] == ["hidden.weight", "head.weight"]
    with torch.no_grad():
        model.tokens.weight.add_(1)
    with pytest.raises(InputError, match=r"some of tokens\.weight are not"):
        sculpt.diagnose(model, masks, TOKENS)
    sculpt.apply_masks(model, masks)
    sculpt.to_torch_pruning(model, masks)
    assert torch_prune.is_pruned(model.tokens)
    assert equal(sculpt.from_torch_pruning(model), masks)


def test_masks_that_do_not_fit_are_refused():
    model = build()
    masks = prune(model, 150)
    with pytest.raises(InputError, match=r"the mask of tokens\.weight must be bool of shape"):
        sculpt.apply_masks(model, masks | {"tokens.weight": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(InputError, match=r"only one of the two: words\.weight"):
        sculpt.apply_masks(model, masks | {"words.weight": masks["tokens.weight"]})
