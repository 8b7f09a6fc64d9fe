"""Masks in the loops of Lightning and of Hugging Face, where those are installed.

They are no dependency of the tests, whose installation takes minutes as it is.
"""

import pytest
import torch
import torch.nn.functional as F
from networks import count, pruned_nonzeros
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sculpt

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # their own

INPUTS = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 4


def test_lightning(tmp_path):
    lightning = pytest.importorskip("pytorch_lightning", reason="needs pytorch_lightning")

    class Sparse(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.network = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
            sculpt.initialize(self.network, "ldi", seed=0)
            self.masks = sculpt.prune(self.network, 200, inputs=INPUTS)

        def training_step(self, batch):
            inputs, labels = batch
            return F.cross_entropy(self.network(inputs), labels)

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), 1e-2)
            sculpt.attach_masks(optimizer, self.network, self.masks)
            return optimizer

    model = Sparse()
    before = model.network[0].weight.clone()
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, DataLoader(TensorDataset(INPUTS, LABELS), batch_size=8))
    assert pruned_nonzeros(model.network, model.masks) == 0
    assert not torch.equal(model.network[0].weight, before)


def test_hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    pytest.importorskip("accelerate", reason="needs accelerate")
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=4,
        )
    )
    rows = torch.randint(0, 50, (24, 7), generator=torch.Generator().manual_seed(0))
    examples = [
        {"input_ids": row, "attention_mask": torch.ones(7).long(), "labels": label}
        for row, label in zip(rows, LABELS, strict=True)
    ]
    batches = DataLoader(examples, batch_size=8)
    sculpt.initialize(model, "variance_scaling", seed=0)
    masks = sculpt.prune(model, 2000, inputs=batches, targets="gt")
    assert count(masks) == 2000
    report = sculpt.diagnose(model, masks, {"input_ids": rows})
    assert report["kept_parameters"] == 2000
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    sculpt.attach_masks(optimizer, model, masks)
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(
            str(tmp_path), num_train_epochs=1, report_to=[], save_strategy="no", use_cpu=True
        ),
        train_dataset=examples,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)),
    )
    before = model.classifier.weight.clone()
    trainer.train()
    assert pruned_nonzeros(model, masks) == 0
    assert not torch.equal(model.classifier.weight, before)
