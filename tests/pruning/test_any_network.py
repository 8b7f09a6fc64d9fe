"""Networks and calls as users bring them: shared, frozen and foreign parameters, groups."""

import copy
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from networks import count, equal, normal
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

import sculpt
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.orthogonality import layer_orthogonality
from sculpt.diagnostics.topology import measure_topology
from sculpt.errors import BudgetError, InputError, NumericsError, SculptWarning
from sculpt.pruning.masks import count_parameters, dense_masks, prunable_parameters
from sculpt.registry import CRITERIA, options_of

INPUTS = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 10
RULES = [{}, {"effective": True}, {"granularity": "channel"}]
ON_ANY = [name for name in CRITERIA.names() if name != "from_bundle"]


def mlp():
    """516 weights and 36 biases."""
    first, second, last = nn.Linear(16, 16), nn.Linear(16, 10), nn.Linear(10, 10)
    model = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last)
    normal(model)
    return model


def shared():
    """480 weights, 256 of them in two layers."""
    sizes = [(16, 16), (16, 16), (16, 14)]
    layers = [nn.Linear(*size, bias=False) for size in sizes]
    model = nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])
    normal(model)
    model[2].weight = model[0].weight
    return model


def prune(model, budget, criterion="magnitude", **options):
    if "rounds" in options_of(CRITERIA.get(criterion)):
        options.setdefault("rounds", 3)
    data = {"inputs": INPUTS, "labels": LABELS} | options
    return sculpt.prune(model, budget, criterion=criterion, **data)


def nonzero(model):
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


class TestSharedWeights:
    @pytest.mark.parametrize("criterion", ON_ANY)
    def test_one_counts_once_and_has_one_mask(self, criterion):
        model = shared()
        masks = prune(model, 300, criterion)
        assert list(masks) == ["0.weight", "4.weight"]
        assert count(masks) == nonzero(model) == 300
        assert model[0].weight is model[2].weight

    # More weights are shared, and so left whole, than the budget: rows are ranked by themselves.
    @pytest.mark.filterwarnings("ignore:channels are removed of each layer by itself")
    @pytest.mark.parametrize("rule", [*RULES, {"mac_exponent": 1.0}], ids=str)
    def test_under_every_rule(self, rule):
        model = shared()
        masks = prune(model, 300, "connection_sensitivity", **rule)
        assert 250 < count(masks) <= 300
        assert nonzero(model) == count(masks)

    def test_a_budget_beyond_the_unique_weights_is_refused(self):
        assert count_parameters(shared(), "paper") == 480
        with pytest.raises(BudgetError, match="at most 480"):
            prune(shared(), 700)

    def test_everything_else_sees_one_too(self):
        model = shared()
        sculpt.initialize(model, "ldi", seed=0)
        alone = nn.Sequential(nn.Linear(16, 16, bias=False))
        sculpt.initialize(alone, "ldi", seed=0)
        assert torch.equal(model[0].weight, alone[0].weight), "drawn once, as the first of them"
        masks = prune(model, 300)
        assert list(sculpt.repair_isometry(model, masks)) == list(masks)
        report = sculpt.diagnose(model, masks, INPUTS)
        assert report["kept_parameters"] == 300
        assert report["dense_macs"] == 16 * 16 * 2 + 16 * 14  # but it is used twice
        assert [layer["name"] for layer in report["layers"]] == list(masks)

    def test_biases_of_their_own_follow_the_weight_that_they_share(self):
        model = mlp()
        model[4] = nn.Linear(10, 16)
        model.append(nn.Tanh())
        model.append(nn.Linear(16, 16))
        model[6].weight = model[0].weight
        masks = prune(model, 250, mac_exponent=1.0, effective=True)
        assert {"0.bias", "6.bias"} < masks.keys()
        assert "6.weight" not in masks

    def test_a_weight_shared_with_another_kind_of_layer(self):
        """Named as the network's own list of parameters names it."""
        model = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 10))
        model[1].weight = model[0].weight
        assert list(prunable_parameters(model)) == ["0.weight", "1.bias"]


class TestFrozenLayers:
    def frozen(self):
        model = mlp()
        model[0].requires_grad_(False)
        return model

    @pytest.mark.parametrize("criterion", ON_ANY)
    def test_they_stay_and_count_nothing(self, criterion):
        model = self.frozen()
        before = model[0].weight.clone()
        with pytest.warns(SculptWarning, match=r"49\.3%.*0\.weight \(frozen\), 0\.bias") as said:
            masks = prune(model, 120, criterion)
        assert len(said) == 1
        assert torch.equal(model[0].weight, before)
        assert nonzero(model[2:]) == 120
        assert masks["0.weight"].all()

    @pytest.mark.filterwarnings("ignore::sculpt.errors.SculptWarning")
    @pytest.mark.parametrize("rule", RULES, ids=str)
    def test_under_every_rule(self, rule):
        model = self.frozen()
        before = model[0].weight.clone()
        masks = prune(model, 120, "connection_sensitivity", **rule)
        sculpt.repair_isometry(model, masks)
        sculpt.initialize(model, "ldi", seed=1)
        assert torch.equal(model[0].weight, before)
        assert 100 < sum(int(masks[name].sum()) for name in masks if name[0] != "0") <= 120
        sculpt.apply_masks(model.requires_grad_(True), masks)  # once it is thawed, too
        assert torch.equal(model[0].weight, before)

    def test_nothing_is_left_to_prune(self):
        with pytest.raises(InputError, match="all are frozen"):
            prune(mlp().requires_grad_(False), 100)


class TestGroups:
    @staticmethod
    def depthwise(kernel=3):
        """A depthwise convolution that hands its input on."""
        layer = nn.Conv2d(8, 8, kernel, padding=kernel // 2, groups=8, bias=False)
        nn.init.dirac_(layer.weight, groups=8)
        return layer

    @pytest.mark.parametrize("method", ["frobenius", "spectral", "exact"])
    def test_an_isometric_depthwise_layer_is_one_and_stays_one(self, method):
        layer = self.depthwise()
        assert layer_orthogonality(layer) == {"weight": 0}
        before = layer.weight.clone()
        outcome = sculpt.repair_isometry(layer, dense_masks(layer), method=method)["weight"]
        torch.testing.assert_close(layer.weight, before)
        assert outcome.converged
        assert outcome.bound == 0

    @pytest.mark.parametrize("method", ["frobenius", "spectral", "exact"])
    @pytest.mark.parametrize(
        "layer",
        [
            nn.Conv2d(12, 12, 3, groups=12),
            nn.Conv2d(12, 8, 3, groups=4),
            nn.Conv1d(8, 16, 2, groups=2),
            nn.ConvTranspose2d(6, 12, 3),
            nn.ConvTranspose2d(12, 6, 2, groups=3),
        ],
        ids=repr,
    )
    def test_each_group_is_repaired_as_a_layer_of_its_own(self, layer, method):
        normal(layer)
        stream = torch.Generator().manual_seed(0)
        masks = dense_masks(layer)
        masks["weight"] = torch.rand(layer.weight.shape, generator=stream) < 0.7
        sculpt.apply_masks(layer, masks)
        outcome = sculpt.repair_isometry(layer, masks, method=method)["weight"]
        assert outcome.converged
        for weight, mask in zip(
            self.blocks(layer), self.blocks(layer, masks["weight"]), strict=True
        ):
            assert not weight[~mask].any()
            gram = weight @ weight.T
            torch.testing.assert_close(gram, torch.eye(len(gram)), atol=0.03, rtol=0)

    @staticmethod
    def blocks(layer, tensor=None):
        """Slice the matrix of each group, outputs by fan-in, out of a weight, one by one."""
        tensor = layer.weight.detach() if tensor is None else tensor
        inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        found = []
        for group in range(layer.groups):
            if layer.transposed:
                own = tensor[group * inputs : (group + 1) * inputs].transpose(0, 1)
            else:
                own = tensor[group * outputs : (group + 1) * outputs]
            found.append(own.reshape(outputs, -1))
        return found

    @pytest.mark.parametrize("sizes", [(16, 8, 4, 2), (16, 8, 3, 1), (8, 16, 3, 2), (8, 2, 2, 2)])
    @pytest.mark.parametrize("groups", [1, 2])
    def test_a_transposed_convolution_drawn_by_ldi_is_isometric(self, sizes, groups):
        inputs, outputs, kernel, stride = sizes
        layer = nn.ConvTranspose2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        sculpt.initialize(layer.double(), "ldi", seed=0)
        zeros = torch.zeros(1, inputs, 4, 4, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(layer, zeros).reshape(-1, zeros.numel())
        values = torch.linalg.svdvals(jacobian)
        values = values[values > 1e-5]
        assert len(values) >= min(zeros.numel(), outputs * 16)
        torch.testing.assert_close(values, torch.ones_like(values), atol=1e-5, rtol=0)

    @pytest.mark.parametrize(
        ("layer", "macs"),
        [
            (nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1), 3 * 5 * 16 * 36),
            (nn.ConvTranspose2d(4, 6, 3, groups=2), 4 * 3 * 9 * 36),
            (nn.ConvTranspose1d(4, 6, 3, stride=3), 4 * 6 * 3 * 6),
        ],
        ids=repr,
    )
    def test_a_transposed_convolution_multiplies_every_input_by_its_kernel(self, layer, macs):
        shape = (layer.in_channels, *[6] * len(layer.kernel_size))
        assert measure_cost(layer, shape).dense_macs == macs

    def test_a_transposed_convolutions_rows_are_its_outputs(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2, groups=2))
        masks = dense_masks(model)
        masks["2.weight"][:, 1] = False  # the middle output of both groups
        topology = measure_topology(model, masks, (3, 5, 5))
        assert topology.channels == {"0.weight": 4, "2.weight": 4}
        assert topology.effective["2.bias"].tolist() == [True, False, True] * 2
        report = sculpt.diagnose(normal(model), None, torch.randn(2, 3, 5, 5))
        assert report["layers"][1]["effective_channels"] == 6

    @pytest.mark.filterwarnings("ignore:.*could not be spent")
    @pytest.mark.parametrize("rule", [*RULES, {"granularity": "kernel"}], ids=str)
    def test_networks_with_both_are_pruned_by_every_rule(self, rule):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=4),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 6, 2, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 10),
        )
        normal(model)
        images = torch.randn(8, 1, 6, 6)
        masks = sculpt.prune(model, 300, criterion="magnitude", inputs=images, **rule)
        if rule.get("granularity") == "channel":
            # Both channels of a group stay or go: with every choice of them 237 or 303 are left.
            assert count(masks) == 237
        else:
            assert 250 < count(masks) <= 300


class TestWhatIsLeftOut:
    def test_it_is_said_once_with_names_and_share(self):
        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.words = nn.Embedding(50, 16)
                self.recurrent = nn.GRU(16, 16, batch_first=True)
                self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
                self.norm = nn.LayerNorm(16)
                self.scale = nn.Parameter(torch.ones(16))
                self.head = nn.Linear(16, 10)

            def forward(self, words):
                hidden, _ = self.recurrent(self.words(words))
                hidden, _ = self.attention(hidden, hidden, hidden)
                return self.head(self.norm(hidden.mean(1)) * self.scale)

        model = Network()
        words = torch.randint(0, 50, (8, 5))
        named = "scale, words.weight, recurrent.weight_ih_l0"
        rest = sum(p.numel() for p in model.parameters()) - 4 * 16 * 17 - 10 * 17 - 32
        share = rest / sum(p.numel() for p in model.parameters())
        with pytest.warns(SculptWarning, match=f"{share:.1%}.*{named}") as said:
            masks = sculpt.prune(model, 200, inputs=words)
        assert len(said) == 1
        assert "norm" not in str(said[0].message)
        assert "attention." not in str(said[0].message)
        assert count(masks) == 200
        with pytest.raises(InputError, match="'gru'"):
            sculpt.prune(Network(), 200, inputs=words, effective=True)
        report = sculpt.diagnose(Network(), None, words)
        assert report["effective"] is None
        assert report["jacobian"] is None
        assert [line.partition(":")[0] for line in report["left_out"]] == ["jacobian", "effective"]
        assert {layer["effective_channels"] for layer in report["layers"]} == {None}

    @pytest.mark.parametrize(
        "parametrize",
        [
            parametrizations.weight_norm,
            parametrizations.spectral_norm,
            parametrizations.orthogonal,
            nn.utils.spectral_norm,
            lambda layer: torch_prune.random_unstructured(layer, "weight", 0.3),
            lambda layer: torch_prune.random_unstructured(layer, "bias", 0.3),
        ],
    )
    def test_a_weight_computed_from_others_is_refused_by_name(self, parametrize):
        model = mlp()
        parametrize(model[2])
        for use in (
            lambda: prune(model, 100),
            lambda: sculpt.initialize(model, "ldi", seed=0),
            lambda: sculpt.repair_isometry(model, {}),
            lambda: sculpt.diagnose(model, None, INPUTS),
        ):
            with pytest.raises(InputError, match=r"but 2\.(weight|bias) is computed from others"):
                use()


class TestPatterns:
    @pytest.mark.parametrize("criterion", ON_ANY)
    @pytest.mark.parametrize(
        "patterns", [{"exclude": ["4.*"]}, {"include": ["0.*", "2.*"]}, {"include": ["[02].*"]}]
    )
    def test_what_they_leave_out_stays_whole(self, criterion, patterns):
        model = mlp()
        last = model[4].weight.clone()
        masks = prune(model, 200, criterion, **patterns)
        assert torch.equal(model[4].weight, last)
        assert masks["4.weight"].all()
        assert count(masks) == 200 + 110
        assert all(parameter.requires_grad for parameter in model.parameters())
        masks = prune(mlp(), 310, criterion, counting="total", **patterns)
        assert count(masks) == 310

    def test_biases_may_be_left_out(self):
        masks = prune(mlp(), 200, exclude=["*.bias"])
        assert sum(int(masks[name].sum()) for name in masks if "weight" in name) == 200
        assert all(masks[name].all() for name in masks if "bias" in name)

    @pytest.mark.parametrize(
        ("patterns", "message"),
        [
            ({"exclude": ["head.*"]}, r"got 'head\.\*'; their names are 0\.weight, 0\.bias, 2\.w"),
            ({"include": "0.*"}, "must be lists of patterns"),
            ({"include": []}, "all are frozen"),
            ({"exclude": ["*"]}, "all are frozen"),
        ],
        ids=str,
    )
    def test_patterns_match(self, patterns, message):
        with pytest.raises(InputError, match=message):
            prune(mlp(), 200, **patterns)

    def test_a_budget_covers_what_it_counts(self):
        with pytest.raises(BudgetError, match=r"above 110 .* at most 552 .*but got 100"):
            prune(mlp(), 100, counting="total", exclude=["4.*"])


class TestPrunedBefore:
    @pytest.mark.parametrize("criterion", ON_ANY)
    def test_a_budget_beyond_the_weights_that_are_left_is_refused(self, criterion):
        model = shared()
        prune(model, 200)
        before = model[0].weight.clone()
        with pytest.raises(BudgetError, match="keeps 300 of 200"):
            prune(model, 300, criterion)
        assert torch.equal(model[0].weight, before)

    @pytest.mark.parametrize("criterion", ON_ANY)
    def test_a_mask_keeps_no_weight_that_is_gone(self, criterion):
        model = shared()
        prune(model, 200)
        if criterion in ("erk_random", "npb", "shuffled"):  # they choose whole masks
            with pytest.raises(BudgetError, match=f"of the 120 to keep {criterion} chooses only"):
                prune(model, 120, criterion)
            assert nonzero(model) == 200
        else:
            prune(model, 120, criterion)
            assert nonzero(model) == 120


class Returning(nn.Module):
    """A network that returns what a function makes of its logits."""

    def __init__(self, what):
        super().__init__()
        self.body, self.what = mlp(), what

    def forward(self, inputs):
        return self.what(self.body(inputs))


class TestCalls:
    @pytest.mark.parametrize("budget", [300.0, "300", None, True, [300], float("nan")], ids=repr)
    def test_a_budget_is_a_whole_number(self, budget):
        with pytest.raises(BudgetError, match="must be a whole number"):
            prune(mlp(), budget)

    def test_also_one_of_numpys(self):
        assert count(prune(mlp(), LABELS.numpy()[9] + 291)) == 300

    @pytest.mark.parametrize(
        "labels",
        [LABELS.tolist(), LABELS.float(), LABELS.numpy(), LABELS > 4, torch.eye(10)[LABELS].long()],
        ids=lambda labels: f"{type(labels).__name__} {getattr(labels, 'dtype', '')}",
    )
    def test_labels_are_one_tensor_of_whole_numbers(self, labels):
        with pytest.raises(InputError, match=r"labels must be one tensor \(N,\) of whole numbers"):
            prune(mlp(), 300, labels=labels)

    def test_labels_may_be_any_whole_numbers_of_classes(self):
        first, second = (
            prune(mlp(), 300, "grasp", labels=labels) for labels in (LABELS, LABELS.to(torch.uint8))
        )
        assert equal(first, second)
        for labels, message in ((LABELS + 1, "10 classes, but one is 10"), (LABELS - 1, "is -1")):
            with pytest.raises(InputError, match=message):
                prune(mlp(), 300, "grasp", labels=labels)

    @pytest.mark.parametrize(
        "inputs",
        [
            INPUTS.numpy(),
            3,
            (INPUTS * 9).to(torch.uint8),
            INPUTS.double(),
            INPUTS[0],
        ],
        ids=lambda inputs: f"{type(inputs).__name__} {getattr(inputs, 'dtype', '')}",
    )
    def test_inputs_are_one_tensor_of_the_weights_type(self, inputs):
        with pytest.raises(InputError, match=r"inputs must be one tensor \(N, \.\.\.\)"):
            prune(mlp(), 300, inputs=inputs)
        with pytest.raises(InputError, match=r"inputs must be one tensor \(N, \.\.\.\)"):
            prune(mlp(), 300, inputs=inputs, labels=None)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    @pytest.mark.parametrize("criterion", ["random", "connection_sensitivity"])
    def test_numbers_are_finite(self, criterion, bad):
        model = mlp()
        with torch.no_grad():
            model[2].weight[0, 0] = bad
        with pytest.raises(NumericsError, match=r"weights must be finite.*2\.weight"):
            prune(model, 300, criterion)
        inputs = INPUTS.clone()
        inputs[1, 2] = bad
        with pytest.raises(NumericsError, match="inputs must be finite numbers, but 1 "):
            prune(mlp(), 300, criterion, inputs=inputs)
        with pytest.raises(NumericsError, match="inputs must be finite"):
            sculpt.diagnose(mlp(), None, inputs)

    @pytest.mark.parametrize(
        "context", [torch.no_grad, torch.inference_mode], ids=lambda c: c.__name__
    )
    @pytest.mark.parametrize("criterion", ["connection_sensitivity", "grasp", "synflow", "npb"])
    def test_gradients_need_not_be_enabled(self, criterion, context):
        options = {"effective": criterion != "npb"}
        expected = prune(mlp(), 300, criterion, **options)
        model, other = mlp(), mlp()
        with context():
            masks = prune(model, 300, criterion, inputs=INPUTS.clone(), **options)
            sculpt.initialize(other, "ldi", seed=0)
            sculpt.repair_isometry(model, masks)
            report = sculpt.diagnose(model, masks, INPUTS.clone())
        assert equal(masks, expected)
        assert report["kept_parameters"] == 300
        model(INPUTS).sum().backward()  # and they are no tensors of inference mode

    @pytest.mark.parametrize(
        ("what", "named"),
        [
            (lambda logits: (0, logits), "tuple of 2"),
            (lambda logits: {"scores": logits, "loss": 0}, "dict with scores, loss"),
            (lambda logits: logits[:, None].expand(-1, 3, -1), r"shape \(24, 3, 10\)"),
            (lambda logits: logits[:, 0], r"shape \(24,\)"),
            (lambda logits: logits.mean(0, keepdim=True), r"shape \(1, 10\)"),
            (lambda logits: logits.detach(), "depend on the weights"),
            (lambda logits: logits[:, :1], "one logit"),
        ],
    )
    @pytest.mark.parametrize("targets", ["gt", "uniform"])
    @pytest.mark.parametrize("criterion", ["connection_sensitivity", "grasp", "iterative_snip"])
    def test_a_loss_is_of_logits(self, criterion, targets, what, named):
        with pytest.raises(InputError, match=named):
            prune(Returning(what), 300, criterion, targets=targets)

    @pytest.mark.parametrize(
        "what",
        [
            lambda logits: (logits, logits.sum()),
            lambda logits: [logits],
            lambda logits: {"logits": logits, "loss": 0},
            lambda logits: {"aux": logits * 2, "out": logits},
            lambda logits: SimpleNamespace(logits=logits),
            lambda logits: namedtuple("Outputs", "loss logits")(0, logits),
        ],
    )
    @pytest.mark.parametrize("criterion", ON_ANY)
    def test_logits_are_found_among_outputs(self, criterion, what):
        model = Returning(what)
        masks = prune(model, 300, criterion, effective=criterion == "random")
        expected = prune(Returning(lambda logits: logits), 300, criterion)
        if criterion != "random":
            assert equal(masks, expected)
        report = sculpt.diagnose(model, masks, INPUTS)
        assert report["kept_parameters"] == 300
        assert report["left_out"] == []

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            (nn.Sequential(), "Sequential has none"),
            (nn.ReLU(), "ReLU has none"),
            (None, r"must be a torch\.nn\.Module, but got NoneType"),
            (nn.LazyLinear(3), "weight has none; run one batch"),
            (nn.Linear(16, 10, device="meta"), "weight has none; bring the network from the meta"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("use", ["prune", "initialize", "repair", "diagnose", "apply"])
    def test_a_network_has_weights_with_values(self, use, model, message):
        uses = {
            "prune": lambda: prune(model, 10),
            "initialize": lambda: sculpt.initialize(model, "ldi", seed=0),
            "repair": lambda: sculpt.repair_isometry(model, {}),
            "diagnose": lambda: sculpt.diagnose(model, None, INPUTS),
            "apply": lambda: sculpt.apply_masks(model, {}),
        }
        with pytest.raises(InputError, match=message):
            uses[use]()

    @pytest.mark.parametrize("use", [sculpt.apply_masks, sculpt.repair_isometry])
    def test_masks_are_those_of_the_network(self, use):
        masks = dense_masks(mlp())
        for given, message in (
            (None, "a dictionary of bool tensors by parameter name.*NoneType"),
            (list(masks.values()), "got list"),
            ({"x": masks["0.weight"]}, "only one of the two"),
            (
                {name: mask.numpy() for name, mask in masks.items()},
                "0.weight must be bool.*ndarray",
            ),
            (masks | {"2.bias": masks["0.bias"]}, r"2\.bias must be bool of shape \(10,\)"),
        ):
            with pytest.raises(InputError, match=message):
                use(mlp(), given)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"rounds": 3, "criterion": "magnitude"}, r"of magnitude \(checkpoint\), but got"),
            ({"criterion": "from_bundle"}, r"from_bundle \(bundle\) must be given"),
            ({"counting": "all"}, "counting must be one of paper, total"),
            ({"batch_size": 0}, "batch_size must be a whole number of 1 or more, but got 0"),
            ({"batch_size": 32.0}, "batch_size must be a whole number of 1 or more, but got 32.0"),
            ({"seed": None}, "seed must be a whole number"),
            ({"inputs": INPUTS[:0]}, "must see at least one image"),
            ({"mac_exponent": "1"}, "mac_exponent must be a number of 0 or more, but got .1"),
            ({"loss": "mse"}, "loss must be called with the model and a batch"),
            ({"exclude": None}, "include and exclude must be lists of patterns"),
            ({"granularity": (2, 4)}, "granularity must be one of"),
            ({"input_shape": 16}, r"input_shape must be whole numbers, .* but got 16"),
            ({"mac_exponent": -1.0}, "mac_exponent must be a number of 0 or more, but got -1.0"),
        ],
        ids=str,
    )
    def test_options_are_known(self, options, message):
        with pytest.raises(InputError, match=message):
            sculpt.prune(mlp(), 300, **{"inputs": INPUTS, **options})

    @pytest.mark.parametrize(
        ("criterion", "rule"),
        [
            ("connection_sensitivity", {}),
            ("grasp", {}),
            ("synflow", {}),
            ("magnitude", {"mac_exponent": 1.0}),
            ("magnitude", {"effective": True}),
        ],
    )
    def test_a_layer_that_is_not_used_scores_nothing(self, criterion, rule):
        model = Returning(lambda logits: logits)
        model.forgotten = nn.Linear(10, 10)
        with pytest.warns(SculptWarning, match=r"nothing is left of forgotten\.weight"):
            masks = prune(model, 300, criterion, **rule)
        assert count(masks) == 300
        with pytest.raises(InputError, match=r"npb must see .* forgotten\.weight is not"):
            prune(model, 200, "npb")


@pytest.mark.parametrize("criterion", ["connection_sensitivity", "iterative_snip", "grasp"])
def test_products_in_half_precision_choose_nearly_the_same(criterion):
    full, half = (prune(mlp(), 300, criterion, precision=p) for p in ("float32", "bfloat16"))
    same = sum(int((full[name] & half[name]).sum()) for name in full)
    assert 240 < same < 300


class Merging(nn.Linear):
    """Merges its second weight into the first for inference, as LoRA's layers do."""

    def __init__(self):
        super().__init__(16, 16)
        self.extra, self.merged = nn.Parameter(torch.randn(16, 16)), False

    def train(self, mode=True):
        if mode is self.merged:
            self.weight.data += (-1) ** mode * self.extra.data
            self.merged = not mode
        return super().train(mode)

    def forward(self, inputs):
        outputs = nn.functional.linear(inputs, self.weight, self.bias)
        return outputs if self.merged else outputs + nn.functional.linear(inputs, self.extra)


@pytest.mark.parametrize("batch_norm", ["identity", "batch", "warm_up"])
def test_scoring_leaves_what_a_module_does_when_its_mode_changes(batch_norm):
    torch.manual_seed(0)
    model = nn.Sequential(Merging(), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    before = model[0].weight.detach().clone()
    with pytest.warns(SculptWarning, match=r"0\.extra"):
        sculpt.prune(model, 200, inputs=torch.randn(20, 16), batch_norm=batch_norm)
    assert model[0].training
    assert not model[0].merged
    kept = model[0].weight.detach() != 0
    assert torch.equal(model[0].weight.detach()[kept], before[kept])


def test_scores_of_a_network_in_float16_are_not_lost():
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 500)).half()
    inputs = torch.randn(32, 256).half()
    exact, size = copy.deepcopy(wide).float(), sum(p.numel() for p in wide.parameters())
    found = sculpt.prune(wide, size // 2, inputs=inputs)
    expected = sculpt.prune(exact, size // 2, inputs=inputs.float())
    same = sum(int((found[name] == expected[name]).sum()) for name in found)
    assert same / size > 0.98


@pytest.mark.parametrize("criterion", ["connection_sensitivity", "prospr"])
def test_a_batch_of_one_row_joins_the_others(criterion):
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    inputs, labels = torch.randn(17, 16), torch.arange(17) % 10
    options = {"inputs": inputs, "labels": labels, "batch_size": 8, "batch_norm": "batch"}
    masks = sculpt.prune(model, 200, criterion=criterion, **options)
    assert sum(int(mask.sum()) for mask in masks.values()) == 200


class Remembering(nn.Module):
    """Keeps an activation of its last forward pass, as maps of attention are kept."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 10)

    def forward(self, inputs):
        self.seen = [self.first(inputs).relu()]
        return self.last(self.seen[0])


RULES = [{"effective": True}, {"mac_exponent": 0.5}, {"granularity": "channel"}]


@pytest.mark.filterwarnings("ignore:.*could not be spent")
def test_activations_that_a_network_keeps_are_no_hindrance():
    for options in (*RULES, {"criterion": "synflow"}, {"criterion": "npb"}):
        torch.manual_seed(0)
        model = Remembering()
        model(INPUTS)
        masks = sculpt.prune(model, 200, **({"inputs": INPUTS} | options))
        assert model.seen[0].grad_fn is not None, "it is left as it was"
        found = sculpt.diagnose(model, masks, INPUTS[:4])
        assert found["left_out"] == []
        sculpt.compact(model, masks, INPUTS[:4])


def test_a_forward_pass_that_names_its_type():
    """Where float64 is refused, the Jacobian is taken in float32, and paths say what they need."""

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 10)

        def forward(self, inputs):
            return self.layer(inputs.float() @ torch.eye(16))

    torch.manual_seed(0)
    model = Named()
    found = sculpt.diagnose(model, None, INPUTS[:4])
    expected = torch.linalg.svdvals(model.layer.weight.detach().double())
    assert found["jacobian"]["max"] == pytest.approx(float(expected.max()), rel=1e-5)
    (reason,) = found["left_out"]
    assert "paths must be followed in float" in reason
    with pytest.raises(InputError, match="names another type"):
        sculpt.prune(model, 100, inputs=INPUTS, effective=True)


@pytest.mark.slow
def test_a_compiled_network_is_pruned_as_the_plain_one():
    for options in ({"effective": True}, {"targets": "uniform"}, {"rounds": 3}):
        criterion = {"targets": "grasp", "rounds": "synflow"}.get(*options, "magnitude")
        found = []
        for compiled in (False, True):
            torch.manual_seed(0)
            model = mlp()
            if compiled:
                model.compile(backend="aot_eager")
                model(INPUTS)
            found.append(sculpt.prune(model, 300, inputs=INPUTS, criterion=criterion, **options))
            sculpt.diagnose(model, found[-1], INPUTS[:4])
        assert equal(*found)
